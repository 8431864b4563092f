// Neighborhood attention and its gradient. LANES queries of a spatial tile make one vector, so scores need no sums
// across lanes: score[key] += Q^T[d] * k[d] for 8 keys at once, a vector exp, then O^T[d] += P * v[d]. The keys of one
// (batch, head, dilation group) are packed as float32 rows first; masks are compared lane by lane, once per list of keys.
#include "grid.h"
#include "storage.h"
#include "vectors.h"

namespace {

#define NOINLINE __attribute__((noinline))  // each is entered once per tile; inlined they take 15 s to compile

constexpr int BLOCK = 128;          // keys between two updates of the running maximum; their scores stay in L1
constexpr float HIDDEN = -2e30f;    // the score of a key that is not seen
constexpr float LEAST = -1e30f;     // where the running maximum starts: HIDDEN - LEAST still gives P = 0
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

// sum[j] = columns^T rows[j], for KEYS packed rows.
NOINLINE void dots(const float* columns, const float* rows, const int64_t* offset, int64_t padded, V (&sum)[KEYS]) {
    const float* at[KEYS];
    for (int j = 0; j < KEYS; ++j) {
        at[j] = rows + offset[j];
        sum[j] = V{};
    }
    for (int64_t d = 0; d < padded; d += STEP) {
#pragma GCC unroll 16
        for (int e = 0; e < STEP; ++e) {
            const V x = load(columns + (d + e) * LANES);
#pragma GCC unroll 8
            for (int j = 0; j < KEYS; ++j) sum[j] += x * at[j][d + e];
        }
    }
}

// columns[d] = columns[d] * factor + sum over keys of weight[key] * rows[key][d].
NOINLINE void accumulate(
    const float* weight, int64_t count, const float* rows, const int64_t* offset, int64_t padded, V factor,
    float* columns) {
    for (int64_t d = 0; d < padded; d += STEP) {
        V sum[STEP];
#pragma GCC unroll 16
        for (int e = 0; e < STEP; ++e) sum[e] = load(columns + (d + e) * LANES) * factor;
        for (int64_t j = 0; j < count; ++j) {
            const V p = load(weight + j * LANES);
            const float* row = rows + offset[j] + d;
#pragma GCC unroll 16
            for (int e = 0; e < STEP; ++e) sum[e] += p * row[e];
        }
#pragma GCC unroll 16
        for (int e = 0; e < STEP; ++e) store(columns + (d + e) * LANES, sum[e]);
    }
}

// target[key][d] += sum over lanes of weight[key][lane] * rows[lane][d], for `WIDTH` vectors of d and `MANY` keys.
template <int MANY, int WIDTH>
inline void scatter_block(
    const float* weight, int64_t count, const float* rows, int64_t padded, float* target, const int64_t* offset) {
    V sum[MANY][WIDTH] = {};
    for (int lane = 0; lane < LANES; ++lane) {
        V x[WIDTH];
        for (int c = 0; c < WIDTH; ++c) x[c] = load(rows + lane * padded + c * LANES);
#pragma GCC unroll 8
        for (int j = 0; j < MANY; ++j)
            for (int c = 0; c < WIDTH; ++c) sum[j][c] += x[c] * weight[j * LANES + lane];
    }
    for (int j = 0; j < MANY; ++j) {
        if (j >= count) break;  // padding repeats a key and must not store over it
        for (int c = 0; c < WIDTH; ++c) {
            float* at = target + offset[j] + c * LANES;
            store(at, load(at) + sum[j][c]);
        }
    }
}

NOINLINE void scatter(
    const float* weight, int64_t count, const float* rows, int64_t padded, float* target, const int64_t* offset) {
    constexpr int MANY = LANES == 16 ? 8 : 4;
    for (int64_t j = 0; j < count; j += MANY) {
        int64_t d = 0;
        for (; d + 2 * LANES <= padded; d += 2 * LANES)
            scatter_block<MANY, 2>(weight + j * LANES, count - j, rows + d, padded, target + d, offset + j);
        for (; d < padded; d += LANES)
            scatter_block<MANY, 1>(weight + j * LANES, count - j, rows + d, padded, target + d, offset + j);
    }
}

NOINLINE void columns_of(const float* rows, int64_t padded, float factor, float* columns) {
    for (int64_t d = 0; d < padded; d += LANES) {
        V block[LANES];
        for (int i = 0; i < LANES; ++i) block[i] = load(rows + i * padded + d) * factor;
        transpose(block);
        for (int i = 0; i < LANES; ++i) store(columns + (d + i) * LANES, block[i]);
    }
}

NOINLINE void rows_of(const float* columns, int64_t padded, V factor, float* rows) {
    for (int64_t d = 0; d < padded; d += LANES) {
        V block[LANES];
        for (int i = 0; i < LANES; ++i) block[i] = load(columns + (d + i) * LANES) * factor;
        transpose(block);
        for (int i = 0; i < LANES; ++i) store(rows + i * padded + d, block[i]);
    }
}

// Cuts the workspace of a thread into arrays; with null it only counts.
struct Carver {
    char* at;
    int64_t taken = 0;
    template <typename T>
    T* take(int64_t count) {
        T* here = reinterpret_cast<T*>(at + taken);
        taken += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
        return at ? here : nullptr;
    }
};

struct Worker {
    const Args& a;
    int64_t extent[AXES], entries;  // of the bias vectors: 2 w - 1 + tile - 1 along each axis
    float *keys, *values, *keys_grad, *values_grad, *bias, *bias_grad;
    float *q_rows, *q_columns, *sum, *grad_rows, *grad_columns, *weight, *weight_grad;
    KeyList list;
    Unit unit;
    int64_t place[LANES][AXES], head;
    bool is_query[LANES];

