// Vectors of LANES floats, one query per lane. The width follows the compile flags: 16 lanes for AVX-512, 8 for AVX2
// (where 16 would spill: 6 to 11 times slower), 4 elsewhere. GCC's vector extensions, so that clang and ARM do too.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int STEP = LANES < 8 ? 8 : LANES;  // rows are padded with zeros to a multiple of it
constexpr uint32_t ALL_LANES = (1u << LANES) - 1;
constexpr int PARTS = LANES == 16 ? 2 : 1;  // most vectors in a tile: two share the loads of keys, if registers suffice
constexpr int QUERIES = PARTS * LANES;

typedef float V __attribute__((vector_size(LANES * 4), may_alias));
typedef int32_t I __attribute__((vector_size(LANES * 4), may_alias));

static inline V splat(float x) { return x - V{}; }  // x + 0 would be computed: it is not x for -0
static inline V load(const float* x) { return *reinterpret_cast<const V*>(x); }
static inline void store(float* x, V value) { *reinterpret_cast<V*>(x) = value; }
static inline I bits_of(V x) { return reinterpret_cast<I>(x); }
static inline V floats_of(I x) { return reinterpret_cast<V>(x); }

// The larger of the two; `b` where either is NaN.
static inline V larger(V a, V b) {
#if defined(__AVX512F__)
    return reinterpret_cast<V>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
    return reinterpret_cast<V>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
    return a > b ? a : b;
#endif
}

// `x` where the lane's bit is set, else `otherwise`.
static inline V where(uint32_t lanes, V x, float otherwise) {
#if defined(__AVX512F__)
    return reinterpret_cast<V>(
        _mm512_mask_blend_ps(__mmask16(lanes), _mm512_set1_ps(otherwise), reinterpret_cast<__m512>(x)));
#else
    I bit;
    for (int i = 0; i < LANES; ++i) bit[i] = 1 << i;
    return (bit & static_cast<int32_t>(lanes)) != 0 ? x : splat(otherwise);
#endif
}

// 2^x for x <= 127, relative error below 2e-7; exactly 0 from -127 down; NaN stays NaN. COUNT at once, step by step,
// because compilers keep the order in which they are written.
template <int COUNT>
static inline void exp2(V (&x)[COUNT]) {
    constexpr float MINIMAX[] = {  // on [-1/2, 1/2] with value 1 at 0: 9.1e-8
        0.00132647204f, 0.00967151302f, 0.0555073378f, 0.240222421f, 0.693146978f,
        1.0f,  // exactly, so that 2^-127 has no mantissa bits: zero and not a denormal
    };
    V shifted[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; ++i) {
        x[i] = larger(splat(-127.0f), x[i]);
        shifted[i] = x[i] + 12582912.0f;  // 1.5 * 2^23: the low bits of the sum are x rounded to an integer
        x[i] = x[i] - (shifted[i] - 12582912.0f);
        y[i] = splat(MINIMAX[0]);
    }
    for (int power = 1; power < 6; ++power)
        for (int i = 0; i < COUNT; ++i) y[i] = y[i] * x[i] + MINIMAX[power];
    for (int i = 0; i < COUNT; ++i) x[i] = floats_of(bits_of(y[i]) + (bits_of(shifted[i]) << 23));
}

static inline V exp2(V x) {
    V one[1] = {x};
    exp2(one);
    return one[0];
}

// Natural logarithm of positive normal numbers, error below 2e-7 of max(1, result); NaN stays NaN.
static inline V log(V x) {
    const I shifted = bits_of(x) - 0x3f3504f3;  // the mantissa then lies in [sqrt(1/2), sqrt(2))
    const V power = __builtin_convertvector(shifted >> 23, V);
    const V m = floats_of((shifted & 0x7fffff) + 0x3f3504f3);
    const V z = (m - 1.0f) / (m + 1.0f), zz = z * z;
    const V series = z * (2.0f + zz * (0.666666667f + zz * (0.4f + zz * (0.285714286f + zz * 0.222222222f))));
    return power * 0.693147181f + series + (x - x);
}

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, I{__VA_ARGS__})
#endif

// a0 b0 a1 b1 ... of the first halves, and of the second.
static inline V zip_low(V a, V b) {
#if defined(__AVX512F__)
    return SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
    return SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return SHUFFLE(a, b, 0, 4, 1, 5);
#endif
}

static inline V zip_high(V a, V b) {
#if defined(__AVX512F__)
    return SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(__AVX2__)
    return SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return SHUFFLE(a, b, 2, 6, 3, 7);
#endif
}

// LANES x LANES in place: log2(LANES) rounds of zipping the first half with the second.
static inline void transpose(V (&a)[LANES]) {
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
        V next[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; ++i) {
            next[2 * i] = zip_low(a[i], a[i + LANES / 2]);
            next[2 * i + 1] = zip_high(a[i], a[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) a[i] = next[i];
    }
}
