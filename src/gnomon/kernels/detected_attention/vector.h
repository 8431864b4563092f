// Sixteen floats or integers at a time, as GCC vector extensions: one register with AVX-512, two or four elsewhere.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef float F __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef float Fu __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Iu __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t W = 16;

static inline F load(const float* p) { return *reinterpret_cast<const Fu*>(p); }
static inline I load(const int32_t* p) { return *reinterpret_cast<const Iu*>(p); }
static inline void store(float* p, F x) { *reinterpret_cast<Fu*>(p) = x; }
static inline void store(int32_t* p, I x) { *reinterpret_cast<Iu*>(p) = x; }
static inline F all(float x) { return F{} + x; }
static inline I all(int32_t x) { return I{} + x; }

static inline float sum(F x) {
  float total = 0, lane[W];
  store(lane, x);
  for (int i = 0; i < W; ++i) total += lane[i];
  return total;
}

static inline F larger(F a, F b) { return a > b ? a : b; }

static inline float largest(F x) {
  float most, lane[W];
  store(lane, x);
  most = lane[0];
  for (int i = 1; i < W; ++i) most = lane[i] > most ? lane[i] : most;
  return most;
}

#define JOIN(a, b, lo, hi) (__builtin_shufflevector(a, b, lo) + __builtin_shufflevector(a, b, hi))
#define EIGHT_LO 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define EIGHT_HI 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define FOUR_LO 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define FOUR_HI 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#define TWO_LO 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29
#define TWO_HI 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31
#define ONE_LO 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ONE_HI 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31

// The sums of sixteen vectors, as one vector in their order.
static inline F sums(const F (&x)[W]) {
  F a[8], b[4], c[2];
  for (int i = 0; i < 8; ++i) a[i] = JOIN(x[2 * i], x[2 * i + 1], EIGHT_LO, EIGHT_HI);
  for (int i = 0; i < 4; ++i) b[i] = JOIN(a[2 * i], a[2 * i + 1], FOUR_LO, FOUR_HI);
  for (int i = 0; i < 2; ++i) c[i] = JOIN(b[2 * i], b[2 * i + 1], TWO_LO, TWO_HI);
  return JOIN(c[0], c[1], ONE_LO, ONE_HI);
}

// e^x for x <= 0 to 2 ulp; 0 below -87. Reduction x = n ln 2 + r, then the series of e^r to r^6 with fitted ends
// (Cephes expf).
static inline F exponential(F x) {
  const F magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  F low = x < all(-87.0f) ? all(-87.0f) : x;
  F n = (low * 1.44269504088896341f + magic) - magic;
  F r = low - n * 0.693359375f + n * 2.12194440e-4f;
  F y = all(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  I power = (__builtin_convertvector(n, I) + 127) << 23;
  F two_n;
  memcpy(&two_n, &power, sizeof two_n);
  return x < all(-87.0f) ? F{} : y * two_n;
}
