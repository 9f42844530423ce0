/* What the codec kernels share. Every operation of a kernel is one rounded fp32 operation, in element order: built with
 * -ffp-contract=off, without fast-math, so that the bytes are those of docs/wire-format.md on every machine and instruction set.
 *
 * A kernel file defines, for the NAME of its codec and n whole chunks (fp32 aligned to 4 bytes, packed bytes to nothing):
 *   int64_t decentra_NAME_encode(const float *x, uint8_t *out, int64_t n)      -1, or the first chunk that holds NaN or infinity
 *   void decentra_NAME_decode(const uint8_t *packed, float *out, int64_t n)
 *   void decentra_NAME_add(const uint8_t *packed, float factor, float *total, int64_t n)      total + factor * what packed decodes to
 */

#ifndef DECENTRA_KERNELS_H
#define DECENTRA_KERNELS_H

#include <stdint.h>
#include <string.h>

#define CHUNK 4096

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define CLONES
#endif

/* Adding and taking away 1.5 * 2^23 rounds a small fp32 half to even. */
#define ROUND 12582912.0f

#endif
