// Neighborhood attention and its gradient. LANES queries of a spatial tile make one vector, so scores need no sums
// across lanes: score[key] += Q^T[d] * k[d] for 8 keys at once, a vector exp, then O^T[d] += P * v[d]. The keys of one
// (batch, head, dilation group) are packed as float32 rows first; masks are compared lane by lane, once per list of keys.
#include <initializer_list>

#include "grid.h"
#include "products.h"
#include "storage.h"
#include "vectors.h"
#include "walk.h"

namespace {

constexpr float HIDDEN = -2e30f;  // the score of a key that is not seen
constexpr float LEAST = -1e30f;   // where the running maximum starts: HIDDEN - LEAST still gives P = 0
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

struct Worker {
    const Args& a;
    const Places places;
    int64_t extent[AXES], entries;  // of the bias vectors: 2 w - 1 + part's size - 1 along each axis
    float *keys, *values, *keys_grad, *values_grad, *bias, *bias_grad;
    float *q_rows, *q_columns, *sum, *grad_rows, *grad_columns, *weight, *weight_grad;
    int64_t next_bias;  // from a bias vector of the first part to the second part's
    KeyLists lists;
    KeyList list;    // of the tile
    int64_t origin;  // its first key in the packed rows
    Unit unit;
    const int parts;  // of a tile
    Prefetches ahead;
    int64_t packed;  // keys of axis 0 below it are packed
    int64_t head;
    uint32_t queries;  // those inside the grid
    Queries q, out, lse, grad_out, grad_lse, dq;

    Worker(const Args& args, Carver& memory) : a(args),
          places(args),
          lists(args, places, memory),
          parts(parts_of(args)),
          q(a, places, a.q),
          out(a, places, a.out),
          lse(a, places, a.lse),
          grad_out(a, places, a.grad_out),
          grad_lse(a, places, a.grad_lse),
          dq(a, places, a.dq) {
        entries = 1;
        for (int x = 0; x < AXES; ++x) entries *= extent[x] = 2 * a.window[x] - 1 + part_size(a, x) - 1;
        next_bias = part_size(a, parting(a)) * LANES;
        for (int x = parting(a) + 1; x < AXES; ++x) next_bias *= extent[x];
        const int64_t tile_floats = QUERIES * a.padded, row_floats = a.most_rows * a.padded;
        keys = memory.take<float>(row_floats);
        values = memory.take<float>(row_floats);
        bias = memory.take<float>(a.rpb ? entries * LANES : 0);
        q_rows = memory.take<float>(tile_floats);
        q_columns = memory.take<float>(tile_floats);
        sum = memory.take<float>(tile_floats);
        weight = memory.take<float>(PARTS * BLOCK * LANES);
        ahead.bytes = row_bytes(a.storage, a.size);
        if (!a.is_backward) return;
        if (a.chunks == 1) {
            keys_grad = memory.take<float>(row_floats);
            values_grad = memory.take<float>(row_floats);
        }
        bias_grad = memory.take<float>(a.rpb ? entries * LANES : 0);
        grad_rows = memory.take<float>(tile_floats);
        grad_columns = memory.take<float>(tile_floats);
        weight_grad = memory.take<float>(BLOCK * LANES);
    }

    void begin(int64_t index) {
        unit = unit_of(a, index);
        lists.begin(a, unit);
        packed = unit.low;
        if (!a.is_backward) return;
        if (a.chunks > 1) {
            keys_grad = a.partial + index * a.partial_floats;
            values_grad = keys_grad + a.partial_floats / 2;
        }
        memset(keys_grad, 0, unit.rows() * a.padded * sizeof(float));
        memset(values_grad, 0, unit.rows() * a.padded * sizeof(float));
    }

    // Pack the keys of axis 0 from `packed` to `high`, in runs along the last axis that has more than one.
    NOINLINE void pack(int64_t high) {
        const int along = unit.plane() == 1 ? 0 : unit.length[2] == 1 ? 1 : 2;
        const int64_t count = along ? unit.length[along] : high - packed;
        for (int64_t i = packed; i < high; i += along ? 1 : count)
            for (int64_t j = 0; j < (along == 2 ? unit.length[1] : 1); ++j) {
                int64_t token[AXES];
                unit.token(a, i, j, 0, token);
                const int64_t to = ((i - unit.low) * unit.plane() + j * unit.length[2]) * a.padded;
                pack_run(a.k, token, along, count, keys + to);
                pack_run(a.v, token, along, count, values + to);
            }
        packed = larger(packed, high);
    }

