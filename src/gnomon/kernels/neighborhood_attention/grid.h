// The token grid as the kernels walk it: units of work, tiles of LANES queries, the list of keys that a tile sees.
// Every problem has three axes here; the missing ones have one token. All inside is in group coordinates.
#pragma once

#include <cstdint>
#include <cstring>

#include "vectors.h"

constexpr int AXES = 3;
constexpr int KEYS = 8;  // key lists are padded to a multiple of it

struct Tensor {
    void* data;
    int64_t stride[AXES + 2];  // in elements, of batch, the axes, heads; the head size is contiguous

    int64_t at(int64_t b, const int64_t* place, int64_t h) const {
        return b * stride[0] + place[0] * stride[1] + place[1] * stride[2] + place[2] * stride[3] + h * stride[4];
    }
};

struct Args {  // mirrored in cpu.py
    int64_t storage, batch, heads, kv_heads, size, is_backward, threads;
    float scale;
    int64_t length[AXES], window[AXES], dilation[AXES];
    const int64_t *start[AXES], *end[AXES];  // of every query, group after group
    Tensor q, k, v, out, lse, grad_out, grad_lse, dq, dk, dv;
    const float* rpb;  // null without a bias
    float* drpb;
    // set by plan()
    int64_t tile[AXES], chunks, units, padded, most_keys, most_rows, workspace_bytes, partial_floats, bias_floats;
    // set by the caller after plan()
    char* workspace;  // workspace_bytes for each thread
    int64_t workspaces_taken;
    float* partial;  // units * partial_floats: dK and dV of a unit, where other units add to the same keys
    float* bias_partial;  // units * bias_floats
};

static inline int64_t groups(const Args& a) { return a.dilation[0] * a.dilation[1] * a.dilation[2]; }

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t tiles_of(int64_t length, int64_t tile) { return (length + tile - 1) / tile; }

// A tile has one part, of LANES queries, or PARTS of them.
static inline int parts_of(const Args& a) { return int(a.tile[0] * a.tile[1] * a.tile[2] / LANES); }

// The axis along which the parts of a tile lie side by side: its longest side.
static inline int parting(const Args& a) {
    int longest = 0;
    for (int x = 1; x < AXES; ++x)
        if (a.tile[x] >= a.tile[longest]) longest = x;
    return longest;
}

static inline int64_t part_size(const Args& a, int x) { return x == parting(a) ? a.tile[x] / parts_of(a) : a.tile[x]; }

// Where the queries lie in their tile.
struct Places {
    int64_t place[QUERIES][AXES];
    int count;

    explicit Places(const Args& a) {
        int64_t begin[AXES] = {}, size[AXES];
        count = 0;
        for (int x = 0; x < AXES; ++x) size[x] = part_size(a, x);
        for (int part = 0; part < parts_of(a); ++part, begin[parting(a)] += size[parting(a)])
            for (int64_t i = 0; i < size[0]; ++i)
                for (int64_t j = 0; j < size[1]; ++j)
                    for (int64_t k = 0; k < size[2]; ++k, ++count) {
                        place[count][0] = begin[0] + i;
                        place[count][1] = begin[1] + j;
                        place[count][2] = begin[2] + k;
                    }
    }
};

// One key/value head of one dilation group, and of its tiles a run of rows along axis 0.
struct Unit {
    int64_t index, batch, kv_head, group[AXES], length[AXES], tiles[AXES];
    const int64_t *start[AXES], *end[AXES];
    int64_t first_row, last_row;  // of tiles
    int64_t low, high;            // keys along axis 0 that the run sees

    int64_t plane() const { return length[1] * length[2]; }
    int64_t rows() const { return (high - low) * plane(); }

    // The token at group coordinates, in the tensors' own.
    void token(const Args& a, int64_t i, int64_t j, int64_t k, int64_t* place) const {
        place[0] = i * a.dilation[0] + group[0];
        place[1] = j * a.dilation[1] + group[1];
        place[2] = k * a.dilation[2] + group[2];
    }
};

