// Where things lie: the arrays of a thread in its workspace, keys and queries in the tensors.
#pragma once

#include "grid.h"

namespace {

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

// Where the keys of a unit lie in a tensor, in the order of their packed rows, from a place on axis 0 on.
struct KeyWalk {
    const int64_t* length;
    int64_t i, j = 0, k = 0, step[AXES], at[AXES];  // at[x]: with the later axes at their start

    KeyWalk(const Args& a, const Unit& u, const Tensor& tensor, int64_t low) : length(u.length), i(low) {
        int64_t token[AXES];
        u.token(a, low, 0, 0, token);
        for (int x = 0; x < AXES; ++x) {
            step[x] = tensor.stride[x + 1] * a.dilation[x];
            at[x] = tensor.at(u.batch, token, u.kv_head);
        }
    }

    int64_t next() {
        const int64_t here = at[2];
        at[2] += step[2];
        if (++k < length[2]) return here;
        k = 0;
        at[2] = at[1] += step[1];
        if (++j < length[1]) return here;
        j = 0;
        at[2] = at[1] = at[0] += step[0];
        ++i;
        return here;
    }
};

// Where the queries of a tile lie in a tensor.
struct Queries {
    const Tensor& tensor;
    int64_t first, step[AXES], origin, query[QUERIES];

    Queries(const Args& a, const Places& places, const Tensor& of) : tensor(of) {
        for (int x = 0; x < AXES; ++x) step[x] = a.tile[x] * a.dilation[x] * of.stride[x + 1];
        for (int64_t i = 0; i < places.count; ++i) {
            query[i] = 0;
            for (int x = 0; x < AXES; ++x) query[i] += places.place[i][x] * a.dilation[x] * of.stride[x + 1];
        }
    }

    void begin(const Unit& u, int64_t head) { first = tensor.at(u.batch, u.group, head); }
    void find(const int64_t* tile) { origin = first + tile[0] * step[0] + tile[1] * step[1] + tile[2] * step[2]; }
    int64_t at(int i) const { return origin + query[i]; }
};

}  // namespace
