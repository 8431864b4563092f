// What the vector units of one core can do: independent fused multiply-adds on registers, nothing else.
#include <cstdint>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float V __attribute__((vector_size(LANES * 4)));
constexpr int CHAINS = 12;  // two units times a latency of four cycles need eight

// rounds * 12 * LANES multiply-adds; flop: set to two per multiply-add; sum: so that no compiler drops the work.
extern "C" __attribute__((visibility("default"))) void multiply_add(int64_t rounds, double* flop, float* sum) {
    V chain[CHAINS];
    for (int j = 0; j < CHAINS; ++j) chain[j] = V{} + float(j);  // alike, they would become one
    const V factor = V{} + 0.999f, term = V{} + 0.1f;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; ++j) chain[j] = chain[j] * factor + term;
    *sum = 0;
    for (const V& one : chain) *sum += one[0];
    *flop = 2.0 * double(rounds) * CHAINS * LANES;
}