    void pack_run(const Tensor& from, const int64_t* token, int along, int64_t count, float* to) {
        constexpr int64_t AHEAD = 16;
        const int64_t first = from.at(unit.batch, token, unit.kv_head);
        const int64_t step = from.stride[along + 1] * a.dilation[along];
        const char* ahead_of = row_at(a.storage, from.data, first);
        const int64_t step_bytes = row_bytes(a.storage, step), bytes = ahead.bytes;
        for (int64_t i = 0; i < smaller(AHEAD, count); ++i) prefetch_row(ahead_of + i * step_bytes, bytes);
        const auto at = [=](int64_t i) {
            prefetch_row(ahead_of + smaller(i + AHEAD, count - 1) * step_bytes, bytes);
            return first + i * step;
        };
        read_rows(a.storage, from.data, count, at, a.size, a.padded, to);
    }

    template <typename Tile>
    void each_tile(Tile work) {
        int64_t tile[AXES], low[AXES];
        for (tile[0] = unit.first_row; tile[0] < unit.last_row; ++tile[0]) {
            pack(last_key(tile[0]));
            // the keys that the next row of tiles adds are asked for while this row is computed
            const int64_t high = tile[0] + 1 < unit.last_row ? larger(packed, last_key(tile[0] + 1)) : packed;
            const int64_t share = tiles_of((high - packed) * unit.plane(), unit.tiles[1] * unit.tiles[2]);
            KeyWalk k(a, unit, a.k, packed), v(a, unit, a.v, packed);
            for (tile[1] = 0; tile[1] < unit.tiles[1]; ++tile[1])
                for (tile[2] = 0; tile[2] < unit.tiles[2]; ++tile[2]) {
                    ahead.count = 0;
                    for (int64_t i = 0; i < share && k.i < high; ++i) {
                        ahead.add(row_at(a.storage, a.k.data, k.next()));
                        ahead.add(row_at(a.storage, a.v.data, v.next()));
                    }
                    const bool is_last = tile[2] + 1 == unit.tiles[2];
                    const int64_t next[AXES] = {tile[0], tile[1] + is_last, is_last ? 0 : tile[2] + 1};
                    if (next[1] < unit.tiles[1]) {
                        find_queries(next);
                        ask_for(q);
                        ask_for(a.is_backward ? grad_out : out);
                        if (a.is_backward) ask_for(out);
                    }
                    find_queries(tile);
                    if (a.is_backward) ask_for(dq);
                    list = lists.of(a, unit, tile, extent, low);
                    origin = (((low[0] - unit.low) * unit.length[1] + low[1]) * unit.length[2] + low[2]) * a.padded;
                    ahead.begin(list.count / KEYS * (1 + a.padded / STEP));
                    work();
                }
        }
    }

    int64_t last_key(int64_t row) const {
        return unit.end[0][smaller((row + 1) * a.tile[0], unit.length[0]) - 1];
    }

    void find_queries(const int64_t* tile) {
        for (Queries* each : {&q, &out, &lse}) each->find(tile);
        if (a.is_backward)
            for (Queries* each : {&grad_out, &grad_lse, &dq}) each->find(tile);
        int64_t inside[AXES];
        bool is_whole = true;
        for (int x = 0; x < AXES; ++x) {
            inside[x] = unit.length[x] - tile[x] * a.tile[x];
            is_whole &= inside[x] >= a.tile[x];
        }
        queries = ~uint32_t(0) >> (32 - places.count);
        if (is_whole) return;
        for (int x = 0; x < AXES; ++x)
            for (int64_t i = larger(inside[x], 0); i < a.tile[x]; ++i) queries &= ~lists.queries_at[x][i];
    }

    bool is_query(int i) const { return queries >> i & 1; }
    bool is_whole(int part) const { return (queries >> part * LANES & ALL_LANES) == ALL_LANES; }

