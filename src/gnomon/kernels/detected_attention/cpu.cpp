// Detection, selection and exact attention over kept keys, for the CPU. Axes as in reference.py.
//
// Floats are float32 and rows hold `width` of them, a multiple of 16; all arrays are contiguous. Work items are taken
// from `counter`; every item writes its own part of the output in an order of its own, so results do not depend on the
// number of threads.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "attend.h"
#include "blocks.h"
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

static int64_t round_up(int64_t n) { return (n + PADDED - 1) / PADDED * PADDED; }

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

// use(i, scores, used) for each of `queries` <= 4 rows from `row` on; used: how many scores, a multiple of 16.
template <typename Use>
static void score_rows(const Sizes& z, const Detection& d, int64_t row, int64_t queries, Scratch& scratch, Use use) {
  const int64_t padded = round_up(z.keys), batch = row / z.queries / z.heads, head = z.key_row(row) / z.keys;
  const Packed keys = packed(d.rank, d.room + head * padded * ((d.rank + 3) / 4 * 4), d.offset + head * padded);
  const int64_t place = row % z.queries;
  auto limit = [&](int64_t j) { return d.is_causal ? std::min(z.keys, place + j + 1 + z.keys - z.queries) : z.keys; };
  const int64_t used = round_up(std::max<int64_t>(0, limit(queries - 1)));
  products(d.q + row * d.rank, queries, d.rank, keys, used / W, scratch.scores.data(), padded);
  for (int64_t j = 0; j < queries; ++j) {
    int32_t* scores = scratch.scores.data() + j * padded;
    hide(scores, used, limit(j), d.mask ? d.mask + batch * z.keys : nullptr);
    use(j, scores, used);
  }
}

// The kept keys of `queries` rows from `row` on: index [queries, stride], count [queries].
static void select_rows(const Sizes& z, const Detection& d, int64_t row, int64_t queries, Scratch& scratch,
                        int64_t stride, int32_t* index, int32_t* count) {
  const int32_t keep = d.keep[row / z.queries / z.heads];
  for (int64_t i = 0; i < queries; i += 4)
    score_rows(z, d, row + i, std::min<int64_t>(4, queries - i), scratch,
               [&](int64_t j, const int32_t* scores, int64_t used) {
                 count[i + j] = int32_t(top(scores, used, keep, scratch, index + (i + j) * stride));
               });
}

