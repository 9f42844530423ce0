/* int8: groups of 256 elements; 16 fp32 scales, then 4,096 signed bytes. */

#include "kernels.h"

#define GROUP 256
#define NUM_GROUPS (CHUNK / GROUP)
#define SCALE_BYTES (4 * NUM_GROUPS)
#define CHUNK_BYTES (SCALE_BYTES + CHUNK)

/* The largest fp32 whose 127-fold is finite. */
#define MAX_SCALE 0x1.020406p+121f

INLINED void decode_group(float scale, const int8_t *q, float *out) {
    if (!is_finite(scale)) {
        fill_nan(out, GROUP);
        return;
    }
    for (int i = 0; i < GROUP; i++)
        out[i] = (float)q[i] * scale;
}

CLONES int64_t decentra_int8_encode(const float *x, uint8_t *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, out += CHUNK_BYTES) {
        for (int group = 0; group < NUM_GROUPS; group++, x += GROUP) {
            uint32_t most = largest_magnitude_bits(x, GROUP);
            if (most >= INFINITY_BITS)
                return chunk;
            float scale = float_of(most) / 127.0f;
            scale = scale > MAX_SCALE ? MAX_SCALE : scale;
            memcpy(out + 4 * group, &scale, sizeof scale);
            uint8_t *q = out + SCALE_BYTES + group * GROUP;
            if (scale == 0.0f) {
                memset(q, 0, GROUP);
                continue;
            }
            for (int i = 0; i < GROUP; i++) {
                float v = x[i] / scale;
                v = v > 127.0f ? 127.0f : v;
                v = v < -127.0f ? -127.0f : v;
                q[i] = (uint8_t)bits_of(v + ROUND);
            }
        }
    }
    return -1;
}

CLONES void decentra_int8_decode(const uint8_t *packed, float *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, packed += CHUNK_BYTES)
        for (int group = 0; group < NUM_GROUPS; group++, out += GROUP)
            decode_group(load_float(packed + 4 * group), (const int8_t *)packed + SCALE_BYTES + group * GROUP, out);
}

CLONES void decentra_int8_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    float term[GROUP];
    for (int64_t chunk = 0; chunk < n; chunk++, packed += CHUNK_BYTES) {
        for (int group = 0; group < NUM_GROUPS; group++, total += GROUP) {
            decode_group(load_float(packed + 4 * group), (const int8_t *)packed + SCALE_BYTES + group * GROUP, term);
            add_terms(total, factor, term, GROUP);
        }
    }
}
