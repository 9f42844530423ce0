/* fp32: the bits as they are. bf16: their upper halves, rounded to nearest even. */

#include "kernels.h"

#define MOST_BF16 0x7f7fu

typedef uint16_t __attribute__((aligned(1), may_alias)) half_word;
typedef float __attribute__((aligned(1), may_alias)) packed_float;

CLONES int64_t decentra_fp32_encode(const float *x, uint8_t *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, x += CHUNK, out += 4 * CHUNK) {
        if (largest_magnitude_bits(x, CHUNK) >= INFINITY_BITS)
            return chunk;
        memcpy(out, x, 4 * CHUNK);
    }
    return -1;
}

CLONES void decentra_fp32_decode(const uint8_t *packed, float *out, int64_t n) {
    memcpy(out, packed, 4 * CHUNK * (size_t)n);
}

CLONES void decentra_fp32_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    const packed_float *term = (const packed_float *)packed;
    for (int64_t i = 0; i < n * CHUNK; i++)
        total[i] = total[i] + factor * term[i];
}

CLONES int64_t decentra_bf16_encode(const float *x, uint8_t *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, x += CHUNK, out += 2 * CHUNK) {
        half_word *words = (half_word *)out;
        uint32_t most = 0;
        for (int i = 0; i < CHUNK; i++) {
            uint32_t magnitude = magnitude_bits(x[i]);
            uint32_t upper = (magnitude + 0x7fffu + (magnitude >> 16 & 1)) >> 16;
            upper = upper > MOST_BF16 ? MOST_BF16 : upper;
            words[i] = (uint16_t)(upper | (bits_of(x[i]) >> 16 & 0x8000u));
            most = magnitude > most ? magnitude : most;
        }
        if (most >= INFINITY_BITS)
            return chunk;
    }
    return -1;
}

CLONES void decentra_bf16_decode(const uint8_t *packed, float *out, int64_t n) {
    const half_word *words = (const half_word *)packed;
    for (int64_t i = 0; i < n * CHUNK; i++)
        out[i] = float_of((uint32_t)words[i] << 16);
}

CLONES void decentra_bf16_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    const half_word *words = (const half_word *)packed;
    for (int64_t i = 0; i < n * CHUNK; i++)
        total[i] = total[i] + factor * float_of((uint32_t)words[i] << 16);
}
