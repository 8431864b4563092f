// Attention within sequences that lie one after another, forward and backward, float32.
//
// All products go through one register-blocked `multiply`. A tile of queries passes over blocks of keys with a running
// maximum and sum (Milakov & Gimelshein 2018, arXiv:1805.02867), so no row of scores is longer than a block. K is laid
// out by blocks as [D][KEYS] and V padded to whole vectors, once per sequence and head.
//
// A work item is one key head of one sequence: it owns its rows of dk and dv, so sums have one order whatever the
// number of threads is, and a sequence gives the same bits in every batch.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../vector.h"

namespace {

constexpr int64_t QUERIES = 24, KEYS = 128;  // scores of a tile: 12 KiB, beside a panel of K in the first cache
constexpr float NONE = -std::numeric_limits<float>::infinity();

int64_t whole(int64_t size, int64_t unit = LANES) { return (size + unit - 1) / unit * unit; }

// ---- products ------------------------------------------------------------------------------------------------------

template <int ROWS, int VECTORS>
void tile(const float* a, int64_t a_row, int64_t a_depth, const float* b, int64_t b_pitch, int64_t depth, float* c,
          int64_t c_pitch, bool add) {
    vf sums[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int x = 0; x < VECTORS; x++) sums[r][x] = add ? vf(*(vf_any*)(c + r * c_pitch + x * LANES)) : vf{};
    for (int64_t d = 0; d < depth; d++) {
        vf right[VECTORS];
#pragma GCC unroll 2
        for (int x = 0; x < VECTORS; x++) right[x] = *(const vf_any*)(b + d * b_pitch + x * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int x = 0; x < VECTORS; x++) sums[r][x] += a[r * a_row + d * a_depth] * right[x];
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int x = 0; x < VECTORS; x++) *(vf_any*)(c + r * c_pitch + x * LANES) = sums[r][x];
}

template <int VECTORS>
void column(int64_t rows, const float* a, int64_t a_row, int64_t a_depth, const float* b, int64_t b_pitch,
            int64_t depth, float* c, int64_t c_pitch, bool add) {
    for (; rows >= 6; rows -= 6, a += 6 * a_row, c += 6 * c_pitch)
        tile<6, VECTORS>(a, a_row, a_depth, b, b_pitch, depth, c, c_pitch, add);
    for (; rows >= 2; rows -= 2, a += 2 * a_row, c += 2 * c_pitch)
        tile<2, VECTORS>(a, a_row, a_depth, b, b_pitch, depth, c, c_pitch, add);
    if (rows) tile<1, VECTORS>(a, a_row, a_depth, b, b_pitch, depth, c, c_pitch, add);
}

// c[r][x] (+)= sum over d of a[r * a_row + d * a_depth] b[d][x]; columns a multiple of LANES.
void multiply(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row, int64_t a_depth,
              const float* b, int64_t b_pitch, float* c, int64_t c_pitch, bool add) {
    int64_t x = 0;
    for (; x + 2 * LANES <= columns; x += 2 * LANES)
        column<2>(rows, a, a_row, a_depth, b + x, b_pitch, depth, c + x, c_pitch, add);
    if (x < columns) column<1>(rows, a, a_row, a_depth, b + x, b_pitch, depth, c + x, c_pitch, add);
}

// ---- layouts -------------------------------------------------------------------------------------------------------

// Rows of x, each filled up with zeros to `pitch` numbers.
void copy_rows(const float* x, int64_t stride, int64_t rows, int64_t size, float* to, int64_t pitch) {
    for (int64_t i = 0; i < rows; i++) {
        std::memcpy(to + i * pitch, x + i * stride, size * 4);
        std::memset(to + i * pitch + size, 0, (pitch - size) * 4);
    }
}

// Blocks of KEYS rows, each transposed to [size][KEYS]; what a block has too few of is zero.
void copy_blocks(const float* x, int64_t stride, int64_t rows, int64_t size, float* to) {
    for (int64_t start = 0; start < rows; start += KEYS, to += size * KEYS) {
        const int64_t count = std::min(KEYS, rows - start), width = whole(count);
        for (int64_t d = 0; d < size; d++)
            for (int64_t j = count; j < width; j++) to[d * KEYS + j] = 0;
        for (int64_t j = 0; j < count; j++)
            for (int64_t d = 0; d < size; d++) to[d * KEYS + j] = x[(start + j) * stride + d];
    }
}

struct Shape {
    int64_t sequences, heads, groups, size, value_size, is_causal, longest;
};

struct Strides {
    int64_t q[2], k[2], v[2];
};

struct Block {
    int64_t start, count, width;  // first key, keys, keys rounded up to whole vectors
};

Block block_at(int64_t start, int64_t reach) {
    const int64_t count = std::min(KEYS, reach - start);
    return {start, count, whole(count)};
}

// Scores beyond the block's keys, and those after the query when causal, become -inf.
void hide(float* scores, const Block& block, int64_t rows, int64_t first_query, bool is_causal) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t visible = block.count;
        if (is_causal) visible = std::max<int64_t>(0, std::min(visible, first_query + r + 1 - block.start));
        std::fill(scores + r * KEYS + visible, scores + r * KEYS + block.width, NONE);
    }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void packed_forward(
    const float* q, const float* k, const float* v, const int64_t* cu_seqlens, float* out, float* lse,
    const int64_t* shape, const int64_t* strides, float scale, int64_t* counter) {
    Shape sizes;
    Strides steps;
    std::memcpy(&sizes, shape, sizeof sizes);
    std::memcpy(&steps, strides, sizeof steps);
    const int64_t D = sizes.size, E = sizes.value_size, pitch = whole(E), group = sizes.heads / sizes.groups;
    Room<float> keys(D * whole(sizes.longest, KEYS)), values(sizes.longest * pitch), scores(QUERIES * KEYS);
    Room<float> sums(QUERIES * pitch);
    float most[QUERIES], total[QUERIES];
    for (;;) {
        const int64_t item = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
        if (item >= sizes.sequences * sizes.groups) return;
        const int64_t start = cu_seqlens[item / sizes.groups], key_head = item % sizes.groups;
        const int64_t length = cu_seqlens[item / sizes.groups + 1] - start;
        copy_blocks(k + start * steps.k[0] + key_head * steps.k[1], steps.k[0], length, D, keys.at);
        copy_rows(v + start * steps.v[0] + key_head * steps.v[1], steps.v[0], length, E, values.at, pitch);
        for (int64_t head = key_head * group; head < (key_head + 1) * group; head++)
            for (int64_t i = 0; i < length; i += QUERIES) {
                const int64_t rows = std::min(QUERIES, length - i), reach = sizes.is_causal ? i + rows : length;
                const float* query = q + (start + i) * steps.q[0] + head * steps.q[1];
                std::fill(most, most + rows, NONE);
                std::fill(total, total + rows, 0.0f);
                for (int64_t j = 0; j < reach; j += KEYS) {
                    const Block block = block_at(j, reach);
                    multiply(rows, block.width, D, query, steps.q[0], 1, keys.at + j * D, KEYS, scores.at, KEYS, false);
                    hide(scores.at, block, rows, i, sizes.is_causal);
                    for (int64_t r = 0; r < rows; r++) {
                        float* row = scores.at + r * KEYS;
                        vf top = vf{} + NONE;
                        for (int64_t x = 0; x < block.width; x += LANES) {
                            // -inf times a negative scale must stay hidden
                            const vf raw = *(vf*)(row + x), scaled = raw == NONE ? raw : raw * scale;
                            *(vf*)(row + x) = scaled;
                            top = scaled > top ? scaled : top;
                        }
                        const float before = most[r], now = std::max(before, greatest(top));
                        vf part{};
                        for (int64_t x = 0; x < block.width; x += LANES) {
                            const vf p = exponential(*(vf*)(row + x) - now);
                            *(vf*)(row + x) = p;
                            part += p;
                        }
                        const float shrink = before == NONE ? 0 : std::exp(before - now);
                        most[r] = now;
                        total[r] = total[r] * shrink + sum(part);
                        if (j && shrink != 1)
                            for (int64_t x = 0; x < pitch; x += LANES) *(vf*)(sums.at + r * pitch + x) *= shrink;
                    }
                    multiply(rows, pitch, block.count, scores.at, KEYS, 1, values.at + j * pitch, pitch, sums.at, pitch,
                             j > 0);
                }
                for (int64_t r = 0; r < rows; r++) {
                    const int64_t row = (start + i + r) * sizes.heads + head;
                    const float inverse = 1 / total[r];
                    for (int64_t e = 0; e < E; e++) out[row * E + e] = sums.at[r * pitch + e] * inverse;
                    lse[row] = most[r] + std::log(total[r]);
                }
            }
    }
}