    Worker(const Args& args, Carver& memory) : a(args) {
        entries = 1;
        for (int x = 0; x < AXES; ++x) entries *= extent[x] = 2 * a.window[x] - 1 + a.tile[x] - 1;
        const int64_t tile_floats = LANES * a.padded, packed = a.most_rows * a.padded;
        keys = memory.take<float>(packed);
        values = memory.take<float>(packed);
        bias = memory.take<float>(a.rpb ? entries * LANES : 0);
        q_rows = memory.take<float>(tile_floats);
        q_columns = memory.take<float>(tile_floats);
        sum = memory.take<float>(tile_floats);
        weight = memory.take<float>(BLOCK * LANES);
        list.offset = memory.take<int64_t>(a.most_keys + KEYS);
        list.bias = memory.take<int64_t>(a.most_keys + KEYS);
        list.lanes = memory.take<uint32_t>(a.most_keys + KEYS);
        for (int x = 0; x < AXES; ++x) list.seen[x] = memory.take<uint32_t>(a.most_keys);
        if (!a.is_backward) return;
        if (a.chunks == 1) {
            keys_grad = memory.take<float>(packed);
            values_grad = memory.take<float>(packed);
        }
        bias_grad = memory.take<float>(a.rpb ? entries * LANES : 0);
        grad_rows = memory.take<float>(tile_floats);
        grad_columns = memory.take<float>(tile_floats);
        weight_grad = memory.take<float>(BLOCK * LANES);
    }

    void begin(int64_t index) {
        unit = unit_of(a, index);
        list.is_made = false;
        pack(a.k, keys);
        pack(a.v, values);
        if (!a.is_backward) return;
        if (a.chunks > 1) {
            keys_grad = a.partial + index * a.partial_floats;
            values_grad = keys_grad + a.partial_floats / 2;
        }
        memset(keys_grad, 0, unit.rows() * a.padded * sizeof(float));
        memset(values_grad, 0, unit.rows() * a.padded * sizeof(float));
    }

    void pack(const Tensor& from, float* to) {
        int64_t token[AXES];
        for (int64_t i = unit.low; i < unit.high; ++i)
            for (int64_t j = 0; j < unit.length[1]; ++j)
                for (int64_t k = 0; k < unit.length[2]; ++k, to += a.padded) {
                    unit.token(a, i, j, k, token);
                    const int64_t at = from.at(unit.batch, token, unit.kv_head);
                    read_row(a.storage, from.data, at, a.size, a.padded, to);
                }
    }

    template <typename Tile>
    void each_tile(Tile work) {
        int64_t tile[AXES];
        for (tile[0] = unit.first_row; tile[0] < unit.last_row; ++tile[0])
            for (tile[1] = 0; tile[1] < unit.tiles[1]; ++tile[1])
                for (tile[2] = 0; tile[2] < unit.tiles[2]; ++tile[2]) {
                    find_queries(tile);
                    list.update(a, unit, tile, extent);
                    work();
                }
    }

