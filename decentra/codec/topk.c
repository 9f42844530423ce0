/* topk: the 64 largest of a chunk; two fp32 levels, Elias-Fano coded indices, a level bit and a sign bit for each. Here fp32 values
 * are handled as bits, which without their sign are ordered as the values are; the levels are computed in f64. */

#include "kernels.h"

#define K 64
#define TOPK_CHUNK_BYTES 88
#define COLUMNS 256
#define PAD 32
#define TOP (1ull << 63)

/* A chunk as it travels: levels 0, upper bits 8, level bits 24, sign bits 32, lower bits 40. */
typedef struct {
    float level[2];
    uint64_t upper[2], is_high, is_negative;
    uint8_t lower[48];
} Packed;

/* How many of n are at least `least`. */
INLINED int count_from(const uint32_t *bits, int n, uint32_t least) {
    int count = 0;
    for (int i = 0; i < n; i++)
        count += bits[i] >= least;
    return count;
}

/* The largest value, all bits below `last` being zero, that at least K of n values reach. */
INLINED uint32_t kth_largest(const uint32_t *bits, int n, uint32_t last) {
    uint32_t found = 0;
    for (uint32_t bit = 1u << 30; bit >= last; bit >>= 1)
        if (count_from(bits, n, found | bit) >= K)
            found |= bit;
    return found;
}

/* x: a chunk; magnitude: becomes its bits without signs. index: those of the K largest, ascending; of equals at the border the
 * first. Returns 0 where the chunk holds NaN or infinity. */
INLINED int select_largest(const float *x, uint32_t *magnitude, uint16_t *index) {
    /* K of the columns' maxima reach their K-th largest: so do K elements at least, and seldom many more. */
    uint32_t most[COLUMNS] = {0};
    for (int row = 0; row < CHUNK; row += COLUMNS) {
        for (int i = 0; i < COLUMNS; i++) {
            magnitude[row + i] = magnitude_bits(x[row + i]);
            most[i] = magnitude[row + i] > most[i] ? magnitude[row + i] : most[i];
        }
    }
    if (count_from(most, COLUMNS, INFINITY_BITS))
        return 0;
    uint32_t least = kth_largest(most, COLUMNS, 1u << 15);

    uint32_t half[CHUNK / 32];
    for (int word = 0; word < CHUNK / 32; word++) {
        half[word] = 0;
        __builtin_prefetch(x + CHUNK + 32 * word); /* of the next chunk, while this one is worked on */
        __builtin_prefetch(x + CHUNK + 32 * word + 16);
        for (int i = 0; i < 32; i++)
            half[word] |= (uint32_t)(magnitude[32 * word + i] >= least) << i;
    }
    uint16_t at[CHUNK + 2];
    uint32_t candidate[CHUNK + PAD];
    int n = 0;
    for (int word = 0; word < CHUNK / 64; word++) {
        uint64_t found = half[2 * word] | (uint64_t)half[2 * word + 1] << 32, second = found & (found - 1);
        int count = __builtin_popcountll(found);
        /* Two without a branch, which would be foretold badly: few words have more. */
        at[n] = (uint16_t)(64 * word + __builtin_ctzll(found | TOP));
        at[n + 1] = (uint16_t)(64 * word + __builtin_ctzll(second | TOP));
        found = second & (second - 1);
        for (int i = 2; i < count; i++, found &= found - 1)
            at[n + i] = (uint16_t)(64 * word + __builtin_ctzll(found));
        n += count;
    }
    for (int i = 0; i < n; i++)
        candidate[i] = magnitude[at[i]];
    int padded = (n + PAD - 1) / PAD * PAD;
    for (int i = n; i < padded; i++)
        candidate[i] = 0;
    uint32_t border = kth_largest(candidate, padded, 1);
    int equals = K - count_from(candidate, padded, border + 1), kept = 0;
    for (int i = 0; i < n && kept < K; i++) {
        int equal = candidate[i] == border;
        index[kept] = at[i];
        kept += (candidate[i] > border) | (equal & (equals > 0));
        equals -= equal;
    }
    return 1;
}

