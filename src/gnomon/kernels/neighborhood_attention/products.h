// The products of a tile with rows of keys: scores, weighted sums, and what a key gets from the tile's queries; and the
// way between rows of one query each and columns of LANES queries.
#pragma once

#include "grid.h"
#include "storage.h"
#include "vectors.h"

namespace {

// Each is entered once per tile; inlined they take 15 s to compile.
#define NOINLINE __attribute__((noinline))
#define KEEP_IN_REGISTER(pointer) asm("" : "+r"(pointer))

constexpr int BLOCK = 128;  // keys between two updates of the running maximum; their scores stay in L1

// sum[n][i] += x[n] * y. Used twice, `y` becomes a vector first, so that it is loaded once.
template <int N, int COUNT>
inline void multiply_add(V (&sum)[N][COUNT], int i, const V (&x)[N], float y) {
    if (N == 1) {
        sum[0][i] += x[0] * y;
        return;
    }
    V all = splat(y);
#if defined(__AVX512F__)
    asm("" : "+v"(all));
#endif
    for (int n = 0; n < N; ++n) sum[n][i] += x[n] * all;
}

// Rows that are needed soon. Rows of other heads lie between two tokens of one head, so no hardware prefetcher follows;
// asked for all at once they would fill the line buffers and stall, so they are asked for a few at a time.
struct Prefetches {
    static constexpr int64_t MOST = 512;
    const char* row[MOST];
    int64_t bytes, count, next, each;

    void add(const char* at) {
        if (count < MOST) row[count++] = at;
    }

    void begin(int64_t turns) {
        next = 0;
        each = (count + turns - 1) / turns;
    }

    void some() {
        for (const int64_t end = smaller(count, next + each); next < end; ++next) prefetch_row(row[next], bytes);
    }
};

// finish(j, sums) for every KEYS rows from j on: sums[n][i] = columns[n]^T rows[j + i].
template <int N, typename Finish>
inline void dots(
    const float* columns, const float* rows, const int64_t* offset, int64_t count, int64_t padded, Finish finish) {
    const int64_t part = padded * LANES;
    for (int64_t j = 0; j < count; j += KEYS) {
        const float* at[KEYS];
        V sum[N][KEYS];
        for (int i = 0; i < KEYS; ++i) {
            at[i] = rows + offset[j + i];
            KEEP_IN_REGISTER(at[i]);  // else GCC adds the pointers as a vector, and takes it apart
            for (int n = 0; n < N; ++n) sum[n][i] = V{};
        }
        int64_t d = 0;
        do {  // at least once: else GCC keeps the sums in memory
#pragma GCC unroll 16
            for (int e = 0; e < STEP; ++e) {
                V x[N];
                for (int n = 0; n < N; ++n) x[n] = load(columns + n * part + (d + e) * LANES);
#pragma GCC unroll 8
                for (int i = 0; i < KEYS; ++i) multiply_add(sum, i, x, at[i][e]);
            }
            for (int i = 0; i < KEYS; ++i) at[i] += STEP;
        } while ((d += STEP) < padded);
        finish(j, sum);
    }
}

// columns[n][d] = columns[n][d] * factor[n] + sum over keys of weight[n][key] * rows[key][d]; COLUMNS of d at a time.
template <int N, int COLUMNS>
NOINLINE void accumulate(
    const float* weight, int64_t count, const float* rows, const int64_t* offset, int64_t padded, const V* factor,
    float* columns, Prefetches& ahead) {
    const int64_t part = padded * LANES;
    for (int64_t d = 0; d < padded; d += COLUMNS) {
        V sum[N][COLUMNS];
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 16
            for (int e = 0; e < COLUMNS; ++e) sum[n][e] = load(columns + n * part + (d + e) * LANES) * factor[n];
        for (int64_t j = 0; j < count; j += KEYS) {
            ahead.some();
#pragma GCC unroll 2
            for (int i = 0; i < KEYS; ++i) {
                V p[N];
                for (int n = 0; n < N; ++n) p[n] = load(weight + (n * BLOCK + j + i) * LANES);
                const float* row = rows + offset[j + i] + d;
                __builtin_prefetch(rows + offset[j + i + KEYS / 2] + d);
                KEEP_IN_REGISTER(row);
#pragma GCC unroll 16
                for (int e = 0; e < COLUMNS; ++e) multiply_add(sum, e, p, row[e]);
            }
        }
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 16
            for (int e = 0; e < COLUMNS; ++e) store(columns + n * part + (d + e) * LANES, sum[n][e]);
    }
}

// target[key][d] += sum over lanes of weight[key][lane] * rows[lane][d], for `WIDTH` vectors of d and `MANY` keys.
template <int MANY, int WIDTH>
inline void scatter_block(
    const float* weight, int64_t count, const float* rows, int64_t padded, float* target, const int64_t* offset) {
    V sum[MANY][WIDTH] = {};
    for (int j = 0; j < MANY; ++j)
        for (int c = 0; c < WIDTH; ++c) __builtin_prefetch(target + offset[j] + c * LANES, 1);
    for (int lane = 0; lane < LANES; ++lane) {
        V x[WIDTH];
        for (int c = 0; c < WIDTH; ++c) x[c] = load(rows + lane * padded + c * LANES);
#pragma GCC unroll 8
        for (int j = 0; j < MANY; ++j)
            for (int c = 0; c < WIDTH; ++c) sum[j][c] += x[c] * weight[j * LANES + lane];
    }
    for (int j = 0; j < MANY; ++j) {
        if (j >= count) break;  // padding repeats a key and must not store over it
        for (int c = 0; c < WIDTH; ++c) {
            float* at = target + offset[j] + c * LANES;
            store(at, load(at) + sum[j][c]);
        }
    }
}

NOINLINE void scatter(
    const float* weight, int64_t count, const float* rows, int64_t padded, float* target, const int64_t* offset) {
    constexpr int MANY = LANES == 16 ? 8 : 4;
    for (int64_t j = 0; j < count; j += MANY) {
        int64_t d = 0;
        for (; d + 2 * LANES <= padded; d += 2 * LANES)
            scatter_block<MANY, 2>(weight + j * LANES, count - j, rows + d, padded, target + d, offset + j);
        for (; d < padded; d += LANES)
            scatter_block<MANY, 1>(weight + j * LANES, count - j, rows + d, padded, target + d, offset + j);
    }
}

NOINLINE void columns_of(const float* rows, int64_t padded, float factor, float* columns) {
    for (int64_t d = 0; d < padded; d += LANES) {
        V block[LANES];
        for (int i = 0; i < LANES; ++i) block[i] = load(rows + i * padded + d) * factor;
        transpose(block);
        for (int i = 0; i < LANES; ++i) store(columns + (d + i) * LANES, block[i]);
    }
}

NOINLINE void rows_of(const float* columns, int64_t padded, V factor, float* rows) {
    for (int64_t d = 0; d < padded; d += LANES) {
        V block[LANES];
        for (int i = 0; i < LANES; ++i) block[i] = load(columns + (d + i) * LANES) * factor;
        transpose(block);
        for (int i = 0; i < LANES; ++i) store(rows + i * padded + d, block[i]);
    }
}

}  // namespace
