// Quantized top-k attention: integer scores of all keys, the k best of each query, exact softmax attention over them.
//
// Numbers of at most 4 bits (and sums that fit) take the short way: K is laid out as [D/4][L][4] unsigned bytes
// (value + 8), one instruction multiplies four of them with four of the query for every key of a vector, sums stay in
// 16 bits. The offset adds 8 sum(q) to each score of a query and is taken off at the end. More bits: 16-bit numbers,
// sums of 32 or 64 bits. The k-th score is found by bisection over the range of the row with counts by vector
// comparison, so the choice costs the same for every k; what falls with k is the exact part.
//
// A work item is one key head of one sequence: it owns its rows of dk and dv, so sums have one order.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../vector.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr float NONE = -std::numeric_limits<float>::infinity();
constexpr int64_t AHEAD = 4;  // keys whose rows are asked for before their turn: they lie anywhere

void prefetch(const float* row, int64_t size) {
    for (int64_t i = 0; i < size; i += 16) __builtin_prefetch(row + i);
}

float dot(const float* a, const float* b, int64_t size) {
    vf first{}, second{};
    int64_t i = 0;
    for (; i + 2 * LANES <= size; i += 2 * LANES) {
        first += *(const vf_any*)(a + i) * *(const vf_any*)(b + i);
        second += *(const vf_any*)(a + i + LANES) * *(const vf_any*)(b + i + LANES);
    }
    for (; i + LANES <= size; i += LANES) first += *(const vf_any*)(a + i) * *(const vf_any*)(b + i);
    float total = sum(first + second);
    for (; i < size; i++) total += a[i] * b[i];
    return total;
}

void add_scaled(float* to, const float* from, float factor, int64_t size) {
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) *(vf_any*)(to + i) += *(const vf_any*)(from + i) * factor;
    for (; i < size; i++) to[i] += from[i] * factor;
}

struct Shape {
    int64_t sequences, heads, groups, queries, keys, size, value_size, columns, bits, is_causal;
};

struct Strides {
    int64_t q[3], k[3], v[3], mask[4];
};

// Where a sequence lies: the batch entry, its first token and how many tokens.
struct Span {
    int64_t batch, start, queries, keys;
};

Span span_of(const Shape& shape, const int64_t* cu_seqlens, int64_t sequence) {
    if (!cu_seqlens) return {sequence, 0, shape.queries, shape.keys};
    const int64_t start = cu_seqlens[sequence], length = cu_seqlens[sequence + 1] - start;
    return {0, start, length, length};
}

float factor_of(const float* x, int64_t stride, int64_t rows, int64_t size, const uint8_t* counted, int64_t largest) {
    float peak = 0;
    for (int64_t r = 0; r < rows; r++) {
        if (counted && !counted[r]) continue;
        const float* row = x + r * stride;
        float most = 0;
        for (int64_t d = 0; d < size; d++) most = std::max(most, std::fabs(row[d]));
        peak = std::max(peak, most);
    }
    const float tiny = std::numeric_limits<float>::min();
    return peak > float(largest) * tiny ? float(largest) / peak : 0.0f;
}

int quantized(float x, float factor, int64_t bits, int64_t largest) {
    if (bits == 1) return (x > 0) - (x < 0);
    const float rounded = std::nearbyintf(x * factor);
    return int(std::max(-float(largest), std::min(float(largest), rounded)));
}

// ---- scores of a tile of queries with all keys ---------------------------------------------------------------------

constexpr int TILE = 4;  // queries that share one pass over K
constexpr int OFFSET = 8;
constexpr int64_t MOST_SHORT = 32767 / (7 * (7 + OFFSET));  // D for which 16-bit sums hold, offset included