static Unit unit_of(const Args& a, int64_t index) {
    Unit u;
    u.index = index;
    const int64_t chunk = index % a.chunks;
    int64_t rest = index / a.chunks;
    for (int x = AXES - 1; x >= 0; --x) {
        u.group[x] = rest % a.dilation[x];
        rest /= a.dilation[x];
        const int64_t least = a.length[x] / a.dilation[x], longer = a.length[x] % a.dilation[x];
        const int64_t before = u.group[x] * least + smaller(u.group[x], longer);
        u.length[x] = least + (u.group[x] < longer);
        u.tiles[x] = tiles_of(u.length[x], a.tile[x]);
        u.start[x] = a.start[x] + before;
        u.end[x] = a.end[x] + before;
    }
    u.kv_head = rest % a.kv_heads;
    u.batch = rest / a.kv_heads;
    u.first_row = u.tiles[0] * chunk / a.chunks;
    u.last_row = u.tiles[0] * (chunk + 1) / a.chunks;
    const int64_t queries = smaller(u.last_row * a.tile[0], u.length[0]);
    const bool empty = u.first_row == u.last_row;
    u.low = empty ? 0 : u.start[0][u.first_row * a.tile[0]];
    u.high = empty ? 0 : u.end[0][queries - 1];
    return u;
}

// Keys along one axis of a tile: all that one of its queries sees.
static inline int64_t reach(const Unit& u, int x, int64_t tile, int64_t size, int64_t* low) {
    *low = u.start[x][tile * size];
    return u.end[x][smaller((tile + 1) * size, u.length[x]) - 1] - *low;
}

// The keys that a tile sees: offsets into the packed rows from the tile's first key, the queries that see each of them,
// and the entry of the first part's bias vectors. Keys that only the first part sees come first, then shared ones, then
// the second part's; each of the three repeats its last key, unseen, up to a multiple of KEYS.
struct KeyList {
    int64_t *offset, *bias;
    uint32_t* lanes;
    int64_t count, first_shared, last_shared;  // last: the one after

    int64_t begin(int part) const { return part ? first_shared : 0; }
    int64_t end(int part) const { return part ? count : last_shared; }

    int64_t pattern[AXES];
};

// Lists of the tiles of a grid. Two tiles have one list when the windows of their queries lie alike around them, so the
// tiles away from the edges share one; the last few lists are kept.
struct KeyLists {
    static constexpr int MOST = 32;
    KeyList list[MOST];
    int64_t slots, used, oldest, length[AXES];
    uint32_t queries_at[AXES][QUERIES];  // by their place along the axis
    int64_t* pattern[AXES];  // of each tile along the axis: the first tile that is like it
    uint32_t* seen[AXES];

    template <typename Memory>
    KeyLists(const Args& a, const Places& places, Memory& memory) : used(0), oldest(0), queries_at{} {
        slots = larger(1, smaller(MOST, 8192 / a.most_keys));
        for (int64_t i = 0; i < slots; ++i) {
            list[i].offset = memory.template take<int64_t>(a.most_keys + 5 * KEYS);
            list[i].bias = memory.template take<int64_t>(a.rpb ? a.most_keys + 4 * KEYS : 0);
            list[i].lanes = memory.template take<uint32_t>(a.most_keys + 4 * KEYS);
        }
        for (int x = 0; x < AXES; ++x) {
            length[x] = -1;
            for (int i = 0; i < places.count; ++i) queries_at[x][places.place[i][x]] |= uint32_t(1) << i;
            pattern[x] = memory.template take<int64_t>(a.length[x]);
            seen[x] = memory.template take<uint32_t>(a.most_keys);
        }
    }

    // Forget the lists unless the unit's grid is the last one's.
    void begin(const Args& a, const Unit& u) {
        bool is_same = true;
        for (int x = 0; x < AXES; ++x) {
            if (length[x] == u.length[x]) continue;
            is_same = false;
            length[x] = u.length[x];
            find_patterns(a, u, x);
        }
        if (!is_same) used = oldest = 0;
    }

