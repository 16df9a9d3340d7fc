// The row codecs with AVX2, one block at a time.
#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#include <immintrin.h>

#include "codec_internal.h"

#define AVX2 __attribute__((target("avx2,popcnt")))
#define INLINE AVX2 static inline __attribute__((always_inline))

INLINE __m256i integers(int x) { return _mm256_set1_epi32(x); }
INLINE __m256 floats(float x) { return _mm256_set1_ps(x); }
INLINE __m256i bits(__m256 x) { return _mm256_castps_si256(x); }
INLINE __m256 from_bits(__m256i x) { return _mm256_castsi256_ps(x); }
INLINE __m256 magnitude(__m256 x) { return from_bits(_mm256_and_si256(bits(x), integers(0x7FFFFFFF))); }

/// x with NaN as 0 and infinities as +-largest; counts them.
INLINE __m256 finite(__m256 x, float largest, uint64_t *replaced) {
  const __m256i bad = _mm256_cmpgt_epi32(bits(magnitude(x)), integers(0x7F7FFFFF));
  *replaced += (uint64_t)__builtin_popcount((unsigned)_mm256_movemask_ps(from_bits(bad)));
  x = _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
  return _mm256_min_ps(_mm256_max_ps(x, floats(-largest)), floats(largest));
}

INLINE uint32_t horizontal_maximum(__m256i x) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
  return (uint32_t)_mm_cvtsi128_si32(m);
}

/// Loads up to 32 values, NaN and infinities replaced, and returns the largest magnitude.
INLINE float load_block(const float *row, int vectors, __m256 *x, nb_encode_statistics *statistics) {
  __m256i m = _mm256_setzero_si256();
  for (int i = 0; i < vectors; i++) {
    x[i] = _mm256_loadu_ps(row + 8 * i);
    m = _mm256_max_epu32(m, bits(magnitude(x[i])));
  }
  uint32_t largest = horizontal_maximum(m);
  // NaN and infinities are larger than every finite number when compared as integers.
  if (__builtin_expect(largest >= 0x7F800000, 0)) {
    m = _mm256_setzero_si256();
    for (int i = 0; i < vectors; i++) {
      x[i] = finite(x[i], NB_LARGEST, &statistics->replaced_nonfinite);
      m = _mm256_max_epu32(m, bits(magnitude(x[i])));
    }
    largest = horizontal_maximum(m);
  }
  return nb_float_from_bits(largest);
}

/// Counts a comparison: subtracts its all-ones where it holds.
#define COUNT(code, m, predicate, midpoint) \
  _mm256_sub_epi32(code, bits(_mm256_cmp_ps(m, floats(midpoint), predicate)))

/// E2M1 codes of eight values, ties to the even code.
INLINE __m256i e2m1_even(__m256 y) {
  const __m256 m = magnitude(y);
  __m256i code = _mm256_and_si256(_mm256_srli_epi32(bits(y), 28), integers(8));
  code = COUNT(code, m, _CMP_GT_OQ, 0.25f);
  code = COUNT(code, m, _CMP_GE_OQ, 0.75f);
  code = COUNT(code, m, _CMP_GT_OQ, 1.25f);
  code = COUNT(code, m, _CMP_GE_OQ, 1.75f);
  code = COUNT(code, m, _CMP_GT_OQ, 2.5f);
  code = COUNT(code, m, _CMP_GE_OQ, 3.5f);
  return COUNT(code, m, _CMP_GT_OQ, 5.0f);
}

/// E2M1 codes of eight values, ties away from zero; -0 gives code 0.
INLINE __m256i e2m1_away(__m256 y) {
  const __m256 m = magnitude(y);
  __m256i code = _mm256_and_si256(bits(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_LT_OQ)), integers(8));
  code = COUNT(code, m, _CMP_GE_OQ, 0.25f);
  code = COUNT(code, m, _CMP_GE_OQ, 0.75f);
  code = COUNT(code, m, _CMP_GE_OQ, 1.25f);
  code = COUNT(code, m, _CMP_GE_OQ, 1.75f);
  code = COUNT(code, m, _CMP_GE_OQ, 2.5f);
  code = COUNT(code, m, _CMP_GE_OQ, 3.5f);
  return COUNT(code, m, _CMP_GE_OQ, 5.0f);
}

/// The 8 bytes of sixteen codes.
INLINE __m128i pack(__m256i low, __m256i high) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  const __m128i pairs = _mm_maddubs_epi16(bytes, _mm_set1_epi16(0x1001)); // low nibble + 16 * high nibble
  return _mm_packus_epi16(pairs, pairs);
}

/// The values of eight codes: the magnitude by its index, the sign bit beside it.
INLINE __m256 e2m1_values(__m256i code) {
  const __m256 lower = _mm256_permutevar8x32_ps(_mm256_loadu_ps(nb_e2m1_values), code); // uses three bits
  return from_bits(_mm256_or_si256(bits(lower), _mm256_slli_epi32(_mm256_and_si256(code, integers(8)), 28)));
}

