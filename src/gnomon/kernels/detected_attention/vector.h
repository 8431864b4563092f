// What the shared vectors lack here: integers beside floats, loads from anywhere, the sums of many vectors at once.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "../vector.h"

constexpr int64_t W = LANES;           // of one register: wider ones GCC would take apart, 10 times slower
constexpr int64_t PADDED = 16;         // what arrays are padded to, whatever W is
constexpr int WIDE = W == 16 ? 8 : 4;  // accumulators of a row

typedef vf F;
typedef vi I;
typedef float Fu __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t Iu __attribute__((vector_size(W * 4), aligned(4), may_alias));

static inline F load(const float* p) { return *reinterpret_cast<const Fu*>(p); }
static inline I load(const int32_t* p) { return *reinterpret_cast<const Iu*>(p); }
static inline void store(float* p, F x) { *reinterpret_cast<Fu*>(p) = x; }
static inline void store(int32_t* p, I x) { *reinterpret_cast<Iu*>(p) = x; }
static inline F all(float x) { return F{} + x; }
static inline I all(int32_t x) { return I{} + x; }

static inline F larger(F a, F b) { return a > b ? a : b; }

// The sums of W vectors, as one vector in their order: halves of two vectors are added until all are one.
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, I{__VA_ARGS__})
#endif
#define JOIN(a, b, lo, hi) (SHUFFLE(a, b, lo) + SHUFFLE(a, b, hi))
#define LIST(...) __VA_ARGS__
#if defined(__AVX512F__)
static inline F sums(const F (&x)[W]) {
  F a[8], b[4], c[2];
  for (int i = 0; i < 8; ++i)
    a[i] = JOIN(x[2 * i], x[2 * i + 1], LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
  for (int i = 0; i < 4; ++i)
    b[i] = JOIN(a[2 * i], a[2 * i + 1], LIST(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
                LIST(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
  for (int i = 0; i < 2; ++i)
    c[i] = JOIN(b[2 * i], b[2 * i + 1], LIST(0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29),
                LIST(2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31));
  return JOIN(c[0], c[1], LIST(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
              LIST(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
}
#elif defined(__AVX2__)
static inline F sums(const F (&x)[W]) {
  F a[4], b[2];
  for (int i = 0; i < 4; ++i)
    a[i] = JOIN(x[2 * i], x[2 * i + 1], LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15));
  for (int i = 0; i < 2; ++i)
    b[i] = JOIN(a[2 * i], a[2 * i + 1], LIST(0, 1, 4, 5, 8, 9, 12, 13), LIST(2, 3, 6, 7, 10, 11, 14, 15));
  return JOIN(b[0], b[1], LIST(0, 2, 4, 6, 8, 10, 12, 14), LIST(1, 3, 5, 7, 9, 11, 13, 15));
}
#else
static inline F sums(const F (&x)[W]) {
  F a[2];
  for (int i = 0; i < 2; ++i) a[i] = JOIN(x[2 * i], x[2 * i + 1], LIST(0, 1, 4, 5), LIST(2, 3, 6, 7));
  return JOIN(a[0], a[1], LIST(0, 2, 4, 6), LIST(1, 3, 5, 7));
}
#endif
