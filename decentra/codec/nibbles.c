/* int4 and fp4: groups of 128 elements; 32 fp32 scales, then for each group 64 bytes, byte j with the code of its element j in
 * the low and that of its element 64 + j in the high four bits. */

#include "kernels.h"

#define GROUP 128
#define HALF (GROUP / 2)
#define NUM_GROUPS (CHUNK / GROUP)
#define SCALE_BYTES (4 * NUM_GROUPS)
#define CHUNK_BYTES (SCALE_BYTES + CHUNK / 2)

/* ratio: x / scale. Codes of int4 are -7 to 7 in two's complement. */
INLINED uint32_t int4_code(float ratio) {
    float v = ratio > 7.0f ? 7.0f : ratio;
    v = v < -7.0f ? -7.0f : v;
    return bits_of(v + ROUND) & 15;
}

INLINED float int4_value(uint32_t code) {
    return (float)((int32_t)(code ^ 8) - 8);
}

/* Codes of fp4 are a sign bit and three bits e: 0, or 2^(e - 7). Half a power of two added to a magnitude carries into the
 * exponent from the middle between it and the next on; 120 is the exponent bits of 2^-7, the middle between 0 and 2^-6. */
INLINED uint32_t fp4_code(float ratio) {
    uint32_t magnitude = magnitude_bits(ratio);
    int32_t e = (int32_t)((magnitude + 0x400000u) >> 23) - 120;
    uint32_t code = (uint32_t)(e < 1 ? 1 : e) | (bits_of(ratio) >> 28 & 8);
    return magnitude < 120u << 23 ? 0 : code;
}

INLINED float fp4_value(uint32_t code) {
    uint32_t e = code & 7;
    return float_of((e == 0 ? 0 : (e + 120) << 23) | (code & 8) << 28);
}

/* The scale of a group is its largest magnitude divided by `most_value`, what the largest code stands for. */
INLINED int64_t encode(const float *x, uint8_t *out, int64_t n, float most_value, uint32_t (*code)(float)) {
    for (int64_t chunk = 0; chunk < n; chunk++, out += CHUNK_BYTES) {
        for (int group = 0; group < NUM_GROUPS; group++, x += GROUP) {
            uint32_t most = largest_magnitude_bits(x, GROUP);
            if (most >= INFINITY_BITS)
                return chunk;
            float scale = float_of(most) / most_value;
            memcpy(out + 4 * group, &scale, sizeof scale);
            uint8_t *bytes = out + SCALE_BYTES + group * HALF;
            if (scale == 0.0f) {
                memset(bytes, 0, HALF);
                continue;
            }
            for (int j = 0; j < HALF; j++)
                bytes[j] = (uint8_t)(code(x[j] / scale) | code(x[HALF + j] / scale) << 4);
        }
    }
    return -1;
}

INLINED void decode_group(float scale, const uint8_t *bytes, float *out, float (*value)(uint32_t)) {
    if (!is_finite(scale)) {
        fill_nan(out, GROUP);
        return;
    }
    for (int j = 0; j < HALF; j++) {
        out[j] = value(bytes[j] & 15u) * scale;
        out[HALF + j] = value(bytes[j] >> 4) * scale;
    }
}

INLINED void decode(const uint8_t *packed, float *out, int64_t n, float (*value)(uint32_t)) {
    for (int64_t chunk = 0; chunk < n; chunk++, packed += CHUNK_BYTES)
        for (int group = 0; group < NUM_GROUPS; group++, out += GROUP)
            decode_group(load_float(packed + 4 * group), packed + SCALE_BYTES + group * HALF, out, value);
}

INLINED void add(const uint8_t *packed, float factor, float *total, int64_t n, float (*value)(uint32_t)) {
    float term[GROUP];
    for (int64_t chunk = 0; chunk < n; chunk++, packed += CHUNK_BYTES) {
        for (int group = 0; group < NUM_GROUPS; group++, total += GROUP) {
            decode_group(load_float(packed + 4 * group), packed + SCALE_BYTES + group * HALF, term, value);
            add_terms(total, factor, term, GROUP);
        }
    }
}

CLONES int64_t decentra_int4_encode(const float *x, uint8_t *out, int64_t n) {
    return encode(x, out, n, 7.0f, int4_code);
}

CLONES void decentra_int4_decode(const uint8_t *packed, float *out, int64_t n) {
    decode(packed, out, n, int4_value);
}

CLONES void decentra_int4_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    add(packed, factor, total, n, int4_value);
}

CLONES int64_t decentra_fp4_encode(const float *x, uint8_t *out, int64_t n) {
    return encode(x, out, n, 1.0f, fp4_code);
}

CLONES void decentra_fp4_decode(const uint8_t *packed, float *out, int64_t n) {
    decode(packed, out, n, fp4_value);
}

CLONES void decentra_fp4_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    add(packed, factor, total, n, fp4_value);
}
