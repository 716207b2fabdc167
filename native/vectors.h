/* Vectors of floats: the instructions of AVX-512, AVX2 with FMA, or NEON under common names.
 *
 * A sum over many numbers always runs in the same 16 lanes, whatever the width of a vector, so that
 * every instruction set gives the same bits. The file is compiled once for each instruction set. */
#ifndef HSOFTMAX_VECTORS_H
#define HSOFTMAX_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

/* The first `count` bytes of p, 0 to 8, as the low bytes of a number; nothing behind them is read. The
 * two reads of a number may overlap. */
INLINE uint64_t load_bytes(const void *p, int count) {
    const char *end = (const char *)p + count;
    if (count >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, end - 4, 4);
        return low | (uint64_t)high << (8 * (count - 4));
    }
    if (count >= 2) {
        uint16_t low, high;
        memcpy(&low, p, 2);
        memcpy(&high, end - 2, 2);
        return low | (uint64_t)high << (8 * (count - 2));
    }
    return count == 1 ? *(const uint8_t *)p : 0;
}

#if defined(__AVX512F__)
#include <immintrin.h>
#define INSTRUCTION_SET avx512
#define WIDTH 16
typedef __m512 vec;
INLINE vec vec_all(float x) { return _mm512_set1_ps(x); }
INLINE vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE vec vec_load_half(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE vec vec_load_bfloat(const uint16_t *p) { /* the upper halves of floats */
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}
INLINE vec vec_load_byte(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* The first `count` numbers, 1 to WIDTH, then zeros; nothing behind them is read. */
INLINE vec vec_load_some_half(const uint16_t *p, int count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), p));
}
INLINE vec vec_load_some_bfloat(const uint16_t *p, int count) {
    __m256i some = _mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(some), 16));
}
INLINE vec vec_load_some_byte(const int8_t *p, int count) {
    __m128i some = _mm_maskz_loadu_epi8((__mmask16)((1u << count) - 1), p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(some));
}
INLINE void vec_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
INLINE vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
/* x * 2^n for a whole n of -126 to 127 */
INLINE vec vec_scale(vec x, vec n) {
    __m512i bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_mul_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23)));
}
INLINE vec vec_round(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
/* The first `count` numbers of p, then zeros; nothing behind them is read. */
INLINE vec vec_load_some(const float *p, int count) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
}
/* Adds lanes 8 to 15 to lanes 0 to 7, then lanes 4 to 7 of these to lanes 0 to 3. */
INLINE void sum_to_four(const vec *parts, float *four) {
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(*parts), _mm512_extractf32x8_ps(*parts, 1));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    _mm_storeu_ps(four, sum);
}

