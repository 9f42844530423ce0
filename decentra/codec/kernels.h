/* What the codec kernels share. Every operation of a kernel is one rounded fp32 operation, in element order: built with
 * -ffp-contract=off, without fast-math, so that the bytes are those of docs/wire-format.md on every machine and instruction set.
 *
 * For the NAME of each codec and n whole chunks (fp32 aligned to 4 bytes, packed bytes to nothing) there are
 *   int64_t decentra_NAME_encode(const float *x, uint8_t *out, int64_t n)    -1, or the first chunk that holds NaN or infinity
 *   void decentra_NAME_decode(const uint8_t *packed, float *out, int64_t n)
 *   void decentra_NAME_add(const uint8_t *packed, float factor, float *total, int64_t n)    total + factor * what packed decodes to
 */

#ifndef DECENTRA_KERNELS_H
#define DECENTRA_KERNELS_H

#include <stdint.h>
#include <string.h>

#define CHUNK 4096

#ifndef CLONES
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define CLONES
#endif
#endif

/* Belongs into each clone of the kernel that calls it, so that it is compiled for that clone's instructions. */
#define INLINED static inline __attribute__((always_inline))

#define INFINITY_BITS 0x7f800000u
#define NAN_BITS 0x7fc00000u

/* Adding 1.5 * 2^23 rounds a small fp32 half to even; the lowest bits of the sum are then those of the integer. */
#define ROUND 12582912.0f

INLINED uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINED float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINED float load_float(const uint8_t *bytes) {
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

INLINED uint32_t magnitude_bits(float value) {
    return bits_of(value) & 0x7fffffffu;
}

/* Without their sign, fp32 bits are ordered as their values are; those of infinity and NaN lie above all. */
INLINED uint32_t largest_magnitude_bits(const float *x, int count) {
    uint32_t most = 0;
    for (int i = 0; i < count; i++) {
        uint32_t magnitude = magnitude_bits(x[i]);
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

INLINED int is_finite(float value) {
    return magnitude_bits(value) < INFINITY_BITS;
}

/* What a group decodes to whose scale is not finite: products with it would give a NaN of another machine's making. */
INLINED void fill_nan(float *out, int count) {
    for (int i = 0; i < count; i++)
        out[i] = float_of(NAN_BITS);
}

INLINED void add_terms(float *total, float factor, const float *term, int count) {
    for (int i = 0; i < count; i++)
        total[i] = total[i] + factor * term[i];
}

#endif
