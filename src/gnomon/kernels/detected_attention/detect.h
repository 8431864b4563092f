// Estimated scores of one query as exact integers, and the k keys with the largest, lower index first.
#pragma once
#include <algorithm>
#include <climits>
#include <vector>

#include "vector.h"

constexpr int32_t HIDDEN = INT_MIN;  // the score of a key that must not be kept

static int32_t count_from(const int32_t* s, int64_t n, int32_t least) {  // n a multiple of W
  int32_t total = 0;
#if defined(__AVX512F__)
  const __m512i bound = _mm512_set1_epi32(least);
  for (int64_t j = 0; j < n; j += W)
    total += __builtin_popcount(_mm512_cmpge_epi32_mask(_mm512_loadu_si512(s + j), bound));
#else
  I hits = {};
  const I bound = all(least);
  for (int64_t j = 0; j < n; j += W) hits -= load(s + j) >= bound;
  for (int i = 0; i < W; ++i) total += hits[i];
#endif
  return total;
}

// The largest t > HIDDEN such that at least k of s are >= t; with no more than k visible, one that all of them reach.
static int32_t kth(const int32_t* s, int64_t n, int64_t k) {
  I most = all(HIDDEN), least = all(INT_MAX);
  for (int64_t j = 0; j < n; j += W) {
    I x = load(s + j);
    most = x > most ? x : most;
    I seen = x == all(HIDDEN) ? all(INT_MAX) : x;
    least = seen < least ? seen : least;
  }
  int32_t a[W], b[W];
  store(a, most), store(b, least);
  int64_t high = *std::max_element(a, a + W), low = *std::min_element(b, b + W);
  if (high == HIDDEN) return HIDDEN + 1;
  if (count_from(s, n, int32_t(low)) <= k) return int32_t(low);
  while (low < high) {  // count_from(low) >= k holds throughout
    int64_t middle = low + (high - low + 1) / 2;
    if (count_from(s, n, int32_t(middle)) >= k)
      low = middle;
    else
      high = middle - 1;
  }
  return int32_t(low);
}

// Those of s[0..n) that are >= least, with their places, in order; returns how many. Room for 16 more is scratch.
static int64_t compress(const int32_t* s, int64_t n, int32_t least, int32_t* value, int32_t* place) {
  int64_t found = 0;
#if defined(__AVX512F__)
  const __m512i bound = _mm512_set1_epi32(least), step = _mm512_set1_epi32(16);
  __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t j = 0; j < n; j += W) {
    __m512i x = _mm512_loadu_si512(s + j);
    __mmask16 hit = _mm512_cmpge_epi32_mask(x, bound);
    _mm512_storeu_si512(value + found, _mm512_maskz_compress_epi32(hit, x));
    _mm512_storeu_si512(place + found, _mm512_maskz_compress_epi32(hit, at));
    found += __builtin_popcount(hit);
    at = _mm512_add_epi32(at, step);
  }
#else
  for (int64_t j = 0; j < n; ++j) {
    value[found] = s[j];
    place[found] = int32_t(j);
    found += s[j] >= least;
  }
#endif
  return found;
}

// Places of the values above `bound` and of the first `equals` at it, in order. Room for 16 more is scratch.
static int64_t strongest(const int32_t* value, const int32_t* place, int64_t n, int32_t bound, int64_t equals,
                         int32_t* kept) {
  int64_t count = 0;
#if defined(__AVX512F__)
  const __m512i limit = _mm512_set1_epi32(bound);
  for (int64_t j = 0; j < n; j += W) {
    const __m512i x = _mm512_loadu_si512(value + j);
    uint32_t equal = _mm512_cmpeq_epi32_mask(x, limit), take = _mm512_cmpgt_epi32_mask(x, limit);
    if (__builtin_popcount(equal) <= equals) {
      equals -= __builtin_popcount(equal);
      take |= equal;
    } else {
      for (; equals > 0; --equals, equal &= equal - 1) take |= equal & -equal;
    }
    _mm512_storeu_si512(kept + count, _mm512_maskz_compress_epi32(__mmask16(take), _mm512_loadu_si512(place + j)));
    count += __builtin_popcount(take);
  }
#else
  for (int64_t j = 0; j < n; ++j) {
    const bool equal = value[j] == bound, take = value[j] > bound || (equal && equals > 0);
    equals -= equal;
    kept[count] = place[j];
    count += take;
  }
#endif
  return count;
}

struct Scratch {
  std::vector<int32_t> scores, sample, value, place;  // scores: of four queries
  explicit Scratch(int64_t keys) : scores(4 * (keys + PADDED)), sample(256), value(keys + 3 * PADDED), place(keys + 3 * PADDED) {}
};