    void ask_for(const Queries& from) {
        for (int i = 0; i < places.count; ++i)
            if (is_query(i)) ahead.add(row_at(a.storage, from.tensor.data, from.at(i)));
    }

    // A row for each query of a part; zeros where the tile leaves the grid.
    void read_part(const Queries& from, int part, float* rows) {
        const int64_t origin = from.origin, *query = from.query + part * LANES;
        if (is_whole(part)) {
            const Listed at{origin, query};
            read_rows(a.storage, from.tensor.data, LANES, at, a.size, a.padded, rows);
            return;
        }
        memset(rows, 0, LANES * a.padded * sizeof(float));
        for (int i = 0; i < LANES; ++i) {
            const Listed at{origin, query + i};
            if (is_query(part * LANES + i))
                read_rows(a.storage, from.tensor.data, 1, at, a.size, a.padded, rows + i * a.padded);
        }
    }

    void write_part(const float* rows, int part, const Queries& to) {
        const int64_t origin = to.origin, *query = to.query + part * LANES;
        if (is_whole(part)) {
            const Listed at{origin, query};
            write_rows(a.storage, rows, LANES, at, a.size, a.padded, to.tensor.data);
            return;
        }
        for (int i = 0; i < LANES; ++i) {
            const Listed at{origin, query + i};
            if (is_query(part * LANES + i))
                write_rows(a.storage, rows + i * a.padded, 1, at, a.size, a.padded, to.tensor.data);
        }
    }

    // The table as vectors: entry (key - tile's origin) holds the bias of every lane, zero where a lane has none.
    template <typename Entry>
    void each_bias(Entry entry) {
        int64_t side[AXES], at = 0;
        for (int x = 0; x < AXES; ++x) side[x] = 2 * a.window[x] - 1;
        for (int64_t i = 0; i < extent[0]; ++i)
            for (int64_t j = 0; j < extent[1]; ++j)
                for (int64_t k = 0; k < extent[2]; ++k)
                    for (int64_t x = i; x > i - part_size(a, 0); --x)
                        for (int64_t y = j; y > j - part_size(a, 1); --y)
                            for (int64_t z = k; z > k - part_size(a, 2); --z) {
                                const bool is_inside = x >= 0 && x < side[0] && y >= 0 && y < side[1] && z >= 0 &&
                                                       z < side[2];
                                entry(at++, is_inside ? (x * side[1] + y) * side[2] + z : -1);
                            }
    }

    int64_t table_floats() const {
        return (2 * a.window[0] - 1) * (2 * a.window[1] - 1) * (2 * a.window[2] - 1);
    }

    void begin_head(int64_t of_group) {
        head = unit.kv_head * (a.heads / a.kv_heads) + of_group;
        for (Queries* each : {&q, &out, &lse, &grad_out, &grad_lse, &dq}) each->begin(unit, head);
        if (!a.rpb) return;
        const float* table = a.rpb + head * table_floats();
        each_bias([&](int64_t at, int64_t from) { bias[at] = from < 0 ? 0 : table[from] * LOG2_E; });
        if (a.is_backward) memset(bias_grad, 0, entries * LANES * sizeof(float));
    }

