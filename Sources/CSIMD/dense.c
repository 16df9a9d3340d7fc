#include "csimd_dense.h"

#include "csimd_codec.h"
#include "level_dispatch.h"

#include <math.h>
#include <string.h>

// Vectors wider than the baseline's registers never cross a call: everything that takes one is inlined.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float vf16 __attribute__((vector_size(64)));
typedef float vf8 __attribute__((vector_size(32)));
typedef float vf4 __attribute__((vector_size(16)));
typedef _Float16 vh16 __attribute__((vector_size(32)));
typedef int8_t vi8 __attribute__((vector_size(16)));
typedef uint16_t vu16 __attribute__((vector_size(32)));
typedef uint32_t vu32 __attribute__((vector_size(64)));
typedef int32_t vi16 __attribute__((vector_size(64)));

#define JOIN(a, b) a##_##b

enum { FETCH_AHEAD = 8192 }; // bytes of weights

// Values of the E4M3 bytes that are block scales; filled when the program starts.
static float e4m3_scales[256];

__attribute__((constructor)) static void fill_e4m3_scales(void) {
  for (uint32_t byte = 0; byte < 0x7f; byte++) {
    uint32_t bits = byte << 20;
    float value;
    memcpy(&value, &bits, sizeof value);
    e4m3_scales[byte] = value * 0x1p120f;
  }
}

int64_t nb_weight_row_bytes(nb_weight_type type, int64_t width) {
  switch (type) {
  case NB_WEIGHT_F32: return width * 4;
  case NB_WEIGHT_BF16:
  case NB_WEIGHT_F16: return width * 2;
  case NB_WEIGHT_FP8_E4M3: return width;
  case NB_WEIGHT_NVFP4: return (width + 127) / 128 * 64 + (width + 15) / 16;
  }
  return 0;
}

// E2M1 codes in the low nibbles of 32-bit lanes, as floats.
static inline vf16 e2m1_values_portable(vu32 words) {
  vu32 bits = (words & 7) << 22 | (words & 8) << 28; // the value times 2^-126
  return (vf16)bits * 0x1p126f;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2,fma,f16c"), always_inline)) static inline vf16 e2m1_values_avx2(vu32 words) {
  // The permutation reads the low three bits of an index: the magnitude; the sign is moved on top.
  const __m256 magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
  __m256i halves[2];
  memcpy(halves, &words, sizeof halves);
  __m256 values[2];
  for (int i = 0; i < 2; i++) {
    __m256i sign = _mm256_slli_epi32(_mm256_and_si256(halves[i], _mm256_set1_epi32(8)), 28);
    values[i] = _mm256_or_ps(_mm256_permutevar8x32_ps(magnitudes, halves[i]), _mm256_castsi256_ps(sign));
  }
  vf16 result;
  memcpy(&result, values, sizeof result);
  return result;
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"), always_inline)) static inline vf16
e2m1_values_avx512(vu32 words) {
  const __m512 values =
      _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
  return (vf16)_mm512_permutexvar_ps((__m512i)words, values);
}
#endif

#define NAME(x) JOIN(x, portable)
#define TILE_ROWS 4
#define TILE_COLUMNS 2
#include "weight_loads.inc.h"
#include "dense_kernels.inc.h"
#undef NAME
#undef TILE_ROWS
#undef TILE_COLUMNS

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define NAME(x) JOIN(x, avx2)
#define TILE_ROWS 3
#define TILE_COLUMNS 2
#include "weight_loads.inc.h"
#include "dense_kernels.inc.h"
#undef NAME
#undef TILE_ROWS
#undef TILE_COLUMNS
#pragma clang attribute pop

#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"), min_vector_width(512))),                \
    apply_to = function)
#define NAME(x) JOIN(x, avx512)
#define TILE_ROWS 6
#define TILE_COLUMNS 4
#include "weight_loads.inc.h"
#include "dense_kernels.inc.h"
#undef NAME
#undef TILE_ROWS
#undef TILE_COLUMNS
#pragma clang attribute pop
#endif

void nb_linear(nb_level level, nb_weight_type type, const void *weights, int64_t width, int64_t first, int64_t end,
               const float *factors, const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
               int64_t y_stride, int accumulate) {
  DISPATCH(level, linear, type, weights, width, first, end, factors, bias, x, x_stride, rows, y, y_stride, accumulate);
}

void nb_weight_row(nb_level level, nb_weight_type type, const void *weights, int64_t width, int64_t index, float *out) {
  DISPATCH(level, weight_row, type, weights, width, index, out);
}

void nb_rms_norm(nb_level level, const float *x, const float *weight, int64_t width, float epsilon, float *out) {
  DISPATCH(level, rms_norm, x, weight, width, epsilon, out);
}

void nb_silu_multiply(nb_level level, const float *gate, const float *up, int64_t count, float *out) {
  DISPATCH(level, silu_multiply, gate, up, count, out);
}

void nb_rotate(nb_level level, float *x, const float *cosines, const float *sines, int64_t pairs, int interleaved) {
  DISPATCH(level, rotate, x, cosines, sines, pairs, interleaved);
}

void nb_norm_rotate_heads(nb_level level, float *x, int64_t count, int64_t width, const float *weight, float epsilon,
                          const float *cosines, const float *sines, int64_t pairs, int interleaved) {
  DISPATCH(level, norm_rotate_heads, x, count, width, weight, epsilon, cosines, sines, pairs, interleaved);
}

float nb_weight_encode_row(nb_level level, nb_weight_type type, const float *row, int64_t width, void *out) {
  float largest = 0;
  for (int64_t k = 0; k < width; k++) {
    float magnitude = fabsf(row[k]);
    if (magnitude > largest && magnitude <= 3.4028234e38f) largest = magnitude;
  }
  nb_encode_statistics ignored = {0};
  switch (type) {
  case NB_WEIGHT_F32: memcpy(out, row, width * sizeof(float)); return 1;
  case NB_WEIGHT_F16:
    for (int64_t k = 0; k < width; k++) {
      _Float16 half = (_Float16)row[k];
      memcpy((uint8_t *)out + 2 * k, &half, sizeof half);
    }
    return 1;
  case NB_WEIGHT_BF16: nb_encode_row(level, NB_BF16, row, (int)width, 1, out, NULL, &ignored); return 1;
  case NB_WEIGHT_FP8_E4M3: {
    float factor = largest > 0 ? largest / 448 : 1;
    nb_encode_row(level, NB_FP8_E4M3, row, (int)width, factor, out, NULL, &ignored);
    return factor;
  }
  case NB_WEIGHT_NVFP4: {
    float factor = largest > 0 ? largest / (6 * 448) : 1;
    int64_t groups = (width + 127) / 128;
    uint8_t *scales = (uint8_t *)out + groups * 64;
    for (int64_t group = 0; group < groups; group++) {
      int64_t first = group * 128, count = width - first < 128 ? width - first : 128;
      float padded[128] = {0};
      memcpy(padded, row + first, count * sizeof(float));
      uint8_t codes[64], group_scales[8];
      nb_encode_row(level, NB_NVFP4, padded, 128, factor, codes, group_scales, &ignored);
      uint32_t words[16] = {0};
      for (int k = 0; k < 128; k++) words[k % 16] |= (uint32_t)(codes[k / 2] >> k % 2 * 4 & 15) << k / 16 * 4;
      memcpy((uint8_t *)out + group * 64, words, sizeof words);
      memcpy(scales + group * 8, group_scales, (count + 15) / 16);
    }
    return factor;
  }
  }
  return 1;
}