/* magnitude: of the K values. Sets the two levels that lose the least square error; returns from where a magnitude is high. */
INLINED uint32_t choose_levels(const uint32_t *magnitude, float *level) {
    float sorted[K];
    for (int i = 0; i < K; i++) {
        int rank = 0;
        for (int j = 0; j < K; j++)
            rank += magnitude[j] < magnitude[i] + (j < i);
        sorted[rank] = float_of(magnitude[i]);
    }
    double low[K], gain[K];
    low[0] = 0.0;
    for (int i = 1; i < K; i++)
        low[i] = low[i - 1] + (double)sorted[i - 1];
    double sum = low[K - 1] + (double)sorted[K - 1];
    for (int i = 1; i < K; i++)
        gain[i] = low[i] * low[i] / (double)i + (sum - low[i]) * (sum - low[i]) / (double)(K - i);
    int best = 1;
    for (int i = 2; i < K; i++)
        best = gain[i] > gain[best] ? i : best;
    level[0] = (float)(low[best] / (double)best);
    level[1] = (float)((sum - low[best]) / (double)(K - best));
    return bits_of(sorted[best]);
}

/* x: n chunks of fp32; out: n * 88 bytes. Returns -1, or the first chunk that holds NaN or infinity. */
CLONES int64_t decentra_topk_encode(const float *x, uint8_t *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, x += CHUNK, out += TOPK_CHUNK_BYTES) {
        uint32_t all[CHUNK], magnitude[K];
        uint16_t index[K];
        if (!select_largest(x, all, index))
            return chunk;
        for (int i = 0; i < K; i++)
            magnitude[i] = all[index[i]];
        Packed p = {0};
        uint32_t from = choose_levels(magnitude, p.level);
        for (int i = 0; i < K; i++) {
            int upper = (index[i] >> 6) + i;
            p.upper[upper >> 6] |= 1ull << (upper & 63);
            p.is_high |= (uint64_t)(magnitude[i] >= from) << i;
            p.is_negative |= (uint64_t)(x[index[i]] < 0.0f) << i;
        }
        for (int i = 0; i < K; i += 4) {
            uint32_t four = (index[i] & 63u) | (index[i + 1] & 63u) << 6 | (index[i + 2] & 63u) << 12 | (index[i + 3] & 63u) << 18;
            memcpy(p.lower + i / 4 * 3, &four, 3);
        }
        memcpy(out, &p, sizeof p);
    }
    return -1;
}

/* index: where the K values of a chunk go, ascending; value: their fp32 bits. Returns 0 where no encoder can have written it. */
INLINED int open_chunk(const uint8_t *packed, uint16_t *index, uint32_t *value) {
    Packed p;
    memcpy(&p, packed, sizeof p);
    uint32_t level[2] = {bits_of(p.level[0]), bits_of(p.level[1])};
    if (__builtin_popcountll(p.upper[0]) + __builtin_popcountll(p.upper[1]) != K || p.upper[1] >> 63)
        return 0;
    if (level[0] >= INFINITY_BITS || level[1] >= INFINITY_BITS)
        return 0;
    for (int i = 0; i < K; i += 4) {
        uint32_t four = 0;
        memcpy(&four, p.lower + i / 4 * 3, 3);
        for (int j = 0; j < 4; j++)
            index[i + j] = four >> 6 * j & 63u;
    }
    int i = 0;
    for (int word = 0; word < 2; word++)
        for (uint64_t ones = p.upper[word]; ones; ones &= ones - 1, i++)
            index[i] |= (uint16_t)((64 * word + __builtin_ctzll(ones) - i) << 6);
    int unordered = 0;
    for (i = 1; i < K; i++)
        unordered |= index[i] <= index[i - 1];
    for (i = 0; i < K; i++)
        value[i] = level[p.is_high >> i & 1] | (uint32_t)(p.is_negative >> i & 1) << 31;
    return !unordered;
}

/* packed: n * 88 bytes; out: n chunks of fp32. */
CLONES void decentra_topk_decode(const uint8_t *packed, float *out, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, packed += TOPK_CHUNK_BYTES, out += CHUNK) {
        uint16_t index[K];
        uint32_t value[K];
        if (!open_chunk(packed, index, value)) {
            fill_nan(out, CHUNK);
            continue;
        }
        memset(out, 0, CHUNK * sizeof *out);
        for (int i = 0; i < K; i++)
            out[index[i]] = float_of(value[i]);
    }
}

/* packed: n * 88 bytes; total: n chunks of fp32; factor * value is added where a value was sent. */
CLONES void decentra_topk_add(const uint8_t *packed, float factor, float *total, int64_t n) {
    for (int64_t chunk = 0; chunk < n; chunk++, packed += TOPK_CHUNK_BYTES, total += CHUNK) {
        uint16_t index[K];
        uint32_t value[K];
        if (!open_chunk(packed, index, value)) {
            fill_nan(total, CHUNK);
            continue;
        }
        for (int i = 0; i < K; i++)
            total[index[i]] = total[index[i]] + factor * float_of(value[i]);
    }
}