    // Scores in units of log 2 of the N parts from `part` on for the list's keys [first, first + count); `most` becomes
    // the larger of them and of what it was.
    template <int N>
    NOINLINE void scores(int part, int64_t first, int64_t count, float* to, V* most) {
        // copies: the compiler must assume that a store of a vector changes every member
        const uint32_t* seen = list.lanes + first;
        const int64_t* entry = a.rpb ? list.bias + first : nullptr;
        const float* biases = bias - part * next_bias;
        const int64_t to_next = next_bias;
        const float* columns = q_columns + part * LANES * a.padded;
        const uint32_t everyone = (N == 2 ? ~uint32_t(0) : ALL_LANES) << part * LANES;
        V peak[N];
        for (int n = 0; n < N; ++n) peak[n] = most[n];
        dots<N>(columns, keys + origin, list.offset + first, count, a.padded, [&](int64_t j, V (&score)[N][KEYS]) {
            ahead.some();
            if (entry)
                for (int n = 0; n < N; ++n)
                    for (int i = 0; i < KEYS; ++i)
                        score[n][i] += load(biases - n * to_next + entry[j + i] * LANES);
            uint32_t all = everyone;
            for (int i = 0; i < KEYS; ++i) all &= seen[j + i];
            if (all != everyone)
                for (int n = 0; n < N; ++n)
                    for (int i = 0; i < KEYS; ++i)
                        score[n][i] = where(seen[j + i] >> (part + n) * LANES & ALL_LANES, score[n][i], HIDDEN);
            for (int n = 0; n < N; ++n)
                for (int i = 0; i < KEYS; ++i) store(to + (n * BLOCK + j + i) * LANES, score[n][i]);
            for (int n = 0; n < N; ++n) {
                for (int half = KEYS / 2; half; half /= 2)
                    for (int i = 0; i < half; ++i) score[n][i] = larger(score[n][i], score[n][i + half]);
                peak[n] = larger(peak[n], score[n][0]);
            }
        });
        for (int n = 0; n < N; ++n) most[n] = peak[n];
    }

    // weight = 2^(weight - most); returns their sum.
    static V exponentials(float* weight, int64_t count, V most) {
        V total[4] = {};
        for (int64_t j = 0; j < count; j += 4) {  // four chains: one alone waits for its own results
            V p[4];
            for (int i = 0; i < 4; ++i) p[i] = load(weight + (j + i) * LANES) - most;
            exp2(p);
            for (int i = 0; i < 4; ++i) {
                total[i] += p[i];
                store(weight + (j + i) * LANES, p[i]);
            }
        }
        return (total[0] + total[1]) + (total[2] + total[3]);
    }

    // work(first, count, part, parts) for the list's keys from `first` to `last`: those that one part sees, or both.
    template <typename Work>
    void each_run(int64_t first, int64_t last, Work work) {
        const int64_t cut[] = {0, list.first_shared, list.last_shared, list.count};
        for (int run = 0; run < 3; ++run) {
            const int64_t from = larger(first, cut[run]), to = smaller(last, cut[run + 1]);
            if (from < to) work(from, to - from, run == 2, run == 1 ? PARTS : 1);
        }
    }

    NOINLINE void forward_tile() {
        V most[PARTS], total[PARTS], factor[PARTS];
        for (int part = 0; part < parts; ++part) {
            float* rows = q_rows + part * LANES * a.padded;
            read_part(q, part, rows);
            columns_of(rows, a.padded, a.scale * LOG2_E, q_columns + part * LANES * a.padded);
            most[part] = splat(LEAST);
            total[part] = V{};
        }
        memset(sum, 0, places.count * a.padded * sizeof(float));
        for (int64_t first = 0; first < list.count; first += BLOCK) {
            const int64_t last = smaller(first + BLOCK, list.count);
            for (int part = 0; part < parts; ++part) factor[part] = most[part];
            each_run(first, last, [&](int64_t from, int64_t count, int part, int shared_by) {
                float* to = weight + (part * BLOCK + from - first) * LANES;
                if (shared_by == 1)
                    scores<1>(part, from, count, to, most + part);
                else
                    scores<PARTS>(0, from, count, to, most);
            });
            for (int part = 0; part < parts; ++part) {
                factor[part] = exp2(factor[part] - most[part]);
                const int64_t from = larger(first, list.begin(part)), to = smaller(last, list.end(part));
                total[part] = total[part] * factor[part] +
                              exponentials(weight + (part * BLOCK + from - first) * LANES, to - from, most[part]);
            }
            each_run(first, last, [&](int64_t from, int64_t count, int part, int shared_by) {
                const float* p = weight + (part * BLOCK + from - first) * LANES;
                const int64_t* offset = list.offset + from;
                float* to = sum + part * LANES * a.padded;
                if (shared_by == 1)
                    accumulate<1, STEP>(p, count, values + origin, offset, a.padded, factor + part, to, ahead);
                else
                    accumulate<PARTS, STEP / PARTS>(p, count, values + origin, offset, a.padded, factor, to, ahead);
                for (int n = part; n < part + shared_by; ++n) factor[n] = splat(1.0f);
            });
        }
        for (int part = 0; part < parts; ++part) {
            rows_of(sum + part * LANES * a.padded, a.padded, 1.0f / total[part], q_rows);
            write_part(q_rows, part, out);
            const V sums = most[part] * LN_2 + log(total[part]);
            for (int i = 0; i < LANES; ++i)
                if (is_query(part * LANES + i)) static_cast<float*>(a.lse.data)[lse.at(part * LANES + i)] = sums[i];
        }
    }