    void find_patterns(const Args& a, const Unit& u, int x) {
        constexpr int64_t EARLIER = 24;  // patterns looked through: enough for both edges and what lies between
        int64_t known[EARLIER], count = 0;
        for (int64_t tile = 0; tile < u.tiles[x]; ++tile) {
            int64_t i = 0;
            while (i < count && !is_like(a, u, x, known[i], tile)) ++i;
            pattern[x][tile] = i < count ? known[i] : tile;
            if (i == count) known[count < EARLIER ? count++ : tile % EARLIER] = tile;
        }
    }

    static bool is_like(const Args& a, const Unit& u, int x, int64_t one, int64_t other) {
        const int64_t size = a.tile[x], shift = (other - one) * size;
        if (smaller(u.length[x] - one * size, size) != smaller(u.length[x] - other * size, size)) return false;
        for (int64_t q = one * size; q < smaller((one + 1) * size, u.length[x]); ++q)
            if (u.start[x][q] + shift != u.start[x][q + shift] || u.end[x][q] + shift != u.end[x][q + shift])
                return false;
        return true;
    }

    // The list of a tile; low: its first key along each axis.
    const KeyList& of(const Args& a, const Unit& u, const int64_t* tile, const int64_t* bias_extent, int64_t* low) {
        int64_t range[AXES];
        for (int x = 0; x < AXES; ++x) range[x] = reach(u, x, tile[x], a.tile[x], &low[x]);
        for (int64_t i = 0; i < used; ++i) {
            const int64_t* known = list[i].pattern;
            if (known[0] == pattern[0][tile[0]] && known[1] == pattern[1][tile[1]] && known[2] == pattern[2][tile[2]])
                return list[i];
        }
        KeyList& made = list[used < slots ? used++ : oldest++ % slots];
        make(a, u, tile, low, range, bias_extent, made);
        return made;
    }

    void make(const Args& a, const Unit& u, const int64_t* tile, const int64_t* low, const int64_t* range,
              const int64_t* bias_extent, KeyList& to) {
        int64_t from[AXES];
        for (int x = 0; x < AXES; ++x) {
            to.pattern[x] = pattern[x][tile[x]];
            from[x] = low[x] - tile[x] * a.tile[x] + a.window[x] - 1;
            memset(seen[x], 0, range[x] * sizeof(uint32_t));
            for (int64_t i = 0; i < a.tile[x] && tile[x] * a.tile[x] + i < u.length[x]; ++i) {
                const int64_t query = tile[x] * a.tile[x] + i;
                for (int64_t key = u.start[x][query]; key < u.end[x][query]; ++key)
                    seen[x][key - low[x]] |= queries_at[x][i];
            }
        }
        int64_t count = 0;
        const auto add_keys = [&](uint32_t which) {  // the parts that see a key, as bits
            const int64_t first = count;
            for (int64_t i = 0; i < range[0]; ++i)
                for (int64_t j = 0; j < range[1]; ++j) {
                    const uint32_t row = seen[0][i] & seen[1][j];
                    if (!row) continue;
                    for (int64_t k = 0; k < range[2]; ++k) {
                        const uint32_t lanes = row & seen[2][k];
                        const bool in_first = lanes & ALL_LANES, in_second = lanes & ~ALL_LANES;
                        if (uint32_t(in_first) + 2 * in_second != which) continue;
                        to.offset[count] = ((i * u.length[1] + j) * u.length[2] + k) * a.padded;
                        to.lanes[count] = lanes;
                        if (a.rpb)
                            to.bias[count] =
                                ((from[0] + i) * bias_extent[1] + from[1] + j) * bias_extent[2] + from[2] + k;
                        ++count;
                    }
                }
            if (count == first) return;
            for (const int64_t last = count - 1; count % KEYS; ++count) {
                to.offset[count] = to.offset[last];
                to.lanes[count] = 0;
                if (a.rpb) to.bias[count] = to.bias[last];
            }
        };
        add_keys(1);
        to.first_shared = count;
        add_keys(3);
        to.last_shared = count;
        add_keys(2);
        to.count = count;
        for (int64_t i = 0; i < KEYS; ++i) to.offset[count + i] = to.offset[count - 1];  // prefetched
    }
};
