// Detection, selection and exact attention over kept keys, for the CPU. Axes as in reference.py.
//
// Floats are float32 and rows hold `width` of them, a multiple of 16; all arrays are contiguous. Work items are taken
// from `counter`; every item writes its own part of the output in an order of its own, so results do not depend on the
// number of threads.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "attend.h"
#include "detect.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

static int64_t take(int64_t* counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

struct Sizes {
  int64_t batch, heads, groups, queries, keys, width, kept;  // B, H, G, N, M, D, K
  // a work item is a tile of queries of one head
  int64_t tiles() const { return (queries + TILE - 1) / TILE; }
  int64_t items() const { return batch * heads * tiles(); }
  int64_t row(int64_t item) const { return item / tiles() * queries + item % tiles() * TILE; }  // its first, of B H N
  int64_t rows(int64_t item) const { return std::min(TILE, queries - item % tiles() * TILE); }
  // where the keys of a row's head begin, of B G M
  int64_t key_row(int64_t row) const {
    const int64_t head = row / queries;
    return (head / heads * groups + head % heads / (heads / groups)) * keys;
  }
};

static int64_t round_up(int64_t n) { return (n + W - 1) / W * W; }

EXPORT void token_forward(const float* q, const float* k, const float* v, const int32_t* index, const int32_t* count,
                          const Sizes* sizes, float scale, float* out, float* lse, int64_t* counter) {
  const Sizes z = *sizes;
  const int64_t room = round_up(z.kept);
  std::vector<float> s(TILE * room);
  for (int64_t item; (item = take(counter)) < z.items();) {
    const int64_t row = z.row(item), at = z.key_row(row) * z.width, to = row * z.width;
    const Lists lists{index + row * z.kept, count + row, z.rows(item), z.kept, z.keys, z.width};
#define CALL(V) attend<V>(lists, q + to, k + at, v + at, scale, s.data(), room, out + to, lse + row)
    BY_WIDTH(z.width, CALL)
#undef CALL
  }
}

// p, ds: [B, H, N, K rounded up to 16], for token_backward_keys
EXPORT void token_backward_rows(const float* grad_out, const float* grad_lse, const float* q, const float* k,
                                const float* v, const float* out, const float* lse, const int32_t* index,
                                const int32_t* count, const Sizes* sizes, float scale, float* p, float* ds, float* dq,
                                int64_t* counter) {
  const Sizes z = *sizes;
  const int64_t room = round_up(z.kept);
  for (int64_t item; (item = take(counter)) < z.items();) {
    const int64_t row = z.row(item), at = z.key_row(row) * z.width, to = row * z.width;
    const Lists lists{index + row * z.kept, count + row, z.rows(item), z.kept, z.keys, z.width};
#define CALL(V)                                                                                                     \
  attend_backward<V>(lists, grad_out + to, grad_lse ? grad_lse + row : nullptr, q + to, k + at, v + at, out + to, \
                     lse + row, scale, p + row * room, ds + row * room, room, dq + to)
    BY_WIDTH(z.width, CALL)
#undef CALL
  }
}

// dk += ds q and dv += p grad_out over the heads of a group and their queries in order; an item is a range of keys.
EXPORT void token_backward_keys(const float* grad_out, const float* q, const int32_t* index, const int32_t* count,
                                const float* p, const float* ds, const Sizes* sizes, float* dk, float* dv,
                                int64_t* counter) {
  const Sizes z = *sizes;
  constexpr int64_t range = 256;  // keys: both gradients of them stay in the second cache
  const int64_t room = round_up(z.kept), ranges = (z.keys + range - 1) / range, per_group = z.heads / z.groups;
  for (int64_t item; (item = take(counter)) < z.batch * z.groups * ranges;) {
    const int64_t group = item / ranges, low = item % ranges * range, high = std::min(low + range, z.keys);
    float *dk_group = dk + group * z.keys * z.width, *dv_group = dv + group * z.keys * z.width;
    std::fill(dk_group + low * z.width, dk_group + high * z.width, 0.0f);
    std::fill(dv_group + low * z.width, dv_group + high * z.width, 0.0f);
    for (int64_t row = group * per_group * z.queries; row < (group + 1) * per_group * z.queries; ++row) {
      const int32_t *list = index + row * z.kept, *end = list + count[row];
      const float *query = q + row * z.width, *grad = grad_out + row * z.width;
      for (const int32_t* j = std::lower_bound(list, end, low); j < end && *j < high; ++j) {
        const F a = all(ds[row * room + (j - list)]), b = all(p[row * room + (j - list)]);
        float *to_k = dk_group + int64_t(*j) * z.width, *to_v = dv_group + int64_t(*j) * z.width;
        for (int64_t i = 0; i < z.width; i += W) {
          store(to_k + i, load(to_k + i) + a * load(query + i));
          store(to_v + i, load(to_v + i) + b * load(grad + i));
        }
      }
    }
  }
}

struct Detection {
  const int8_t* q;      // [B, H, N, R]
  const float* room;    // packed keys [B, G, M / 16 rounded up, R rounded up to 4, 16]
  const int32_t* offset;
  const uint8_t* mask;  // [B, M] or null
  const int32_t* keep;  // [B], keys that a query of the sequence keeps
  int64_t rank, is_causal;
};

EXPORT void pack_keys(const int8_t* k, int64_t heads, int64_t keys, int64_t rank, float* room, int32_t* offset,
                      int64_t* counter) {
  const int64_t padded = round_up(keys), size = padded * ((rank + 3) / 4 * 4);
  for (int64_t head; (head = take(counter)) < heads;)
    pack(k + head * keys * rank, keys, rank, room + head * size, offset + head * padded);
}

// The kept keys of `queries` rows from `row` on: index [queries, stride], count [queries].
static void select_rows(const Sizes& z, const Detection& d, int64_t row, int64_t queries, Scratch& scratch,
                        int64_t stride, int32_t* index, int32_t* count) {
  const int64_t padded = round_up(z.keys), batch = row / z.queries / z.heads, head = z.key_row(row) / z.keys;
  const Packed keys = packed(d.rank, d.room + head * padded * ((d.rank + 3) / 4 * 4), d.offset + head * padded);
  for (int64_t i = 0; i < queries; i += 4) {
    const int64_t rows = std::min<int64_t>(4, queries - i), place = (row + i) % z.queries;
    auto limit = [&](int64_t j) { return d.is_causal ? std::min(z.keys, place + j + 1 + z.keys - z.queries) : z.keys; };
    const int64_t used = round_up(std::max<int64_t>(0, limit(rows - 1)));
    products(d.q + (row + i) * d.rank, rows, d.rank, keys, used / W, scratch.scores.data(), padded);
    for (int64_t j = 0; j < rows; ++j) {
      int32_t* scores = scratch.scores.data() + j * padded;
      hide(scores, used, limit(j), d.mask ? d.mask + batch * z.keys : nullptr);
      count[i + j] = int32_t(top(scores, used, d.keep[batch], scratch, index + (i + j) * stride));
    }
  }
}

EXPORT void select_top_k(const Detection* detection, const Sizes* sizes, int32_t* index, int32_t* count,
                         int64_t* counter) {
  const Sizes z = *sizes;
  const int64_t stride = z.keys + 2 * W;
  std::vector<int32_t> found(TILE * stride);
  Scratch scratch(z.keys);
  for (int64_t item; (item = take(counter)) < z.items();) {
    const int64_t row = z.row(item);
    select_rows(z, *detection, row, z.rows(item), scratch, stride, found.data(), count + row);
    for (int64_t i = 0; i < z.rows(item); ++i) {
      int32_t *to = index + (row + i) * z.kept, kept = count[row + i];
      std::copy(&found[i * stride], &found[i * stride] + kept, to);
      std::fill(to + kept, to + z.kept, -1);
    }
  }
}

// Both at once, without writing the kept set to memory.
EXPORT void detect_attend(const Detection* detection, const float* q, const float* k, const float* v,
                          const Sizes* sizes, float scale, float* out, float* lse, int64_t* counter) {
  const Sizes z = *sizes;
  const int64_t stride = z.keys + 2 * W, room = round_up(z.kept);
  std::vector<int32_t> index(TILE * stride), count(TILE);
  std::vector<float> s(TILE * room);
  Scratch scratch(z.keys);
  for (int64_t item; (item = take(counter)) < z.items();) {
    const int64_t row = z.row(item), at = z.key_row(row) * z.width, to = row * z.width;
    select_rows(z, *detection, row, z.rows(item), scratch, stride, index.data(), count.data());
    const Lists lists{index.data(), count.data(), z.rows(item), stride, z.keys, z.width};
#define CALL(V) attend<V>(lists, q + to, k + at, v + at, scale, s.data(), room, out + to, lse + row)
    BY_WIDTH(z.width, CALL)
#undef CALL
  }
}