    void forward_unit(int64_t index) {
        begin(index);
        for (int64_t i = 0; i < a.heads / a.kv_heads; ++i) {
            begin_head(i);
            each_tile([&] { forward_tile(); });
        }
    }

    NOINLINE void backward_part(int part) {
        read_part(grad_out, part, grad_rows);
        columns_of(grad_rows, a.padded, 1.0f, grad_columns);
        read_part(out, part, q_rows);
        columns_of(q_rows, a.padded, 1.0f, sum);
        V sums = V{}, delta = V{};
        for (int64_t d = 0; d < a.padded; ++d) delta += load(grad_columns + d * LANES) * load(sum + d * LANES);
        read_part(q, part, q_rows);
        columns_of(q_rows, a.padded, a.scale * LOG2_E, q_columns + part * LANES * a.padded);
        for (int i = 0; i < LANES; ++i) {
            if (!is_query(part * LANES + i)) continue;
            sums[i] = static_cast<const float*>(a.lse.data)[lse.at(part * LANES + i)] * LOG2_E;
            if (a.grad_lse.data) delta[i] -= static_cast<const float*>(a.grad_lse.data)[grad_lse.at(part * LANES + i)];
        }
        memset(sum, 0, LANES * a.padded * sizeof(float));
        const V one = splat(1.0f);
        for (int64_t first = list.begin(part); first < list.end(part); first += BLOCK) {
            const int64_t count = smaller(BLOCK, list.end(part) - first);
            const int64_t* offset = list.offset + first;
            V most = V{};
            scores<1>(part, first, count, weight, &most);
            dots<1>(
                grad_columns, values + origin, offset, count, a.padded,
                [=, to = weight, to_grad = weight_grad](int64_t j, V (&grad)[1][KEYS]) {
                    V p[KEYS];
                    for (int i = 0; i < KEYS; ++i) p[i] = load(to + (j + i) * LANES) - sums;
                    exp2(p);
                    for (int i = 0; i < KEYS; ++i) {
                        store(to + (j + i) * LANES, p[i]);
                        store(to_grad + (j + i) * LANES, p[i] * (grad[0][i] - delta));
                    }
                });
            accumulate<1, STEP>(weight_grad, count, keys + origin, offset, a.padded, &one, sum, ahead);
            scatter(weight, count, grad_rows, a.padded, values_grad + origin, offset);
            scatter(weight_grad, count, q_rows, a.padded, keys_grad + origin, offset);
            if (a.rpb)
                for (int64_t j = 0; j < count; ++j) {
                    float* at = bias_grad + list.bias[first + j] * LANES - part * next_bias;
                    store(at, load(at) + load(weight_grad + j * LANES));
                }
        }
        rows_of(sum, a.padded, splat(a.scale), q_rows);
        write_part(q_rows, part, dq);
    }

    void backward_unit(int64_t index) {
        begin(index);
        const int64_t of_group = a.heads / a.kv_heads;
        for (int64_t i = 0; i < of_group; ++i) {
            begin_head(i);
            each_tile([&] {
                for (int part = 0; part < parts; ++part) backward_part(part);
            });
            if (!a.rpb) continue;
            float* table = a.bias_partial + index * a.bias_floats + i * table_floats();
            memset(table, 0, table_floats() * sizeof(float));
            each_bias([&](int64_t from, int64_t at) {
                if (at >= 0) table[at] += bias_grad[from];
            });
        }
        if (a.chunks > 1) return;
        for (int64_t row = 0; row < unit.rows(); ++row) {
            float* dk = keys_grad + row * a.padded;
            for (int64_t d = 0; d < a.padded; d += LANES) store(dk + d, load(dk + d) * a.scale);
            write_key(unit, row, dk, values_grad + row * a.padded);
        }
    }