/// The sum in the order of the specification.
INLINE float squared_error(const __m256 x[2], const __m256i code[2], float scale, float g) {
  __m256 e[2];
  for (int i = 0; i < 2; i++) {
    const __m256 decoded = _mm256_mul_ps(_mm256_mul_ps(e2m1_values(code[i]), floats(scale)), floats(g));
    const __m256 difference = _mm256_sub_ps(x[i], decoded);
    e[i] = _mm256_mul_ps(difference, difference);
  }
  const __m256 eight = _mm256_add_ps(e[0], e[1]);
  const __m256 pairs = _mm256_hadd_ps(eight, eight);
  const __m256 fours = _mm256_hadd_ps(pairs, pairs);
  return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
}

/// Steps 2 and 3 of nvfp4 with the block maximum mapped to `top`.
INLINE uint8_t nvfp4_block(const __m256 x[2], float largest, float top, float g, __m256i code[2]) {
  const uint8_t byte = nb_e4m3_encode(largest / (top * g));
  const __m256 divisor = floats(nb_e4m3_decode(byte) * g);
  for (int i = 0; i < 2; i++)
    code[i] = byte == 0 ? _mm256_setzero_si256() : e2m1_even(_mm256_div_ps(x[i], divisor));
  return byte;
}

AVX2 static void encode_nvfp4(const float *row, int dimension, float g, int four_over_six, uint8_t *codes,
                              uint8_t *scales, nb_encode_statistics *statistics) {
  for (int b = 0; b < dimension / 16; b++) {
    __m256 x[2];
    __m256i code[2], four[2];
    const float largest = load_block(row + 16 * b, 2, x, statistics);
    uint8_t byte = nvfp4_block(x, largest, 6.0f, g, code);
    if (four_over_six) {
      const uint8_t byte_of_four = nvfp4_block(x, largest, 4.0f, g, four);
      if (squared_error(x, four, nb_e4m3_decode(byte_of_four), g) < squared_error(x, code, nb_e4m3_decode(byte), g)) {
        byte = byte_of_four;
        code[0] = four[0];
        code[1] = four[1];
      }
    }
    _mm_storel_epi64((__m128i *)(codes + 8 * b), pack(code[0], code[1]));
    scales[b] = byte;
    statistics->subnormal_scales += byte >= 1 && byte <= 7;
    statistics->zero_scales += byte == 0 && largest > 0;
  }
}

AVX2 static void encode_mx_block16(const float *row, int dimension, uint8_t *codes, uint8_t *scales,
                                   nb_encode_statistics *statistics) {
  for (int b = 0; b < dimension / 16; b++) {
    __m256 x[2];
    const uint32_t byte = nb_mx_block16_scale(load_block(row + 16 * b, 2, x, statistics));
    const __m256 inverse = floats(nb_float_from_bits((254 - byte) << 23));
    const __m256i low = e2m1_away(_mm256_mul_ps(x[0], inverse)), high = e2m1_away(_mm256_mul_ps(x[1], inverse));
    _mm_storel_epi64((__m128i *)(codes + 8 * b), pack(low, high));
    scales[b] = (uint8_t)byte;
  }
}

AVX2 static void encode_mxfp4(const float *row, int dimension, uint8_t *codes, uint8_t *scales,
                              nb_encode_statistics *statistics) {
  for (int b = 0; b < dimension / 32; b++) {
    __m256 x[4];
    const uint32_t byte = nb_mxfp4_scale(load_block(row + 32 * b, 4, x, statistics));
    const __m256 inverse = floats(nb_float_from_bits((254 - byte) << 23));
    for (int i = 0; i < 4; i += 2) {
      const __m256i low = e2m1_even(_mm256_mul_ps(x[i], inverse)), high = e2m1_even(_mm256_mul_ps(x[i + 1], inverse));
      _mm_storel_epi64((__m128i *)(codes + 16 * b + 4 * i), pack(low, high));
    }
    scales[b] = (uint8_t)byte;
  }
}

/// E4M3 bytes of eight values.
INLINE __m256i e4m3(__m256 y) { // as nb_e4m3_encode
  const __m256 m = _mm256_min_ps(magnitude(y), floats(448.0f));
  const __m256i exponent = _mm256_and_si256(bits(_mm256_max_ps(m, floats(0x1p-6f))), integers(0x7F800000));
  const __m256i magic = _mm256_add_epi32(exponent, integers(20 << 23));
  const __m256i steps = _mm256_sub_epi32(bits(_mm256_add_ps(m, from_bits(magic))), magic);
  const __m256i byte =
      _mm256_add_epi32(steps, _mm256_sub_epi32(_mm256_srli_epi32(magic, 20), integers((127 + 20 - 6) << 3)));
  return _mm256_or_si256(byte, _mm256_slli_epi32(_mm256_srli_epi32(bits(y), 31), 7));
}