// grad_out, out: contiguous [T, H, E]; lse, grad_lse (may be null): [T, H]; dq, dk, dv: contiguous.
extern "C" __attribute__((visibility("default"))) void packed_backward(
    const float* grad_out, const float* grad_lse, const float* q, const float* k, const float* v,
    const int64_t* cu_seqlens, const float* out, const float* lse, float* dq, float* dk, float* dv,
    const int64_t* shape, const int64_t* strides, float scale, int64_t* counter) {
    Shape sizes;
    Strides steps;
    std::memcpy(&sizes, shape, sizeof sizes);
    std::memcpy(&steps, strides, sizeof steps);
    const int64_t D = sizes.size, E = sizes.value_size, group = sizes.heads / sizes.groups;
    const int64_t size = whole(D), value_size = whole(E), room = whole(sizes.longest, KEYS);
    Room<float> k_blocks(D * room), v_blocks(E * room), k_rows(room * size), dk_rows(room * size), dv_rows(room * value_size);
    Room<float> query(QUERIES * size), grad(QUERIES * value_size), dq_rows(QUERIES * size);
    Room<float> weights(QUERIES * KEYS), slopes(QUERIES * KEYS);
    for (;;) {
        const int64_t item = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
        if (item >= sizes.sequences * sizes.groups) return;
        const int64_t start = cu_seqlens[item / sizes.groups], key_head = item % sizes.groups;
        const int64_t length = cu_seqlens[item / sizes.groups + 1] - start;
        const float* key = k + start * steps.k[0] + key_head * steps.k[1];
        copy_blocks(key, steps.k[0], length, D, k_blocks.at);
        copy_rows(key, steps.k[0], length, D, k_rows.at, size);
        copy_blocks(v + start * steps.v[0] + key_head * steps.v[1], steps.v[0], length, E, v_blocks.at);
        std::memset(dk_rows.at, 0, length * size * 4);
        std::memset(dv_rows.at, 0, length * value_size * 4);
        for (int64_t head = key_head * group; head < (key_head + 1) * group; head++)
            for (int64_t i = 0; i < length; i += QUERIES) {
                const int64_t rows = std::min(QUERIES, length - i), reach = sizes.is_causal ? i + rows : length;
                const int64_t first = (start + i) * sizes.heads + head;
                copy_rows(q + (start + i) * steps.q[0] + head * steps.q[1], steps.q[0], rows, D, query.at, size);
                copy_rows(grad_out + first * E, sizes.heads * E, rows, E, grad.at, value_size);
                float mean[QUERIES];  // sum of p dp, less the gradient of lse: what ds subtracts
                for (int64_t r = 0; r < rows; r++) {
                    const int64_t row = first + r * sizes.heads;
                    float total = 0;
                    for (int64_t e = 0; e < E; e++) total += grad_out[row * E + e] * out[row * E + e];
                    mean[r] = total - (grad_lse ? grad_lse[row] : 0);
                }
                for (int64_t j = 0; j < reach; j += KEYS) {
                    const Block block = block_at(j, reach);
                    multiply(rows, block.width, D, query.at, size, 1, k_blocks.at + j * D, KEYS, weights.at, KEYS, false);
                    hide(weights.at, block, rows, i, sizes.is_causal);
                    multiply(rows, block.width, E, grad.at, value_size, 1, v_blocks.at + j * E, KEYS, slopes.at, KEYS,
                             false);
                    for (int64_t r = 0; r < rows; r++) {
                        const float sum_exp = lse[first + r * sizes.heads];
                        for (int64_t x = 0; x < block.width; x += LANES) {
                            vf &p = *(vf*)(weights.at + r * KEYS + x), &ds = *(vf*)(slopes.at + r * KEYS + x);
                            p = p == NONE ? vf{} : exponential(p * scale - sum_exp);
                            ds = p * (ds - mean[r]) * scale;
                        }
                    }
                    multiply(rows, size, block.count, slopes.at, KEYS, 1, k_rows.at + j * size, size, dq_rows.at, size,
                             j > 0);
                    multiply(block.count, size, rows, slopes.at, 1, KEYS, query.at, size, dk_rows.at + j * size, size,
                             true);
                    multiply(block.count, value_size, rows, weights.at, 1, KEYS, grad.at, value_size,
                             dv_rows.at + j * value_size, value_size, true);
                }
                for (int64_t r = 0; r < rows; r++)
                    std::memcpy(dq + (first + r * sizes.heads) * D, dq_rows.at + r * size, D * 4);
            }
        for (int64_t j = 0; j < length; j++) {
            const int64_t row = (start + j) * sizes.groups + key_head;
            std::memcpy(dk + row * D, dk_rows.at + j * size, D * 4);
            std::memcpy(dv + row * E, dv_rows.at + j * value_size, E * 4);
        }
    }
}