    // Row `row` of the unit's packed keys goes to its token.
    void write_key(const Unit& u, int64_t row, const float* dk, const float* dv) {
        int64_t token[AXES];
        u.token(a, u.low + row / u.plane(), row / u.length[2] % u.length[1], row % u.length[2], token);
        const int64_t dk_at = a.dk.at(u.batch, token, u.kv_head), dv_at = a.dv.at(u.batch, token, u.kv_head);
        write_rows(a.storage, dk, 1, Listed{0, &dk_at}, a.size, a.padded, a.dk.data);
        write_rows(a.storage, dv, 1, Listed{0, &dv_at}, a.size, a.padded, a.dv.data);
    }

    // dK and dV of one key/value head of a group: the partial sums of its chunks, in their order.
    void reduce_keys(int64_t item) {
        Unit parts[64];
        for (int64_t c = 0; c < a.chunks; ++c) parts[c] = unit_of(a, item * a.chunks + c);
        Unit whole = parts[0];
        whole.low = 0;
        for (int64_t row = 0; row < whole.length[0] * whole.plane(); ++row) {
            const int64_t i = row / whole.plane();
            memset(q_rows, 0, 2 * a.padded * sizeof(float));
            for (int64_t c = 0; c < a.chunks; ++c) {
                if (i < parts[c].low || i >= parts[c].high) continue;
                const float* dk = a.partial + parts[c].index * a.partial_floats +
                                  (row - parts[c].low * whole.plane()) * a.padded;
                const float* dv = dk + a.partial_floats / 2;
                for (int64_t d = 0; d < a.padded; d += LANES) {
                    store(q_rows + d, load(q_rows + d) + load(dk + d) * a.scale);
                    store(q_rows + a.padded + d, load(q_rows + a.padded + d) + load(dv + d));
                }
            }
            write_key(whole, row, q_rows, q_rows + a.padded);
        }
    }

