/* int8: blocks of 256 elements, 16 fp32 scales before 4,096 signed bytes. */

#include "kernels.h"

#define GROUP 256
#define NUM_GROUPS (CHUNK / GROUP)
#define INT8_CHUNK_BYTES (4 * NUM_GROUPS + CHUNK)

/* The largest fp32 whose 127-fold is finite. */
static const float MAX_SCALE = 0x1.020406p+121f;

/* x: n chunks of fp32; out: n * 4160 bytes. Returns -1, or the first chunk that holds NaN or infinity. */
CLONES int64_t decentra_int8_encode(const float *x, uint8_t *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++) {
        uint8_t *scales = out + chunk * INT8_CHUNK_BYTES;
        int8_t *q = (int8_t *)scales + 4 * NUM_GROUPS;
        for (int group = 0; group < NUM_GROUPS; group++, x += GROUP, q += GROUP) {
            /* Without their sign, fp32 bits are ordered as their values are; NaN and infinity lie above all. */
            uint32_t bits[GROUP], most = 0;
            memcpy(bits, x, sizeof bits);
            for (int i = 0; i < GROUP; i++) {
                uint32_t magnitude = bits[i] & 0x7fffffffu;
                most = magnitude > most ? magnitude : most;
            }
            if (most >= 0x7f800000u)
                return chunk;
            float scale;
            memcpy(&scale, &most, sizeof scale);
            scale = scale / 127.0f;
            scale = scale > MAX_SCALE ? MAX_SCALE : scale;
            memcpy(scales + 4 * group, &scale, sizeof scale);
            if (scale == 0.0f) {
                memset(q, 0, GROUP);
                continue;
            }
            for (int i = 0; i < GROUP; i++) {
                float v = (x[i] / scale + ROUND) - ROUND;
                v = v > 127.0f ? 127.0f : v;
                v = v < -127.0f ? -127.0f : v;
                q[i] = (int8_t)(int32_t)v;
            }
        }
    }
    return -1;
}

/* packed: n * 4160 bytes; out: n chunks of fp32. */
CLONES void decentra_int8_decode(const uint8_t *packed, float *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++) {
        const uint8_t *scales = packed + chunk * INT8_CHUNK_BYTES;
        const int8_t *q = (const int8_t *)scales + 4 * NUM_GROUPS;
        for (int group = 0; group < NUM_GROUPS; group++, out += GROUP, q += GROUP) {
            float scale;
            memcpy(&scale, scales + 4 * group, sizeof scale);
            for (int i = 0; i < GROUP; i++)
                out[i] = (float)q[i] * scale;
        }
    }
}

/* packed: n * 4160 bytes; total: n chunks of fp32, becomes total + factor * what packed decodes to. */
CLONES void decentra_int8_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++) {
        const uint8_t *scales = packed + chunk * INT8_CHUNK_BYTES;
        const int8_t *q = (const int8_t *)scales + 4 * NUM_GROUPS;
        for (int group = 0; group < NUM_GROUPS; group++, total += GROUP, q += GROUP) {
            float scale;
            memcpy(&scale, scales + 4 * group, sizeof scale);
            for (int i = 0; i < GROUP; i++)
                total[i] = total[i] + factor * ((float)q[i] * scale);
        }
    }
}
