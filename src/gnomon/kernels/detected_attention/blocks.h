// Exact attention of blocks of queries over their kept blocks of keys: small dense products.
// Rows of q, k, v and out hold `width` floats, a multiple of 16. A block of transposed keys is [width, span], span =
// keys of a block rounded up to 16 (zeros behind the keys that are not there).
#pragma once
#include <algorithm>
#include <cmath>

#include "attend.h"
#include "vector.h"

// c[r, 0..W V) += sum over i < inner of a[r * row + i * step] * b[i, 0..W V), for R rows
template <int R, int V>
static inline void product_tile(const float* a, int64_t row, int64_t step, const float* b, int64_t b_row,
                                int64_t inner, float* c, int64_t c_row) {
  F sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = load(c + r * c_row + v * W);
  for (int64_t i = 0; i < inner; ++i) {
    F x[V];
    for (int v = 0; v < V; ++v) x[v] = load(b + i * b_row + v * W);
    for (int r = 0; r < R; ++r) {
      const F y = all(a[r * row + i * step]);
      for (int v = 0; v < V; ++v) sum[r][v] += y * x[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * c_row + v * W, sum[r][v]);
}

template <int V>
static void product_columns(const float* a, int64_t row, int64_t step, const float* b, int64_t b_row, int64_t rows,
                            int64_t inner, float* c, int64_t c_row) {
  constexpr int most = V == 4 || (V == 2 && W < 16) ? 6 : 8;  // accumulators that fit the registers
  int64_t r = 0;
  for (; r + most <= rows; r += most)
    product_tile<most, V>(a + r * row, row, step, b, b_row, inner, c + r * c_row, c_row);
  for (; r + 2 <= rows; r += 2) product_tile<2, V>(a + r * row, row, step, b, b_row, inner, c + r * c_row, c_row);
  if (r < rows) product_tile<1, V>(a + r * row, row, step, b, b_row, inner, c + r * c_row, c_row);
}

// c [rows, columns] += a [rows, inner] b [inner, columns]; a by strides; columns a multiple of 16
static void product(const float* a, int64_t row, int64_t step, const float* b, int64_t b_row, int64_t rows,
                    int64_t inner, int64_t columns, float* c, int64_t c_row) {
  int64_t at = 0;
  for (; W == 16 && at + 4 * W <= columns; at += 4 * W)
    product_columns<4>(a, row, step, b + at, b_row, rows, inner, c + at, c_row);
  for (; at + 2 * W <= columns; at += 2 * W)
    product_columns<2>(a, row, step, b + at, b_row, rows, inner, c + at, c_row);
  for (; at < columns; at += W) product_columns<1>(a, row, step, b + at, b_row, rows, inner, c + at, c_row);
}

// One block of queries, from query `first` on, and its kept blocks.
struct Strip {
  int64_t rows, first;           // its queries, fewer at the end
  const int32_t* index;          // kept key blocks
  int64_t count, size, span;     // how many; keys of a block; the same rounded up to 16
  int64_t keys, queries, width;  // M, N, D
  bool is_causal;
  const uint8_t* mask;  // [M] or null
  int64_t columns() const { return count * span; }

  // s = scale * q x^T for the kept blocks of transposed x
  void products(const float* q, const float* transposed, float scale, float* s, int64_t room) const {
    for (int64_t i = 0; i < rows; ++i) std::fill(s + i * room, s + i * room + columns(), 0.0f);
    for (int64_t j = 0; j < count; ++j)
      product(q, width, 1, transposed + index[j] * width * span, span, rows, width, span, s + j * span, room);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = i * room; c < i * room + columns(); c += W) store(s + c, load(s + c) * scale);
  }

  // -inf where query `row` may not look; returns whether it sees anything
  bool hide(int64_t row, float* s) const {
    const int64_t limit = is_causal ? std::min(keys, first + row + 1 + keys - queries) : keys;
    bool any = false;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t from = index[j] * size, end = std::min({size, keys - from, limit - from});
      float* to = s + j * span;
      for (int64_t c = std::max<int64_t>(end, 0); c < span; ++c) to[c] = -INFINITY;
      if (mask)
        for (int64_t c = 0; c < end; ++c) to[c] = mask[from + c] ? to[c] : -INFINITY;
      for (int64_t c = 0; !any && c < end; ++c) any = to[c] > -INFINITY;
    }
    return any;
  }

  // out += p x for rows of the kept blocks
  void blend(const float* p, int64_t room, const float* x, float* out) const {
    for (int64_t j = 0; j < count; ++j)
      product(p + j * span, room, 1, x + index[j] * size * width, width, rows,
              std::min(size, keys - index[j] * size), width, out, width);
  }
};

// s: [rows, room], room >= columns; left with the probabilities
static void strip_forward(const Strip& z, const float* q, const float* k_transposed, const float* v, float scale,
                          float* s, int64_t room, float* out, float* lse) {
  z.products(q, k_transposed, scale, s, room);
  for (int64_t i = 0; i < z.rows; ++i) {
    if (z.hide(i, s + i * room)) {
      lse[i] = soften(s + i * room, z.columns());
    } else {
      lse[i] = -INFINITY;
      std::fill(s + i * room, s + i * room + z.columns(), 0.0f);
    }
  }
  std::fill(out, out + z.rows * z.width, 0.0f);
  z.blend(s, room, v, out);
}

// p, ds: [rows, room], for the gradients of keys and values; dq = ds k
static void strip_backward(const Strip& z, const float* grad_out, const float* grad_lse, const float* q,
                           const float* k_transposed, const float* v_transposed, const float* k, const float* out,
                           const float* lse, float scale, float* p, float* ds, int64_t room, float* dq) {
  z.products(q, k_transposed, scale, p, room);
  z.products(grad_out, v_transposed, 1.0f, ds, room);
  for (int64_t i = 0; i < z.rows; ++i) {
    const bool any = z.hide(i, p + i * room);
    F dot = {};
    for (int64_t c = i * z.width; c < (i + 1) * z.width; c += W) dot += load(grad_out + c) * load(out + c);
    const float delta = sum(dot) - (grad_lse && any ? grad_lse[i] : 0.0f);
    for (int64_t c = i * room; c < i * room + z.columns(); c += W) {
      F x = load(p + c) - (any ? lse[i] : 0.0f);
      F weight = exponential(x > F{} ? F{} : x);  // 0 where it is hidden
      store(p + c, weight);
      store(ds + c, weight * (load(ds + c) - delta) * scale);
    }
  }
  std::fill(dq, dq + z.rows * z.width, 0.0f);
  z.blend(ds, room, k, dq);
}