EXPORT void select_top_k(const Detection* detection, const Sizes* sizes, int32_t* index, int32_t* count,
                         int64_t* counter) {
  const Sizes z = *sizes;
  const int64_t stride = z.keys + 2 * PADDED;
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
  const int64_t stride = z.keys + 2 * PADDED, room = round_up(z.kept);
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

struct Blocks {
  int64_t queries, keys, is_causal;  // of a block
  const uint8_t* mask;               // [B, M] or null
};

static Strip strip(const Sizes& z, const Blocks& size, const int32_t* index, const int32_t* count, int64_t head,
                   int64_t t) {
  const int64_t tiles = (z.queries + size.queries - 1) / size.queries, at = head * tiles + t;
  const int64_t first = t * size.queries, batch = head / z.heads;
  return {std::min(size.queries, z.queries - first), first,     index + at * z.kept, count[at],
          size.keys,                                 round_up(size.keys), z.keys,    z.queries,
          z.width,                                   size.is_causal != 0,
          size.mask ? size.mask + batch * z.keys : nullptr};
}

// k_transposed: [B, G, U, D, keys of a block rounded up to 16]
EXPORT void block_forward(const float* q, const float* k_transposed, const float* v, const int32_t* index,
                          const int32_t* count, const Sizes* sizes, const Blocks* blocks, float scale, float* out,
                          float* lse, int64_t* counter) {
  const Sizes z = *sizes;
  const Blocks size = *blocks;
  const int64_t tiles = (z.queries + size.queries - 1) / size.queries, span = round_up(size.keys);
  const int64_t room = z.kept * span, per_head = (z.keys + size.keys - 1) / size.keys * span;
  std::vector<float> s(size.queries * room);
  for (int64_t item; (item = take(counter)) < z.batch * z.heads * tiles;) {
    const int64_t head = item / tiles, row = head * z.queries + item % tiles * size.queries;
    const int64_t keys = z.key_row(row) / z.keys;
    strip_forward(strip(z, size, index, count, head, item % tiles), q + row * z.width,
                  k_transposed + keys * per_head * z.width, v + keys * z.keys * z.width, scale, s.data(), room,
                  out + row * z.width, lse + row);
  }
}

// p, ds: [B, H, N, K * keys of a block rounded up to 16], for block_backward_keys
EXPORT void block_backward_rows(const float* grad_out, const float* grad_lse, const float* q,
                                const float* k_transposed, const float* v_transposed, const float* k,
                                const float* out, const float* lse, const int32_t* index, const int32_t* count,
                                const Sizes* sizes, const Blocks* blocks, float scale, float* p, float* ds, float* dq,
                                int64_t* counter) {
  const Sizes z = *sizes;
  const Blocks size = *blocks;
  const int64_t tiles = (z.queries + size.queries - 1) / size.queries, span = round_up(size.keys);
  const int64_t room = z.kept * span, per_head = (z.keys + size.keys - 1) / size.keys * span;
  for (int64_t item; (item = take(counter)) < z.batch * z.heads * tiles;) {
    const int64_t head = item / tiles, row = head * z.queries + item % tiles * size.queries, to = row * z.width;
    const int64_t keys = z.key_row(row) / z.keys, packed = keys * per_head * z.width;
    strip_backward(strip(z, size, index, count, head, item % tiles), grad_out + to,
                   grad_lse ? grad_lse + row : nullptr, q + to, k_transposed + packed, v_transposed + packed,
                   k + keys * z.keys * z.width, out + to, lse + row, scale, p + row * room, ds + row * room, room,
                   dq + to);
  }
}

// dk = ds^T q and dv = p^T grad_out of one key block, over the heads of a group and their query blocks in order
EXPORT void block_backward_keys(const float* grad_out, const float* q, const int32_t* index, const int32_t* count,
                                const float* p, const float* ds, const Sizes* sizes, const Blocks* blocks, float* dk,
                                float* dv, int64_t* counter) {
  const Sizes z = *sizes;
  const Blocks size = *blocks;
  const int64_t tiles = (z.queries + size.queries - 1) / size.queries, parts = (z.keys + size.keys - 1) / size.keys;
  const int64_t span = round_up(size.keys), room = z.kept * span, per_group = z.heads / z.groups;
  for (int64_t item; (item = take(counter)) < z.batch * z.groups * parts;) {
    const int64_t group = item / parts, part = item % parts, first = group * z.keys + part * size.keys;
    const int64_t rows = std::min(size.keys, z.keys - part * size.keys);
    float *to_k = dk + first * z.width, *to_v = dv + first * z.width;
    std::fill(to_k, to_k + rows * z.width, 0.0f);
    std::fill(to_v, to_v + rows * z.width, 0.0f);
    for (int64_t head = group * per_group; head < (group + 1) * per_group; ++head)
      for (int64_t t = 0; t < tiles; ++t) {
        const Strip from = strip(z, size, index, count, head, t);
        const int32_t *end = from.index + from.count, *found = std::lower_bound(from.index, end, part);
        if (found == end || *found != part) continue;
        const int64_t row = head * z.queries + from.first, at = row * room + (found - from.index) * span;
        product(ds + at, 1, room, q + row * z.width, z.width, rows, from.rows, z.width, to_k, z.width);
        product(p + at, 1, room, grad_out + row * z.width, z.width, rows, from.rows, z.width, to_v, z.width);
      }
  }
}

// The kept key blocks of each block of queries, by the largest of its visible scores. keep: [B], blocks to keep.
EXPORT void select_blocks(const Detection* detection, const Sizes* sizes, const Blocks* blocks, int32_t* index,
                          int32_t* count, int64_t* counter) {
  const Sizes z = *sizes;
  const Blocks size = *blocks;
  const Detection& d = *detection;
  const int64_t tiles = (z.queries + size.queries - 1) / size.queries, parts = (z.keys + size.keys - 1) / size.keys;
  std::vector<int32_t> best(round_up(parts)), kept(parts + 2 * PADDED);
  Scratch scratch(std::max(z.keys, parts));
  for (int64_t item; (item = take(counter)) < z.batch * z.heads * tiles;) {
    const int64_t head = item / tiles, first = item % tiles * size.queries;
    std::fill(best.begin(), best.end(), HIDDEN);
    for (int64_t i = first; i < std::min(first + size.queries, z.queries); i += 4) {
      const int64_t rows = std::min<int64_t>({4, z.queries - i, first + size.queries - i});
      score_rows(z, d, head * z.queries + i, rows, scratch, [&](int64_t, const int32_t* scores, int64_t used) {
        for (int64_t part = 0; part * size.keys < used; ++part) {
          const int32_t *from = scores + part * size.keys, *end = scores + std::min((part + 1) * size.keys, used);
          int32_t most = best[part];
          for (; from < end; ++from) most = std::max(most, *from);
          best[part] = most;
        }
      });
    }
    count[item] = int32_t(top(best.data(), round_up(parts), d.keep[head / z.heads], scratch, kept.data()));
    int32_t* to = index + item * z.kept;
    std::copy(kept.begin(), kept.begin() + count[item], to);
    std::fill(to + count[item], to + z.kept, -1);
  }
}