    // The gradient of one head's table: the partial sums of all its units, in their order.
    void reduce_bias(int64_t of_head) {
        const int64_t of_group = a.heads / a.kv_heads, floats = table_floats(), per_head = groups(a) * a.chunks;
        for (int64_t i = 0; i < floats; ++i) {
            double total = 0;
            for (int64_t b = 0; b < a.batch; ++b)
                for (int64_t u = 0; u < per_head; ++u) {
                    const int64_t index = (b * a.kv_heads + of_head / of_group) * per_head + u;
                    total += a.bias_partial[index * a.bias_floats + of_head % of_group * floats + i];
                }
            a.drpb[of_head * floats + i] = float(total);
        }
    }
};

// Key rows that the tiles of one axis touch in sum, for tiles of `size`.
int64_t visits(const Args& a, int x, int64_t size) {
    const int64_t length = tiles_of(a.length[x], a.dilation[x]);  // group 0 is the longest
    int64_t sum = 0;
    for (int64_t first = 0; first < length; first += size)
        sum += a.end[x][smaller(first + size, length) - 1] - a.start[x][first];
    return sum;
}

// The shape of LANES queries that visits the fewest keys; two of them where they share most of their keys.
void choose_tile(Args& a) {
    constexpr int64_t TILE_COST = 24;  // what a tile costs besides its keys, in keys
    double least = 0, keys_along[AXES][LANES + 1], tiles_along[AXES][LANES + 1];
    for (int x = 0; x < AXES; ++x)
        for (int64_t size = 1; size <= LANES; size *= 2) {
            keys_along[x][size] = double(visits(a, x, size));
            tiles_along[x][size] = double(tiles_of(tiles_of(a.length[x], a.dilation[x]), size));
        }
    for (int64_t t0 = 1; t0 <= LANES; t0 *= 2)
        for (int64_t t1 = 1; t0 * t1 <= LANES; t1 *= 2) {
            const int64_t tile[AXES] = {t0, t1, LANES / t0 / t1};
            double keys = 1, tiles = 1;
            for (int x = 0; x < AXES; ++x) {
                keys *= keys_along[x][tile[x]];
                tiles *= tiles_along[x][tile[x]];
            }
            const double cost = keys + TILE_COST * tiles;
            if (least != 0 && cost >= least) continue;
            least = cost;
            memcpy(a.tile, tile, sizeof tile);
        }
    const int along = parting(a);
    const double shared = double(a.window[along] - 1) / double(a.window[along] - 1 + a.tile[along]);
    if (shared > 0.8 && a.length[along] / a.dilation[along] > a.tile[along]) a.tile[along] *= PARTS;
}

template <typename Work>
void take_units(const Args& a, int64_t* counter, int64_t items, Work work) {
    const int64_t slot = __atomic_fetch_add(&const_cast<Args&>(a).workspaces_taken, 1, __ATOMIC_RELAXED);
    Carver memory{a.workspace + slot * a.workspace_bytes};
    Worker worker(a, memory);
    for (int64_t i; (i = __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)) < items;) work(worker, i);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Tile shape, units of work and the sizes of what the caller allocates. The cut of the backward pass must not follow
// the number of threads: its partial sums would be added in another order.
EXPORT void plan(Args* args) {
    Args& a = *args;
    a.padded = (a.size + STEP - 1) / STEP * STEP;
    choose_tile(a);
    const int64_t length = tiles_of(a.length[0], a.dilation[0]), items = a.batch * a.kv_heads * groups(a);
    const int64_t plane = tiles_of(a.length[1], a.dilation[1]) * tiles_of(a.length[2], a.dilation[2]);
    const int64_t most = larger(1, length / larger(a.tile[0], a.window[0] / 4));  // halos then stay below 5 n
    const int64_t packed_bytes = 2 * length * plane * a.padded * 4;
    int64_t wanted = tiles_of(16, items);
    if (!a.is_backward) wanted = larger(a.threads > 1 ? tiles_of(4 * a.threads, items) : 1, packed_bytes >> 18);
    a.chunks = smaller(smaller(wanted, most), 64);
    a.units = items * a.chunks;
    a.most_rows = 0;
    for (int64_t group = 0; group < a.dilation[0]; ++group)
        for (int64_t chunk = 0; chunk < a.chunks; ++chunk) {
            const Unit u = unit_of(a, group * a.dilation[1] * a.dilation[2] * a.chunks + chunk);
            a.most_rows = larger(a.most_rows, u.rows());
        }
    a.most_keys = 1;
    for (int x = 0; x < AXES; ++x) {
        int64_t reached = 0;
        for (int64_t group = 0; group < a.dilation[x]; ++group) {
            int64_t index = group, low;
            for (int y = x + 1; y < AXES; ++y) index *= a.dilation[y];
            const Unit u = unit_of(a, index * a.chunks);
            for (int64_t tile = 0; tile < u.tiles[x]; ++tile)
                reached = larger(reached, reach(u, x, tile, a.tile[x], &low));
        }
        a.most_keys *= reached;
    }
    a.partial_floats = a.is_backward && a.chunks > 1 ? 2 * a.most_rows * a.padded : 0;
    Carver counting{nullptr};
    Worker worker(a, counting);
    a.bias_floats = a.is_backward && a.rpb ? a.heads / a.kv_heads * worker.table_floats() : 0;
    a.workspace_bytes = (counting.taken + 4095) / 4096 * 4096;
}

EXPORT void forward(Args* args, int64_t* counter) {
    take_units(*args, counter, args->units, [](Worker& worker, int64_t i) { worker.forward_unit(i); });
}

EXPORT void backward(Args* args, int64_t* counter) {
    take_units(*args, counter, args->units, [](Worker& worker, int64_t i) { worker.backward_unit(i); });
}

// Adds what the units of `backward` left; its items are the key/value heads of each group, then the heads' tables.
EXPORT void reduce(Args* args, int64_t* counter) {
    const int64_t items = args->chunks > 1 ? args->units / args->chunks : 0;
    take_units(*args, counter, items + (args->rpb ? args->heads : 0), [=](Worker& worker, int64_t i) {
        i < items ? worker.reduce_keys(i) : worker.reduce_bias(i - items);
    });
}