    void find_queries(const int64_t* tile) {
        int lane = 0;
        for (int64_t i = tile[0] * a.tile[0]; i < (tile[0] + 1) * a.tile[0]; ++i)
            for (int64_t j = tile[1] * a.tile[1]; j < (tile[1] + 1) * a.tile[1]; ++j)
                for (int64_t k = tile[2] * a.tile[2]; k < (tile[2] + 1) * a.tile[2]; ++k, ++lane) {
                    is_query[lane] = i < unit.length[0] && j < unit.length[1] && k < unit.length[2];
                    unit.token(a, i, j, k, place[lane]);
                }
    }

    // A row for each query of the tile; zeros where the tile leaves the grid.
    void read_tile(const Tensor& from, float* rows) {
        for (int lane = 0; lane < LANES; ++lane) {
            float* row = rows + lane * a.padded;
            if (is_query[lane])
                read_row(a.storage, from.data, from.at(unit.batch, place[lane], head), a.size, a.padded, row);
            else
                memset(row, 0, a.padded * sizeof(float));
        }
    }

    void write_tile(const float* rows, const Tensor& to) {
        for (int lane = 0; lane < LANES; ++lane)
            if (is_query[lane])
                write_row(a.storage, rows + lane * a.padded, a.size, to.data, to.at(unit.batch, place[lane], head));
    }

    // The table as vectors: entry (key - tile's origin) holds the bias of every lane, zero where a lane has none.
    template <typename Entry>
    void each_bias(Entry entry) {
        int64_t side[AXES], at[AXES];
        for (int x = 0; x < AXES; ++x) side[x] = 2 * a.window[x] - 1;
        for (int64_t i = 0; i < entries; ++i)
            for (int lane = 0; lane < LANES; ++lane) {
                at[2] = i % extent[2] - lane % a.tile[2];
                at[1] = i / extent[2] % extent[1] - lane / a.tile[2] % a.tile[1];
                at[0] = i / extent[2] / extent[1] - lane / a.tile[2] / a.tile[1];
                bool is_inside = true;
                for (int x = 0; x < AXES; ++x) is_inside &= at[x] >= 0 && at[x] < side[x];
                entry(i * LANES + lane, is_inside ? (at[0] * side[1] + at[1]) * side[2] + at[2] : -1);
            }
    }

    int64_t table_floats() const {
        return (2 * a.window[0] - 1) * (2 * a.window[1] - 1) * (2 * a.window[2] - 1);
    }

    void begin_head(int64_t of_group) {
        head = unit.kv_head * (a.heads / a.kv_heads) + of_group;
        if (!a.rpb) return;
        const float* table = a.rpb + head * table_floats();
        each_bias([&](int64_t at, int64_t from) { bias[at] = from < 0 ? 0 : table[from] * LOG2_E; });
        if (a.is_backward) memset(bias_grad, 0, entries * LANES * sizeof(float));
    }

    // Scores in units of log 2 for the list's keys [first, first + count); returns the larger of them and `most`.
    NOINLINE V scores(int64_t first, int64_t count, V most) {
        for (int64_t j = 0; j < count; j += KEYS) {
            V score[KEYS];
            const int64_t at = first + j;
            dots(q_columns, keys + list.base, list.offset + at, a.padded, score);
            if (a.rpb)
                for (int i = 0; i < KEYS; ++i) score[i] += load(bias + list.bias[at + i] * LANES);
            uint32_t all = ALL_LANES;
            for (int i = 0; i < KEYS; ++i) all &= list.lanes[at + i];
            if (all != ALL_LANES)
                for (int i = 0; i < KEYS; ++i) score[i] = where(list.lanes[at + i], score[i], HIDDEN);
            for (int i = 0; i < KEYS; ++i) {
                most = larger(most, score[i]);
                store(weight + (j + i) * LANES, score[i]);
            }
        }
        return most;
    }

    NOINLINE void forward_tile() {
        read_tile(a.q, q_rows);
        columns_of(q_rows, a.padded, a.scale * LOG2_E, q_columns);
        memset(sum, 0, LANES * a.padded * sizeof(float));
        V most = splat(LEAST), total = V{};
        for (int64_t first = 0; first < list.padded_count; first += BLOCK) {
            const int64_t count = smaller(BLOCK, list.padded_count - first);
            const V before = most;
            most = scores(first, count, most);
            const V factor = exp2(before - most);
            total *= factor;
            for (int64_t j = 0; j < count; ++j) {
                const V p = exp2(load(weight + j * LANES) - most);
                total += p;
                store(weight + j * LANES, p);
            }
            accumulate(weight, count, values + list.base, list.offset + first, a.padded, factor, sum);
        }
        rows_of(sum, a.padded, 1.0f / total, q_rows);
        write_tile(q_rows, a.out);
        const V lse = most * LN_2 + log(total);
        for (int lane = 0; lane < LANES; ++lane)
            if (is_query[lane])
                static_cast<float*>(a.lse.data)[a.lse.at(unit.batch, place[lane], head)] = lse[lane];
    }

