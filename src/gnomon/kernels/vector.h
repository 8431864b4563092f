// What the CPU kernels share: vectors of one register, e^x, sums across lanes, memory of one thread.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef float vf_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

namespace {

// Memory of one thread, 64-byte aligned, zeroed.
template <typename T> struct Room {
    T* at;
    explicit Room(int64_t count) {
        const int64_t size = (std::max<int64_t>(count, 1) * int64_t(sizeof(T)) + 63) / 64 * 64;
        at = static_cast<T*>(std::aligned_alloc(64, size));
        if (!at) throw std::bad_alloc();
        std::memset(at, 0, size);
    }
    ~Room() { std::free(at); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;
};

// e^x for x <= 0, relative error below 2e-7: x = n ln 2 + r, then the series of Cephes' expf in r.
inline vf exponential(vf x) {
    const vf low = vf{} - 87.0f;
    const vf clamped = x > low ? x : low;
    const vf magic = vf{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const vf n = (clamped * 1.44269504f + magic) - magic;
    const vf r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    vf p = vf{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const vf power = (vf)((__builtin_convertvector(n, vi) + 127) << 23);
    return x < low ? vf{} : p * power;
}

#if defined(__AVX512F__)
constexpr vi NUMBER = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(__AVX2__)
constexpr vi NUMBER = {0, 1, 2, 3, 4, 5, 6, 7};
#else
constexpr vi NUMBER = {0, 1, 2, 3};
#endif

// Each lane joined with the one half a vector further on, then a quarter ...: log2(LANES) steps in registers.
template <typename Join> inline float across(vf x, Join join) {
#if defined(__clang__)
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] = join(vf{} + x[i], vf{} + x[i + half])[0];
#else
#pragma GCC unroll 4
    for (int half = LANES / 2; half; half /= 2) x = join(x, __builtin_shuffle(x, (NUMBER + half) & (LANES - 1)));
#endif
    return x[0];
}

inline float sum(vf x) {
    return across(x, [](vf a, vf b) { return a + b; });
}

inline float greatest(vf x) {
    return across(x, [](vf a, vf b) { return a > b ? a : b; });
}

}  // namespace