#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define INSTRUCTION_SET avx2
#define WIDTH 8
typedef __m256 vec;
INLINE vec vec_all(float x) { return _mm256_set1_ps(x); }
INLINE vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE vec vec_load_half(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE vec vec_load_bfloat(const uint16_t *p) {
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
INLINE vec vec_load_byte(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE __m128i load_some_words(const uint16_t *p, int count) {
    const uint64_t low = load_bytes(p, count < 4 ? 2 * count : 8);
    return _mm_set_epi64x((long long)(count > 4 ? load_bytes(p + 4, 2 * count - 8) : 0),
                          (long long)low);
}
INLINE vec vec_load_some_half(const uint16_t *p, int count) {
    return _mm256_cvtph_ps(load_some_words(p, count));
}
INLINE vec vec_load_some_bfloat(const uint16_t *p, int count) {
    __m256i bits = _mm256_cvtepu16_epi32(load_some_words(p, count));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
INLINE vec vec_load_some_byte(const int8_t *p, int count) {
    __m128i bytes = _mm_cvtsi64_si128((long long)load_bytes(p, count));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
INLINE void vec_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
INLINE vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
INLINE vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
INLINE vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
INLINE vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec vec_scale(vec x, vec n) {
    __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23)));
}
INLINE vec vec_round(vec x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vec vec_load_some(const float *p, int count) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
}
INLINE void sum_to_four(const vec *parts, float *four) {
    __m256 eight = _mm256_add_ps(parts[0], parts[1]);
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    _mm_storeu_ps(four, sum);
}

#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define INSTRUCTION_SET neon
#define WIDTH 4
typedef float32x4_t vec;
INLINE vec vec_all(float x) { return vdupq_n_f32(x); }
INLINE vec vec_load(const float *p) { return vld1q_f32(p); }
INLINE vec vec_load_half(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
INLINE vec vec_load_bfloat(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
INLINE vec vec_load_byte(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
INLINE vec vec_load_some_half(const uint16_t *p, int count) {
    return vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(load_bytes(p, 2 * count))));
}
INLINE vec vec_load_some_bfloat(const uint16_t *p, int count) {
    uint16x4_t words = vreinterpret_u16_u64(vcreate_u64(load_bytes(p, 2 * count)));
    return vreinterpretq_f32_u32(vshll_n_u16(words, 16));
}
INLINE vec vec_load_some_byte(const int8_t *p, int count) {
    int8x8_t bytes = vreinterpret_s8_u64(vcreate_u64(load_bytes(p, count)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
INLINE void vec_store(float *p, vec x) { vst1q_f32(p, x); }
INLINE vec vec_add(vec a, vec b) { return vaddq_f32(a, b); }
INLINE vec vec_sub(vec a, vec b) { return vsubq_f32(a, b); }
INLINE vec vec_mul(vec a, vec b) { return vmulq_f32(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
INLINE vec vec_div(vec a, vec b) { return vdivq_f32(a, b); }
INLINE vec vec_max(vec a, vec b) { return vmaxq_f32(a, b); }
INLINE vec vec_scale(vec x, vec n) {
    int32x4_t bits = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(bits, 23)));
}
INLINE vec vec_round(vec x) { return vrndnq_f32(x); }
INLINE vec vec_load_some(const float *p, int count) {
    float lane[4] = {0};
    memcpy(lane, p, (size_t)count * sizeof(float));
    return vld1q_f32(lane);
}
INLINE void sum_to_four(const vec *parts, float *four) {
    vst1q_f32(four, vaddq_f32(vaddq_f32(parts[0], parts[2]), vaddq_f32(parts[1], parts[3])));
}

#else
#error "expected AVX-512, AVX2 with FMA, or NEON"
#endif

#define PARTS (LANES / WIDTH) /* vectors that hold 16 lanes */

/* exp of numbers of at most 0, to 2 units in the last place; of NaN it is NaN */
INLINE vec vec_exp(vec x) {
    x = vec_max(vec_all(-87.0f), x); /* 1.6e-38: nothing beside the largest term, which is 1; NaN stays */
    vec n = vec_round(vec_mul(x, vec_all(1.44269504f)));
    vec f = vec_fma(n, vec_all(-0.693359375f), x);
    f = vec_fma(n, vec_all(2.12194440e-4f), f);
    vec p = vec_all(1.9875691500e-4f);
    p = vec_fma(p, f, vec_all(1.3981999507e-3f));
    p = vec_fma(p, f, vec_all(8.3334519073e-3f));
    p = vec_fma(p, f, vec_all(4.1665795894e-2f));
    p = vec_fma(p, f, vec_all(1.6666665459e-1f));
    p = vec_fma(p, f, vec_all(5.0000001201e-1f));
    p = vec_fma(vec_mul(p, f), f, vec_add(f, vec_all(1.0f)));
    return vec_scale(p, n);
}

/* log(1 + t) for t of 0 to 1: 2 atanh(t / (2 + t)) as a series */
INLINE vec vec_log1p(vec t) {
    vec s = vec_div(t, vec_add(t, vec_all(2.0f))), z = vec_mul(s, s), sum = vec_all(1.0f / 15);
    for (int i = 13; i >= 3; i -= 2) sum = vec_fma(sum, z, vec_all(1.0f / (float)i));
    sum = vec_fma(sum, z, vec_all(1.0f));
    return vec_mul(vec_add(s, s), sum);
}

/* Adds the sums of four times 16 lanes to y[0..3], each in the order of `sum_lanes`. */
INLINE void add_four_sums(vec (*sums)[PARTS], float *y) {
    float four[4][4];
    for (int c = 0; c < 4; c++) sum_to_four(sums[c], four[c]);
#if WIDTH == 4
    float32x2_t two[4];
    for (int c = 0; c < 4; c++) two[c] = vadd_f32(vld1_f32(four[c]), vld1_f32(four[c] + 2));
    float32x4_t sum = vcombine_f32(vpadd_f32(two[0], two[1]), vpadd_f32(two[2], two[3]));
    vst1q_f32(y, vaddq_f32(vld1q_f32(y), sum));
#else
    __m128 a = _mm_loadu_ps(four[0]), b = _mm_loadu_ps(four[1]);
    __m128 c = _mm_loadu_ps(four[2]), d = _mm_loadu_ps(four[3]);
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    __m128 sum = _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
    _mm_storeu_ps(y, _mm_add_ps(_mm_loadu_ps(y), sum));
#endif
}

/* log sigmoid(z) = -(max(-z, 0) + log(1 + e^-|z|)) */
INLINE vec vec_log_sigmoid(vec z) {
    const vec zero = vec_all(0.0f), opposite = vec_sub(zero, z);
    const vec smaller = vec_sub(zero, vec_max(z, opposite));
    return vec_sub(zero, vec_add(vec_max(opposite, zero), vec_log1p(vec_exp(smaller))));
}

/* The sum of 16 lanes, always in the same order: lane[i] + lane[i + half] for half = 8, 4, 2, 1. */
INLINE float sum_lanes(const vec *parts) {
    float lane[4];
    sum_to_four(parts, lane);
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

#endif