    void forward_unit(int64_t index) {
        begin(index);
        for (int64_t i = 0; i < a.heads / a.kv_heads; ++i) {
            begin_head(i);
            each_tile([&] { forward_tile(); });
        }
    }

    NOINLINE void backward_tile() {
        read_tile(a.grad_out, grad_rows);
        columns_of(grad_rows, a.padded, 1.0f, grad_columns);
        read_tile(a.out, q_rows);
        columns_of(q_rows, a.padded, 1.0f, sum);
        V lse = V{}, delta = V{};
        for (int64_t d = 0; d < a.padded; ++d) delta += load(grad_columns + d * LANES) * load(sum + d * LANES);
        read_tile(a.q, q_rows);
        columns_of(q_rows, a.padded, a.scale * LOG2_E, q_columns);
        for (int lane = 0; lane < LANES; ++lane) {
            if (!is_query[lane]) continue;
            lse[lane] = static_cast<const float*>(a.lse.data)[a.lse.at(unit.batch, place[lane], head)] * LOG2_E;
            if (a.grad_lse.data)
                delta[lane] -=
                    static_cast<const float*>(a.grad_lse.data)[a.grad_lse.at(unit.batch, place[lane], head)];
        }
        memset(sum, 0, LANES * a.padded * sizeof(float));
        for (int64_t first = 0; first < list.padded_count; first += BLOCK) {
            const int64_t count = smaller(BLOCK, list.padded_count - first);
            const int64_t real = smaller(count, list.count - first);
            const int64_t* offset = list.offset + first;
            scores(first, count, V{});
            for (int64_t j = 0; j < count; j += KEYS) {
                V grad[KEYS];
                dots(grad_columns, values + list.base, offset + j, a.padded, grad);
                for (int i = 0; i < KEYS; ++i) {
                    const V p = exp2(load(weight + (j + i) * LANES) - lse);
                    store(weight + (j + i) * LANES, p);
                    store(weight_grad + (j + i) * LANES, p * (grad[i] - delta));
                }
            }
            accumulate(weight_grad, count, keys + list.base, offset, a.padded, splat(1.0f), sum);
            scatter(weight, real, grad_rows, a.padded, values_grad + list.base, offset);
            scatter(weight_grad, real, q_rows, a.padded, keys_grad + list.base, offset);
            if (a.rpb)
                for (int64_t j = 0; j < real; ++j) {
                    float* at = bias_grad + list.bias[first + j] * LANES;
                    store(at, load(at) + load(weight_grad + j * LANES));
                }
        }
        rows_of(sum, a.padded, splat(a.scale), q_rows);
        write_tile(q_rows, a.dq);
    }

    void backward_unit(int64_t index) {
        begin(index);
        const int64_t of_group = a.heads / a.kv_heads;
        for (int64_t i = 0; i < of_group; ++i) {
            begin_head(i);
            each_tile([&] { backward_tile(); });
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
        write_row(a.storage, dk, a.size, a.dk.data, a.dk.at(u.batch, token, u.kv_head));
        write_row(a.storage, dv, a.size, a.dv.data, a.dv.at(u.batch, token, u.kv_head));
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

// The shape of LANES queries that visits the fewest keys.
void choose_tile(Args& a) {
    constexpr int64_t TILE_COST = 24;  // what a tile costs besides its keys, in keys
    double least = 0;
    for (int64_t t0 = 1; t0 <= LANES; t0 *= 2)
        for (int64_t t1 = 1; t0 * t1 <= LANES; t1 *= 2) {
            const int64_t tile[AXES] = {t0, t1, LANES / t0 / t1};
            double keys = 1, tiles = 1;
            for (int x = 0; x < AXES; ++x) {
                keys *= double(visits(a, x, tile[x]));
                tiles *= double(tiles_of(tiles_of(a.length[x], a.dilation[x]), tile[x]));
            }
            const double cost = keys + TILE_COST * tiles;
            if (least != 0 && cost >= least) continue;
            least = cost;
            memcpy(a.tile, tile, sizeof tile);
        }
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
    if (!a.is_backward) wanted = larger(a.threads > 1 ? tiles_of(4 * a.threads, items) : 1, packed_bytes >> 20);
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