#if defined(__AVX512BW__)
typedef __m512i vb;
inline vb load(const void* p) { return _mm512_loadu_si512(p); }
inline vb four(int32_t x) { return _mm512_set1_epi32(x); }
inline vb multiply_add(vb sums, vb k, vb q) { return _mm512_add_epi16(sums, _mm512_maddubs_epi16(k, q)); }
inline vb pairs(vb sums) { return _mm512_madd_epi16(sums, _mm512_set1_epi16(1)); }
inline void store(int16_t* to, vb sums, int32_t offset) {
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16(_mm512_sub_epi32(sums, _mm512_set1_epi32(offset))));
}
constexpr int KEYS = 16, WIDE = 4;
#elif defined(__AVX2__)
typedef __m256i vb;
inline vb load(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline vb four(int32_t x) { return _mm256_set1_epi32(x); }
inline vb multiply_add(vb sums, vb k, vb q) { return _mm256_add_epi16(sums, _mm256_maddubs_epi16(k, q)); }
inline vb pairs(vb sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
inline void store(int16_t* to, vb sums, int32_t offset) {
    const __m256i scores = _mm256_sub_epi32(sums, _mm256_set1_epi32(offset));
    _mm_storeu_si128((__m128i*)to, _mm_packs_epi32(_mm256_castsi256_si128(scores), _mm256_extracti128_si256(scores, 1)));
}
constexpr int KEYS = 8, WIDE = 2;
#else
typedef int32_t vb __attribute__((vector_size(16)));
typedef int16_t shorts __attribute__((vector_size(16)));
typedef uint16_t words __attribute__((vector_size(16)));
inline vb load(const void* p) {
    vb x;
    std::memcpy(&x, p, 16);
    return x;
}
inline vb four(int32_t x) { return vb{x, x, x, x}; }
inline vb multiply_add(vb sums, vb k, vb q) {  // 16-bit lanes: even and odd bytes, as maddubs does
    const shorts a = (shorts)k, b = (shorts)q, low = a & (int16_t)0xff;
    const shorts high = (shorts)((words)k >> (uint16_t)8);
    const shorts q_low = (b << (int16_t)8) >> (int16_t)8, q_high = b >> (int16_t)8;
    return (vb)((shorts)sums + low * q_low + high * q_high);
}
inline vb pairs(vb sums) { return ((sums << 16) >> 16) + (sums >> 16); }
inline void store(int16_t* to, vb sums, int32_t offset) {
    for (int i = 0; i < 4; i++) to[i] = int16_t(sums[i] - offset);
}
constexpr int KEYS = 4, WIDE = 2;
#endif
constexpr int64_t SPAN = KEYS * WIDE;

int64_t padded(int64_t keys) { return (keys + SPAN - 1) / SPAN * SPAN; }

// At most 4 bits.
struct Short {
    typedef int16_t Score;
    int64_t quads, room;
    Room<uint8_t> k;
    Room<int8_t> q;
    int32_t offset[TILE];

    Short(int64_t size, int64_t keys)
        : quads((size + 3) / 4), room(padded(keys)), k(quads * room * 4), q(TILE * quads * 4) {}

    void keys(const float* x, int64_t stride, int64_t count, int64_t size, float factor, int64_t bits, int64_t largest) {
        room = padded(count);
        std::memset(k.at, OFFSET, quads * room * 4);
        for (int64_t j = 0; j < count; j++)
            for (int64_t d = 0; d < size; d++)
                k.at[(d / 4 * room + j) * 4 + d % 4] = uint8_t(quantized(x[j * stride + d], factor, bits, largest) + OFFSET);
    }

    void query(int row, const float* x, int64_t size, float factor, int64_t bits, int64_t largest) {
        int8_t* to = q.at + row * quads * 4;
        std::memset(to, 0, quads * 4);
        int32_t total = 0;
        for (int64_t d = 0; d < size; d++) total += to[d] = int8_t(quantized(x[d], factor, bits, largest));
        offset[row] = OFFSET * total;
    }

    void scores(int rows, int64_t count, int64_t, int16_t* to, int64_t pitch) {
        for (int row = rows; row < TILE; row++) query(row, nullptr, 0, 0, 0, 0);
        for (int64_t j = 0; j < count; j += SPAN) {
            vb sums[TILE][WIDE];
#pragma GCC unroll 4
            for (int r = 0; r < TILE; r++)
#pragma GCC unroll 4
                for (int w = 0; w < WIDE; w++) sums[r][w] = vb{};
            for (int64_t c = 0; c < quads; c++) {
                vb key[WIDE];
#pragma GCC unroll 4
                for (int w = 0; w < WIDE; w++) key[w] = load(k.at + (c * room + j + w * KEYS) * 4);
#pragma GCC unroll 4
                for (int r = 0; r < TILE; r++) {
                    int32_t one;
                    std::memcpy(&one, q.at + (r * quads + c) * 4, 4);
                    const vb query = four(one);
#pragma GCC unroll 4
                    for (int w = 0; w < WIDE; w++) sums[r][w] = multiply_add(sums[r][w], key[w], query);
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < TILE; r++) {  // `to` has room for a whole tile
#pragma GCC unroll 4
                for (int w = 0; w < WIDE; w++) store(to + r * pitch + j + w * KEYS, pairs(sums[r][w]), offset[r]);
            }
        }
    }
};

// More bits: Sum holds D (2^(b-1) - 1)^2.
template <typename Sum> struct Long {
    typedef Sum Score;
    int64_t width;
    Room<int16_t> k, q;

    Long(int64_t size, int64_t keys) : width(size), k(keys * size), q(TILE * size) {}

    void keys(const float* x, int64_t stride, int64_t count, int64_t size, float factor, int64_t bits, int64_t largest) {
        for (int64_t j = 0; j < count; j++)
            for (int64_t d = 0; d < size; d++)
                k.at[j * size + d] = int16_t(quantized(x[j * stride + d], factor, bits, largest));
    }

    void query(int row, const float* x, int64_t size, float factor, int64_t bits, int64_t largest) {
        for (int64_t d = 0; d < size; d++) q.at[row * size + d] = int16_t(quantized(x[d], factor, bits, largest));
    }

    void scores(int rows, int64_t count, int64_t size, Sum* to, int64_t pitch) const {
        for (int r = 0; r < rows; r++)
            for (int64_t j = 0; j < count; j++) {
                const int16_t *a = q.at + r * size, *b = k.at + j * size;
                Sum total = 0;
                for (int64_t d = 0; d < size; d++) total += Sum(int32_t(a[d]) * int32_t(b[d]));
                to[r * pitch + j] = total;
            }
    }
};

// ---- choice --------------------------------------------------------------------------------------------------------

constexpr int64_t CHUNK = 16384;  // what a 16-bit lane counts to at most

template <typename S> struct Row {
    typedef S vs __attribute__((vector_size(LANES * 4), aligned(sizeof(S)), may_alias));
    static constexpr int64_t WIDTH = LANES * 4 / sizeof(S);

    // One bit for each score of at least `least`.
    static uint64_t from(const S* row, S least) {
        uint64_t found = 0;
        for (int64_t x = 0; x < WIDTH; x++) found |= uint64_t(row[x] >= least) << x;
        return found;
    }
};

#if defined(__AVX512BW__)
template <> uint64_t Row<int16_t>::from(const int16_t* row, int16_t least) {
    return _mm512_cmpge_epi16_mask(_mm512_loadu_si512(row), _mm512_set1_epi16(least));
}
#endif

template <typename S> int64_t count_from(const S* row, int64_t count, S least) {
    typedef typename Row<S>::vs vs;
    constexpr int64_t WIDTH = Row<S>::WIDTH;
    int64_t total = 0, j = 0;
    while (j + WIDTH <= count) {
        const int64_t stop = std::min(j + CHUNK * WIDTH, count);
        vs part{};
        for (; j + WIDTH <= stop; j += WIDTH) part -= *(const vs*)(row + j) >= least;  // true is -1
        for (int64_t x = 0; x < WIDTH; x++) total += part[x];
    }
    for (; j < count; j++) total += row[j] >= least;
    return total;
}

// The `wanted` highest of row[0 .. count), of equal ones the first, as ascending indices; the lowest value of S is no
// score. Returns how many there are.
template <typename S> int64_t choose(const S* row, int64_t count, int64_t wanted, int64_t first, int32_t* to) {
    const S none = std::numeric_limits<S>::min();
    S most = none, least = std::numeric_limits<S>::max();
    for (int64_t j = 0; j < count; j++) {
        most = std::max(most, row[j]);
        least = std::min(least, row[j]);
    }
    if (most == none) return 0;
    S low = least;                     // count_from(low) >= wanted, or low is the lowest score there is
    int64_t equal_left = count;        // how many scores of exactly `low` are taken
    if (least == none) {               // hidden keys: begin at the lowest score
        low = most;
        for (int64_t j = 0; j < count; j++) low = row[j] != none && row[j] < low ? row[j] : low;
        if (count_from(row, count, low) <= wanted) wanted = count;
    }
    if (wanted < count) {
        int64_t high = int64_t(most) + 1, bottom = low, above = 0;  // count_from(high) = above < wanted
        while (high - bottom > 1) {
            const int64_t middle = bottom + (high - bottom) / 2, found = count_from(row, count, S(middle));
            if (found >= wanted) bottom = middle;
            else high = middle, above = found;
            if (found == wanted) break;
        }
        low = S(bottom);
        equal_left = high - bottom > 1 ? count : wanted - above;
    }
    int64_t taken = 0, start = 0;
    for (; start + Row<S>::WIDTH <= count; start += Row<S>::WIDTH)
        for (uint64_t found = Row<S>::from(row + start, low); found; found &= found - 1) {
            const int64_t j = start + __builtin_ctzll(found);
            if (row[j] > low || equal_left-- > 0) to[taken++] = int32_t(first + j);
        }
    for (; start < count; start++)
        if (row[start] > low || (row[start] == low && equal_left-- > 0)) to[taken++] = int32_t(first + start);
    return taken;
}

// ---- the exact step ------------------------------------------------------------------------------------------------

// `first`: what kept indices count from, seen from k's and v's first row. weight: room for `taken` and a vector more.
float attend(const float* q, const float* k, int64_t k_stride, const float* v, int64_t v_stride, const int32_t* kept,
             int64_t taken, int64_t first, const Shape& shape, float scale, float* weight, float* out) {
    std::fill(out, out + shape.value_size, 0.0f);
    if (!taken) return NONE;
    vf most = vf{} + NONE, total{};
    for (int64_t i = 0; i < taken; i++) {
        if (i + AHEAD < taken) {
            prefetch(k + (kept[i + AHEAD] - first) * k_stride, shape.size);
            prefetch(v + (kept[i + AHEAD] - first) * v_stride, shape.value_size);
        }
        weight[i] = dot(q, k + (kept[i] - first) * k_stride, shape.size) * scale;
    }
    std::fill(weight + taken, weight + taken + LANES, NONE);
    for (int64_t i = 0; i < taken; i += LANES) {
        const vf part = *(vf*)(weight + i);
        most = part > most ? part : most;
    }
    const float top = greatest(most);
    for (int64_t i = 0; i < taken; i += LANES) total += *(vf*)(weight + i) = exponential(*(vf*)(weight + i) - top);
    const float mass = sum(total), inverse = 1 / mass;
    for (int64_t i = 0; i < taken; i++)
        add_scaled(out, v + (kept[i] - first) * v_stride, weight[i] * inverse, shape.value_size);
    return top + std::log(mass);
}

template <typename Way>
void run(const float* q, const float* k, const float* v, const uint8_t* mask, const uint8_t* counted,
         const int64_t* cu_seqlens, float* out, float* lse, int32_t* kept, const Shape& shape, const Strides& strides,
         float scale, int64_t* counter) {
    typedef typename Way::Score S;
    const int64_t largest = shape.bits == 1 ? 1 : (int64_t(1) << (shape.bits - 1)) - 1, pitch = padded(shape.keys);
    const int64_t group = shape.heads / shape.groups;
    Way way(shape.size, shape.keys);
    Room<S> room(TILE * pitch);
    Room<float> weight(shape.columns + 2 * LANES);
    for (;;) {
        const int64_t item = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
        if (item >= shape.sequences * shape.groups) return;
        const Span at = span_of(shape, cu_seqlens, item / shape.groups);
        const int64_t key_head = item % shape.groups;
        const float* k_rows = k + at.batch * strides.k[0] + key_head * strides.k[1] + at.start * strides.k[2];
        const float* v_rows = v + at.batch * strides.v[0] + key_head * strides.v[1] + at.start * strides.v[2];
        const uint8_t* counts = counted ? counted + at.batch * shape.keys : nullptr;
        const float k_factor = factor_of(k_rows, strides.k[2], at.keys, shape.size, counts, largest);
        way.keys(k_rows, strides.k[2], at.keys, shape.size, k_factor, shape.bits, largest);
        for (int64_t head = key_head * group; head < (key_head + 1) * group; head++) {
            const float* q_rows = q + at.batch * strides.q[0] + head * strides.q[1] + at.start * strides.q[2];
            const float q_factor = factor_of(q_rows, strides.q[2], at.queries, shape.size, nullptr, largest);
            const int64_t row = (at.batch * shape.heads + head) * shape.queries + at.start;
            for (int64_t i = 0; i < at.queries; i += TILE) {
                const int rows = int(std::min<int64_t>(TILE, at.queries - i));
                for (int r = 0; r < rows; r++)
                    way.query(r, q_rows + (i + r) * strides.q[2], shape.size, q_factor, shape.bits, largest);
                const int64_t reach = shape.is_causal ? std::min(at.keys, i + rows) : at.keys;
                way.scores(rows, reach, shape.size, room.at, pitch);
                for (int r = 0; r < rows; r++) {
                    S* scores = room.at + r * pitch;
                    const int64_t limit = shape.is_causal ? std::min(at.keys, i + r + 1) : at.keys;
                    if (mask) {
                        const uint8_t* seen = mask + at.batch * strides.mask[0] + head * strides.mask[1] +
                                              (i + r) * strides.mask[2];
                        for (int64_t j = 0; j < limit; j++)
                            if (!seen[j * strides.mask[3]]) scores[j] = std::numeric_limits<S>::min();
                    }
                    int32_t* chosen = kept + (row + i + r) * shape.columns;
                    const int64_t taken = choose(scores, limit, shape.columns, at.start, chosen);
                    std::fill(chosen + taken, chosen + shape.columns, -1);
                    lse[row + i + r] = attend(q_rows + (i + r) * strides.q[2], k_rows, strides.k[2], v_rows,
                                              strides.v[2], chosen, taken, at.start, shape, scale, weight.at,
                                              out + (row + i + r) * shape.value_size);
                }
            }
        }
    }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void topk_forward(
    const float* q, const float* k, const float* v, const uint8_t* mask, const uint8_t* counted,
    const int64_t* cu_seqlens, float* out, float* lse, int32_t* kept, const int64_t* shape, const int64_t* strides,
    float scale, int64_t* counter) {
    Shape sizes;
    Strides steps;
    std::memcpy(&sizes, shape, sizeof sizes);
    std::memcpy(&steps, strides, sizeof steps);
    const auto way = sizes.bits <= 4 && sizes.size <= MOST_SHORT ? run<Short>
                     : sizes.bits <= 8 && sizes.size < 1 << 17   ? run<Long<int32_t>>
                                                                 : run<Long<int64_t>>;
    way(q, k, v, mask, counted, cu_seqlens, out, lse, kept, sizes, steps, scale, counter);
}

// Contiguous: grad_out, out [B, H, N, E]; lse [B, H, N]; kept; dq [B, H, N, D]; dk [B, G, L, D], dv [B, G, L, E], zeroed.
extern "C" __attribute__((visibility("default"))) void topk_backward(
    const float* q, const float* k, const float* v, const int64_t* cu_seqlens, const float* grad_out, const float* out,
    const float* lse, const int32_t* kept, float* dq, float* dk, float* dv, const int64_t* shape,
    const int64_t* strides, float scale, int64_t* counter) {
    Shape sizes;
    Strides steps;
    std::memcpy(&sizes, shape, sizeof sizes);
    std::memcpy(&steps, strides, sizeof steps);
    const int64_t group = sizes.heads / sizes.groups, D = sizes.size, E = sizes.value_size;
    for (;;) {
        const int64_t item = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
        if (item >= sizes.sequences * sizes.groups) return;
        const Span at = span_of(sizes, cu_seqlens, item / sizes.groups);
        const int64_t key_head = item % sizes.groups, first = (at.batch * sizes.groups + key_head) * sizes.keys;
        const float* k_rows = k + at.batch * steps.k[0] + key_head * steps.k[1];
        const float* v_rows = v + at.batch * steps.v[0] + key_head * steps.v[1];
        float *dk_rows = dk + first * D, *dv_rows = dv + first * E;
        for (int64_t head = key_head * group; head < (key_head + 1) * group; head++)
            for (int64_t i = at.start; i < at.start + at.queries; i++) {
                const int64_t row = (at.batch * sizes.heads + head) * sizes.queries + i;
                const float* query = q + at.batch * steps.q[0] + head * steps.q[1] + i * steps.q[2];
                const float* grad = grad_out + row * E;
                float* to = dq + row * D;
                std::fill(to, to + D, 0.0f);
                const float mean = dot(grad, out + row * E, E);  // sum of p dp over the kept keys
                for (int64_t c = 0; c < sizes.columns; c++) {
                    const int64_t j = kept[row * sizes.columns + c];
                    if (j < 0) break;
                    const float* key = k_rows + j * steps.k[2];
                    const float p = std::exp(dot(query, key, D) * scale - lse[row]);
                    const float ds = p * (dot(grad, v_rows + j * steps.v[2], E) - mean) * scale;
                    add_scaled(to, key, ds, D);
                    add_scaled(dk_rows + j * D, query, ds, D);
                    add_scaled(dv_rows + j * E, grad, p, E);
                }
            }
    }
}
