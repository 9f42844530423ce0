/* Codes of 64 ascending indices below 4096, one set after another: what index_codes.py times. Each returns the bits written. */

#include <stdint.h>
#include <string.h>

#define K 64
#define BYTES 2048 /* room for one set in the worst code */

static void put(uint8_t *out, int64_t *at, uint32_t value, int bits) {
    for (int b = 0; b < bits; b++, ++*at)
        out[*at >> 3] |= (uint8_t)((value >> b & 1) << (*at & 7));
}

static uint32_t get(const uint8_t *in, int64_t *at, int bits) {
    uint64_t word;
    memcpy(&word, in + (*at >> 3), sizeof word);
    uint32_t value = (uint32_t)(word >> (*at & 7)) & ((1u << bits) - 1);
    *at += bits;
    return value;
}

static int unary(const uint8_t *in, int64_t *at) {
    int zeros = 0;
    uint64_t word;
    for (;;) {
        memcpy(&word, in + (*at >> 3), sizeof word);
        word >>= *at & 7;
        if (word) {
            int more = __builtin_ctzll(word);
            *at += more + 1;
            return zeros + more;
        }
        zeros += 64 - (*at & 7);
        *at += 64 - (*at & 7);
    }
}

/* Gaps by Golomb and Rice: quotient in unary, `low` bits of remainder. */
int64_t rice_encode(const uint16_t *index, uint8_t *out, int64_t sets, int low) {
    int64_t bits = 0;
    for (int64_t set = 0; set < sets; set++, index += K, out += BYTES) {
        memset(out, 0, BYTES);
        int64_t at = 0;
        for (int k = 0, next = 0; k < K; next = index[k++] + 1) {
            uint32_t gap = (uint32_t)(index[k] - next);
            at += gap >> low;
            put(out, &at, 1, 1);
            put(out, &at, gap, low);
        }
        bits += at;
    }
    return bits;
}

void rice_decode(const uint8_t *in, uint16_t *index, int64_t sets, int low) {
    for (int64_t set = 0; set < sets; set++, index += K, in += BYTES) {
        int64_t at = 0;
        for (int k = 0, next = 0; k < K; k++) {
            int gap = unary(in, &at) << low;
            index[k] = (uint16_t)(next + gap + (int)get(in, &at, low));
            next = index[k] + 1;
        }
    }
}

/* Elias and Fano: index / 2^low in unary differences, then all remainders of `low` bits. */
int64_t elias_fano_encode(const uint16_t *index, uint8_t *out, int64_t sets, int low) {
    int upper_bits = K + (4096 >> low);
    for (int64_t set = 0; set < sets; set++, index += K, out += BYTES) {
        memset(out, 0, BYTES);
        int64_t at = upper_bits;
        for (int k = 0; k < K; k++) {
            int place = (index[k] >> low) + k;
            out[place >> 3] |= (uint8_t)(1 << (place & 7));
            put(out, &at, index[k], low);
        }
    }
    return sets * (upper_bits + (int64_t)K * low);
}

void elias_fano_decode(const uint8_t *in, uint16_t *index, int64_t sets, int low) {
    int upper_bits = K + (4096 >> low);
    for (int64_t set = 0; set < sets; set++, index += K, in += BYTES) {
        int64_t at = upper_bits;
        int k = 0;
        for (int word = 0; 64 * word < upper_bits; word++) {
            uint64_t ones;
            memcpy(&ones, in + 8 * word, sizeof ones);
            if (upper_bits - 64 * word < 64)
                ones &= (1ull << (upper_bits - 64 * word)) - 1;
            for (; ones; ones &= ones - 1, k++)
                index[k] = (uint16_t)((64 * word + __builtin_ctzll(ones) - k) << low);
        }
        for (k = 0; k < K; k++)
            index[k] |= (uint16_t)get(in, &at, low);
    }
}
