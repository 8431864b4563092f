// Exact attention of queries over their lists of kept keys. Rows of q, k and v hold `width` floats, a multiple of 16.
// V is width / W where it is known when compiling, 0 where it is not.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "vector.h"

constexpr int64_t TILE = 64;  // queries that are handled together

// The kept keys of up to TILE queries. index: [rows, stride], ascending. Lists are walked in steps of W, chunk of
// keys by chunk of keys, so that the rows of a chunk are fetched into the second cache once for all queries: 2.3 times
// faster at 4096 keys than query by query.
struct Lists {
  const int32_t* index;
  const int32_t* count;
  int64_t rows, stride, keys, width;

  template <typename Step>
  void walk(Step step) const {  // step(row, from, to): entries from..to of that row's list, `from` a multiple of W
    const int64_t chunk = std::max<int64_t>(64, (int64_t(1) << 16) / width);
    int64_t at[TILE] = {};
    for (int64_t end = chunk;; end += chunk) {
      for (int64_t row = 0; row < rows; ++row) {
        const int32_t* list = index + row * stride;
        int64_t to = at[row];
        while (to < count[row] && list[to] < end) to += W;
        to = std::min<int64_t>(to, count[row]);
        if (to > at[row]) step(row, at[row], to);
        at[row] = to;
      }
      if (end >= keys) return;
    }
  }
};

// s[from..to) = scale * q . x[index]; up to W - 1 entries behind are scratch.
template <int V>
static void dots(const float* q, const float* x, int64_t width, const int32_t* index, int64_t from, int64_t to,
                 float scale, float* s) {
  const int64_t vectors = V ? V : width / W;
  for (int64_t at = from; at < to; at += W) {
    const float* row[W];
    for (int j = 0; j < W; ++j) row[j] = x + int64_t(index[std::min(at + j, to - 1)]) * width;
    F part[W];
    for (int j = 0; j < W; ++j) part[j] = load(q) * load(row[j]);
    for (int64_t v = 1; v < vectors; ++v) {
      F y = load(q + v * W);
      for (int j = 0; j < W; ++j) part[j] += y * load(row[j] + v * W);
    }
    store(s + at, sums(part) * scale);
  }
}

// out += sum of p[j] * x[index[j]] for j in from..to
template <int V>
static void blend(const float* p, const float* x, int64_t width, const int32_t* index, int64_t from, int64_t to,
                  float* out) {
  constexpr int wide = V && V < WIDE ? V : WIDE;  // vectors of the row that are summed at a time
  for (int64_t part = 0; part < width; part += wide * W) {
    const int vectors = V && V <= WIDE ? wide : int(std::min<int64_t>(wide, (width - part) / W));
    F even[wide] = {}, odd[wide] = {};
    const float* base = x + part;
    int64_t j = from;
    for (; j + 2 <= to; j += 2) {
      const float *a = base + int64_t(index[j]) * width, *b = base + int64_t(index[j + 1]) * width;
      for (int i = 0; i < vectors; ++i) even[i] += p[j] * load(a + i * W);
      for (int i = 0; i < vectors; ++i) odd[i] += p[j + 1] * load(b + i * W);
    }
    if (j < to) {
      const float* a = base + int64_t(index[j]) * width;
      for (int i = 0; i < vectors; ++i) even[i] += p[j] * load(a + i * W);
    }
    for (int i = 0; i < vectors; ++i) {
      float* y = out + part + i * W;
      store(y, load(y) + (even[i] + odd[i]));
    }
  }
}

// s -> exp(s - lse), for the entries of one list; returns lse. Up to W - 1 entries behind are scratch.
static float soften(float* s, int64_t count) {
  const int64_t end = (count + W - 1) / W * W;
  for (int64_t j = count; j < end; ++j) s[j] = -INFINITY;
  F most = all(-INFINITY), total = {};
  for (int64_t j = 0; j < end; j += W) most = larger(load(s + j), most);
  const float top = greatest(most);
  for (int64_t j = 0; j < end; j += W) {
    F e = exponential(load(s + j) - top);
    store(s + j, e);
    total += e;
  }
  const float whole = sum(total);
  for (int64_t j = 0; j < end; j += W) store(s + j, load(s + j) * (1 / whole));
  return top + std::log(whole);
}

// q, out: [rows, width]; lse: [rows]; k, v: [keys, width]. s: [rows, room], room >= the largest count, rounded up to 16.
template <int V>
static void attend(const Lists& lists, const float* q, const float* k, const float* v, float scale, float* s,
                   int64_t room, float* out, float* lse) {
  const int64_t width = lists.width;
  lists.walk([&](int64_t row, int64_t from, int64_t to) {
    dots<V>(q + row * width, k, width, lists.index + row * lists.stride, from, to, scale, s + row * room);
  });
  for (int64_t row = 0; row < lists.rows; ++row)
    lse[row] = lists.count[row] ? soften(s + row * room, lists.count[row]) : -INFINITY;
  std::fill(out, out + lists.rows * width, 0.0f);
  lists.walk([&](int64_t row, int64_t from, int64_t to) {
    blend<V>(s + row * room, v, width, lists.index + row * lists.stride, from, to, out + row * width);
  });
}

// p and ds (the scores' gradient, times scale) of every kept key, and dq = ds k. p, ds: [rows, room].
template <int V>
static void attend_backward(const Lists& lists, const float* grad_out, const float* grad_lse, const float* q,
                            const float* k, const float* v, const float* out, const float* lse, float scale, float* p,
                            float* ds, int64_t room, float* dq) {
  const int64_t width = lists.width;
  lists.walk([&](int64_t row, int64_t from, int64_t to) {
    dots<V>(q + row * width, k, width, lists.index + row * lists.stride, from, to, scale, p + row * room);
  });
  lists.walk([&](int64_t row, int64_t from, int64_t to) {
    dots<V>(grad_out + row * width, v, width, lists.index + row * lists.stride, from, to, 1.0f, ds + row * room);
  });
  for (int64_t row = 0; row < lists.rows; ++row) {
    F dot = {};
    for (int64_t i = row * width; i < (row + 1) * width; i += W) dot += load(grad_out + i) * load(out + i);
    const float delta = sum(dot) - (grad_lse ? grad_lse[row] : 0.0f);  // d lse / d s is p as well
    for (int64_t j = row * room; j < row * room + lists.count[row]; j += W) {
      F x = load(p + j) - lse[row];
      F weight = exponential(x > F{} ? F{} : x);  // rounding may put it above 0 by an ulp
      store(p + j, weight);
      store(ds + j, weight * (load(ds + j) - delta) * scale);
    }
  }
  std::fill(dq, dq + lists.rows * width, 0.0f);
  lists.walk([&](int64_t row, int64_t from, int64_t to) {
    blend<V>(ds + row * room, k, width, lists.index + row * lists.stride, from, to, dq + row * width);
  });
}

#define BY_WIDTH(width, call)     \
  switch (width / W) {            \
    case 2: call(2); break;       \
    case 4: call(4); break;       \
    case 8: call(8); break;       \
    default: call(0);             \
  }