/// Returns how many values were encoded, a multiple of 8; the caller encodes the rest.
AVX2 static int encode_plain(nb_recipe recipe, const float *row, int dimension, float k, uint8_t *codes,
                             nb_encode_statistics *statistics) {
  int i = 0;
  for (; i + 8 <= dimension; i += 8) {
    const float largest = recipe == NB_BF16 ? NB_LARGEST_BF16 : NB_LARGEST;
    const __m256 x = finite(_mm256_loadu_ps(row + i), largest, &statistics->replaced_nonfinite);
    if (recipe == NB_F32) {
      _mm256_storeu_ps((float *)(codes + 4 * i), x);
      continue;
    }
    __m256i wide;
    if (recipe == NB_BF16) {
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits(x), 16), integers(1));
      wide = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits(x), integers(0x7FFF)), odd), 16);
    } else {
      wide = e4m3(_mm256_div_ps(x, floats(k)));
    }
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    if (recipe == NB_BF16)
      _mm_storeu_si128((__m128i *)(codes + 2 * i), words);
    else
      _mm_storel_epi64((__m128i *)(codes + i), _mm_packus_epi16(words, words));
  }
  return i;
}

AVX2 void nb_encode_row_avx2(nb_recipe recipe, const float *row, int dimension, float decode_scale, uint8_t *codes,
                             uint8_t *scales, nb_encode_statistics *statistics) {
  const int size = nb_recipe_block(recipe);
  if (size == 0) {
    const int done = encode_plain(recipe, row, dimension, decode_scale, codes, statistics);
    statistics->values += (uint64_t)done;
    if (done < dimension)
      nb_encode_row_portable(recipe, row + done, dimension - done, decode_scale,
                             codes + done * nb_recipe_code_bits(recipe) / 8, scales, statistics);
    return;
  }
  statistics->values += (uint64_t)(dimension / size * size);
  statistics->blocks += (uint64_t)(dimension / size);
  switch (recipe) {
    case NB_NVFP4: encode_nvfp4(row, dimension, decode_scale, 0, codes, scales, statistics); break;
    case NB_NVFP4_4OVER6: encode_nvfp4(row, dimension, decode_scale, 1, codes, scales, statistics); break;
    case NB_FP4_MX_BLOCK16: encode_mx_block16(row, dimension, codes, scales, statistics); break;
    default: encode_mxfp4(row, dimension, codes, scales, statistics); break;
  }
}

AVX2 static void decode_fp4(nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension, float g,
                            float *row) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  const int shift = recipe == NB_MXFP4 ? 5 : 4;
  for (int i = 0; i < dimension; i += 8) {
    int word;
    memcpy(&word, codes + i / 2, 4);
    const __m256 elements = e2m1_values(_mm256_srlv_epi32(integers(word), shifts));
    const __m256 scaled = _mm256_mul_ps(elements, floats(nb_block_scale(recipe, scales[i >> shift])));
    _mm256_storeu_ps(row + i, _mm256_mul_ps(scaled, floats(g)));
  }
}

AVX2 static void decode_fp8(const uint8_t *codes, int dimension, float k, float *row) {
  int i = 0;
  for (; i + 8 <= dimension; i += 8) {
    const __m256i byte = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i)));
    const __m256i fields = _mm256_and_si256(byte, integers(0x7F));
    const __m256 value = _mm256_mul_ps(from_bits(_mm256_slli_epi32(fields, 20)), floats(0x1p120f));
    const __m256i nan = _mm256_cmpeq_epi32(fields, integers(0x7F));
    const __m256i number = _mm256_blendv_epi8(bits(value), integers(0x7FC00000), nan);
    const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(byte, 7), 31);
    _mm256_storeu_ps(row + i, _mm256_mul_ps(from_bits(_mm256_or_si256(number, sign)), floats(k)));
  }
  nb_decode_row_portable(NB_FP8_E4M3, codes + i, NULL, dimension - i, k, row + i);
}

AVX2 static void decode_bf16(const uint8_t *codes, int dimension, float *row) {
  int i = 0;
  for (; i + 8 <= dimension; i += 8) {
    const __m256i half = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(codes + 2 * i)));
    _mm256_storeu_si256((__m256i *)(row + i), _mm256_slli_epi32(half, 16));
  }
  nb_decode_row_portable(NB_BF16, codes + 2 * i, NULL, dimension - i, 1.0f, row + i);
}

AVX2 void nb_decode_row_avx2(nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension,
                             float decode_scale, float *row) {
  switch (recipe) {
    case NB_F32: memcpy(row, codes, 4 * (size_t)dimension); break;
    case NB_BF16: decode_bf16(codes, dimension, row); break;
    case NB_FP8_E4M3: decode_fp8(codes, dimension, decode_scale, row); break;
    case NB_NVFP4:
    case NB_NVFP4_4OVER6: decode_fp4(recipe, codes, scales, dimension / 16 * 16, decode_scale, row); break;
    case NB_FP4_MX_BLOCK16: decode_fp4(recipe, codes, scales, dimension / 16 * 16, 1.0f, row); break;
    case NB_MXFP4: decode_fp4(recipe, codes, scales, dimension / 32 * 32, 1.0f, row); break;
  }
}

#endif
