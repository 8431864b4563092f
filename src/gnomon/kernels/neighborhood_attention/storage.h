// Rows of float32, bfloat16 or float16 in memory, float32 in the kernel.
#pragma once

#include <cstdint>
#include <cstring>

enum Storage : int64_t { FLOAT32, BFLOAT16, FLOAT16 };

static inline float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float from_bfloat16(uint16_t x) { return as_float(uint32_t(x) << 16); }

static inline uint16_t to_bfloat16(float x) {
    const uint32_t bits = as_bits(x), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    return uint16_t(x != x ? 0x7fc0 : rounded);
}

static inline float from_float16(uint16_t x) {
    const uint32_t magnitude = x & 0x7fff, sign = uint32_t(x & 0x8000) << 16;
    const float value = as_float(magnitude << 13) * as_float(0x77800000);  // 2^112 corrects the bias, subnormals too
    return as_float((magnitude >= 0x7c00 ? 0x7f800000 | magnitude << 13 : as_bits(value)) | sign);
}

static inline uint16_t to_float16(float x) {
    const uint32_t sign = as_bits(x) & 0x80000000, bits = as_bits(x) ^ sign;
    const uint32_t normal = (bits + 0xc8000fff + ((bits >> 13) & 1)) >> 13;   // rebiased by -112, ties to even
    const uint32_t subnormal = as_bits(as_float(bits) + 0.5f) - 0x3f000000;   // the addition rounds at 2^-24
    uint32_t half = bits < 0x38800000 ? subnormal : normal;
    half = bits >= 0x477ff000 ? 0x7c00 : half;  // 65520 and more
    half = bits > 0x7f800000 ? 0x7e00 : half;
    return uint16_t(half | sign >> 16);
}

template <typename T, typename Convert>
static inline void convert_in(const T* from, int64_t size, float* to, Convert convert) {
    int64_t i = 0;
    for (; i + 16 <= size; i += 16)
        for (int j = 0; j < 16; ++j) to[i + j] = convert(from[i + j]);
    for (; i < size; ++i) to[i] = convert(from[i]);
}

template <typename T, typename Convert>
static inline void convert_out(const float* from, int64_t size, T* to, Convert convert) {
    int64_t i = 0;
    for (; i + 16 <= size; i += 16)
        for (int j = 0; j < 16; ++j) to[i + j] = convert(from[i + j]);
    for (; i < size; ++i) to[i] = convert(from[i]);
}

// `size` elements from element `at` of a tensor; zeros up to `padded`.
template <Storage storage>
static inline void read_row(const void* tensor, int64_t at, int64_t size, int64_t padded, float* __restrict to) {
    if (storage == FLOAT32)
        convert_in(static_cast<const float*>(tensor) + at, size, to, [](float x) { return x; });
    else if (storage == BFLOAT16)
        convert_in(static_cast<const uint16_t*>(tensor) + at, size, to, from_bfloat16);
    else
        convert_in(static_cast<const uint16_t*>(tensor) + at, size, to, from_float16);
    for (int64_t i = size; i < padded; ++i) to[i] = 0;
}

template <Storage storage>
static inline void write_row(const float* __restrict from, int64_t size, void* tensor, int64_t at) {
    if (storage == FLOAT32)
        convert_out(from, size, static_cast<float*>(tensor) + at, [](float x) { return x; });
    else if (storage == BFLOAT16)
        convert_out(from, size, static_cast<uint16_t*>(tensor) + at, to_bfloat16);
    else
        convert_out(from, size, static_cast<uint16_t*>(tensor) + at, to_float16);
}

// Places `first + offset[i]` of rows.
struct Listed {
    int64_t first;
    const int64_t* offset;

    int64_t operator()(int64_t i) const { return first + offset[i]; }
};

template <Storage storage, typename At>
static __attribute__((noinline)) void read_rows_as(
    const void* tensor, int64_t count, At at, int64_t size, int64_t padded, float* to) {
    for (int64_t i = 0; i < count; ++i) read_row<storage>(tensor, at(i), size, padded, to + i * padded);
}

template <Storage storage, typename At>
static __attribute__((noinline)) void write_rows_as(
    const float* from, int64_t count, At at, int64_t size, int64_t padded, void* tensor) {
    for (int64_t i = 0; i < count; ++i) write_row<storage>(from + i * padded, size, tensor, at(i));
}

// `count` rows, row i from element at(i) on.
template <typename At>
static inline void read_rows(
    int64_t storage, const void* tensor, int64_t count, At at, int64_t size, int64_t padded, float* to) {
    if (storage == FLOAT32)
        read_rows_as<FLOAT32>(tensor, count, at, size, padded, to);
    else if (storage == BFLOAT16)
        read_rows_as<BFLOAT16>(tensor, count, at, size, padded, to);
    else
        read_rows_as<FLOAT16>(tensor, count, at, size, padded, to);
}

template <typename At>
static inline void write_rows(
    int64_t storage, const float* from, int64_t count, At at, int64_t size, int64_t padded, void* tensor) {
    if (storage == FLOAT32)
        write_rows_as<FLOAT32>(from, count, at, size, padded, tensor);
    else if (storage == BFLOAT16)
        write_rows_as<BFLOAT16>(from, count, at, size, padded, tensor);
    else
        write_rows_as<FLOAT16>(from, count, at, size, padded, tensor);
}

static inline const char* row_at(int64_t storage, const void* tensor, int64_t at) {
    return static_cast<const char*>(tensor) + at * (storage == FLOAT32 ? 4 : 2);
}

static inline int64_t row_bytes(int64_t storage, int64_t size) { return size * (storage == FLOAT32 ? 4 : 2); }

static inline void prefetch_row(const char* row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}