// Places of the k largest visible ones of s[0..n), ascending; equals: the first ones. n a multiple of 16, the end of s
// filled up with HIDDEN. Returns how many were kept, fewer than k where fewer are visible.
static int64_t top(const int32_t* s, int64_t n, int64_t k, Scratch& scratch, int32_t* kept) {
  constexpr int64_t drawn = 256;
  int32_t guess = HIDDEN + 1;
  if (n > 2 * drawn) {  // a sample says about where the k-th is; a margin makes it rarely too high
    const int64_t step = n / drawn;
    for (int64_t j = 0; j < drawn; ++j) scratch.sample[j] = s[j * step];
    int64_t rank = k * drawn / n;
    rank += rank / 4 + 8;
    if (rank < drawn) guess = std::max(guess, kth(scratch.sample.data(), drawn, rank));
  }
  int32_t *value = scratch.value.data(), *place = scratch.place.data();
  int64_t found = compress(s, n, guess, value, place);
  if (found < k && guess > HIDDEN + 1) found = compress(s, n, HIDDEN + 1, value, place);
  if (found <= k) {
    std::copy(place, place + found, kept);
    return found;
  }
  const int64_t end = (found + W - 1) / W * W;
  std::fill(value + found, value + end, HIDDEN);
  const int32_t bound = kth(value, end, k);
  return strongest(value, place, end, bound, k - count_from(value, end, bound + 1), kept);
}

// The keys of a head, packed for products with W of them at a time; `rank` is rounded up to a multiple of 4.
// With the instruction for products of four bytes: bytes [groups, rank / 4, 16, 4], and offset [groups * 16] = -128 *
// sum of the key, which undoes the unsigned offset of queries. Without: floats [groups, rank, W], whose sums of
// products of bytes are exact up to a rank of 1040.
struct Packed {
  int64_t rank;
  const int8_t* bytes;
  const float* floats;
  const int32_t* offset;
};

static bool has_dot() {
#if defined(__AVX512F__)
  static const bool has = __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

// room: floats [groups, rank, W]; offset: [groups * W]; both zeros.
static void pack(const int8_t* k, int64_t keys, int64_t rank, float* room, int32_t* offset) {
  const int64_t quads = (rank + 3) / 4;
  int8_t* bytes = reinterpret_cast<int8_t*>(room);
  for (int64_t j = 0; j < keys; ++j)
    for (int64_t r = 0; r < rank; ++r) {
      const int8_t x = k[j * rank + r];
      if (has_dot()) {
        bytes[((j / W * quads + r / 4) * W + j % W) * 4 + r % 4] = x;
        offset[j] -= 128 * x;
      } else {
        room[(j / W * quads * 4 + r) * W + j % W] = x;
      }
    }
}

static Packed packed(int64_t rank, const float* room, const int32_t* offset) {
  return {(rank + 3) / 4 * 4, reinterpret_cast<const int8_t*>(room), room, offset};
}

#if defined(__AVX512F__)
template <int Q>
__attribute__((target("avx512vnni"))) static void products_dot(const int8_t* q, int64_t rank, const Packed& k,
                                                               int64_t groups, int32_t* s, int64_t stride) {
  const int64_t quads = k.rank / 4;
  std::vector<int32_t> query(Q * quads);
  for (int i = 0; i < Q; ++i)
    for (int64_t r = 0; r < k.rank; ++r)
      reinterpret_cast<uint8_t*>(&query[i * quads])[r] = uint8_t(128 + (r < rank ? q[i * rank + r] : 0));
  for (int64_t g = 0; g < groups; ++g) {
    __m512i sum[Q];
    const __m512i start = _mm512_loadu_si512(&k.offset[g * W]);
    for (int i = 0; i < Q; ++i) sum[i] = start;
    const int8_t* keys = &k.bytes[g * quads * 64];
    for (int64_t c = 0; c < quads; ++c) {
      const __m512i x = _mm512_loadu_si512(keys + c * 64);
      for (int i = 0; i < Q; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_set1_epi32(query[i * quads + c]), x);
    }
    for (int i = 0; i < Q; ++i) _mm512_storeu_si512(s + i * stride + g * W, sum[i]);
  }
}
#endif

template <int Q>
static void products_float(const int8_t* q, int64_t rank, const Packed& k, int64_t groups, int32_t* s,
                           int64_t stride) {
  for (int64_t g = 0; g < groups; ++g) {
    F sum[Q] = {};
    const float* keys = &k.floats[g * k.rank * W];
    for (int64_t r = 0; r < rank; ++r) {
      const F x = load(keys + r * W);
      for (int i = 0; i < Q; ++i) sum[i] += x * float(q[i * rank + r]);
    }
    for (int i = 0; i < Q; ++i) store(s + i * stride + g * W, __builtin_convertvector(sum[i], I));
  }
}

// s[i][j] = q[i] . k[j] for `queries` <= 4 rows q [queries, rank] and the first groups * W keys.
static void products(const int8_t* q, int64_t queries, int64_t rank, const Packed& k, int64_t groups, int32_t* s,
                     int64_t stride) {
#if defined(__AVX512F__)
  if (has_dot()) {
    if (queries == 4) return products_dot<4>(q, rank, k, groups, s, stride);
    for (int64_t i = 0; i < queries; ++i) products_dot<1>(q + i * rank, rank, k, groups, s + i * stride, stride);
    return;
  }
#endif
  if (queries == 4) return products_float<4>(q, rank, k, groups, s, stride);
  for (int64_t i = 0; i < queries; ++i) products_float<1>(q + i * rank, rank, k, groups, s + i * stride, stride);
}

// Hide what a query may not see: keys from `limit` on and those whose mask is 0.
static void hide(int32_t* s, int64_t padded, int64_t limit, const uint8_t* mask) {
  for (int64_t j = std::max<int64_t>(limit, 0); j < padded; ++j) s[j] = HIDDEN;
  if (mask)
    for (int64_t j = 0; j < limit; ++j) s[j] = mask[j] ? s[j] : HIDDEN;
}
