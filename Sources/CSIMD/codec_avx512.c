// The row codecs with AVX-512. FP4 rows are encoded 128 values at a time, eight vectors of 16, so that the steps that
// happen once a block (scales) run on eight lanes at once.
#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#include <immintrin.h>

#include "codec_internal.h"
#include "record_internal.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,popcnt")))
#define INLINE AVX512 static inline __attribute__((always_inline))

#define GROUP 128
/// Factors of nvfp4 for which no step comes near the ends of the exponent's range; others go the portable way.
#define NARROW_G_MIN 0x1p-60f
#define NARROW_G_MAX 0x1p60f

INLINE __m512i integers(int x) { return _mm512_set1_epi32(x); }
INLINE __m512 floats(float x) { return _mm512_set1_ps(x); }
INLINE __m512i bits(__m512 x) { return _mm512_castps_si512(x); }
INLINE __m512 from_bits(__m512i x) { return _mm512_castsi512_ps(x); }
INLINE __m512 magnitude(__m512 x) { return from_bits(_mm512_and_si512(bits(x), integers(0x7FFFFFFF))); }

/// x with NaN as 0 and infinities as +-largest; counts them.
INLINE __m512 finite(__m512 x, float largest, uint64_t *replaced) {
  const __mmask16 bad = _mm512_fpclass_ps_mask(x, 0x99); // quiet and signalling NaN, both infinities
  *replaced += (uint64_t)__builtin_popcount(bad);
  x = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_setzero_ps());
  return _mm512_min_ps(_mm512_max_ps(x, floats(-largest)), floats(largest));
}

/// Lane b = the bits of the maximum of magnitudes[b], for eight vectors; lanes 8 ... 15 repeat them.
INLINE __m512i maxima(const __m512 magnitudes[8]) {
  __m512i v[8];
  for (int i = 0; i < 8; i++) v[i] = bits(magnitudes[i]);
  __m512i t[4], u[2];
  for (int i = 0; i < 4; i++)
    t[i] =
        _mm512_max_epu32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
  for (int i = 0; i < 2; i++)
    u[i] =
        _mm512_max_epu32(_mm512_unpacklo_epi64(t[2 * i], t[2 * i + 1]), _mm512_unpackhi_epi64(t[2 * i], t[2 * i + 1]));
  const __m512i w =
      _mm512_max_epu32(_mm512_shuffle_i32x4(u[0], u[1], 0x88), _mm512_shuffle_i32x4(u[0], u[1], 0xDD));
  return _mm512_max_epu32(_mm512_shuffle_i32x4(w, w, 0x88), _mm512_shuffle_i32x4(w, w, 0xDD));
}

INLINE __m512 lane(__m512 x, int index) { return _mm512_permutexvar_ps(integers(index), x); }

/// E4M3 of magnitudes: the bytes as integers, and their values.
INLINE __m512i e4m3(__m512 m, __m512 *value) {
  m = _mm512_min_ps(m, floats(448.0f));
  // Adding 2^(exponent + 20) leaves a last place of 2^(exponent - 3): the addition does the rounding.
  const __m512i exponent = _mm512_and_si512(bits(_mm512_max_ps(m, floats(0x1p-6f))), integers(0x7F800000));
  const __m512i magic = _mm512_add_epi32(exponent, integers(20 << 23));
  const __m512 sum = _mm512_add_ps(m, from_bits(magic));
  *value = _mm512_sub_ps(sum, from_bits(magic));
  const __m512i steps = _mm512_sub_epi32(bits(sum), magic);
  return _mm512_add_epi32(steps, _mm512_sub_epi32(_mm512_srli_epi32(magic, 20), integers((127 + 20 - 6) << 3)));
}

/// E2M1 codes are looked up by floor(t) + ceil(t) with t = 4 |y|: even for multiples of a quarter, among them all
/// midpoints, odd between them. t is below 2^30; from 63 on the index is clamped, as the code is.
INLINE __m512i e2m1_index(__m512 t) {
  return _mm512_add_epi32(_mm512_cvt_roundps_epi32(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
                          _mm512_cvt_roundps_epi32(t, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}

static const uint8_t codes_ties_even[128] __attribute__((aligned(64))) = {
    // 4 m =  0  .  1  .  2  .  3  .  4  .  5  .  6  .  7  .  8  .  9  . 10  . 11  . 12  . 13  . 14  . 15  .
    0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6,
    // 16  . 17  . 18  . 19  . 20  . 21  . 22  . 23  . 24
    6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    8, 8, 8, 9, 9, 9, 10, 10, 10, 10, 10, 11, 11, 11, 12, 12,
    12, 12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 14, 14, 14, 14,
    14, 14, 14, 14, 14, 14, 14, 14, 14, 15, 15, 15, 15, 15, 15, 15,
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
};

static const uint8_t codes_ties_away[128] __attribute__((aligned(64))) = {
    0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6,
    6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    0, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11, 12, 12,
    12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 13, 14, 14, 14, 14,
    14, 14, 14, 14, 14, 14, 14, 14, 15, 15, 15, 15, 15, 15, 15, 15,
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
};

/// A group of 128 values, eight blocks of 16.
typedef struct values {
  __m512 magnitudes[8];
  __m512i signs[2]; ///< bit 7 of the bytes, in the order of `bytes`
} values;

typedef struct group {
  __m512i codes;  ///< 64 bytes
  __m512i scales; ///< lane b: the byte of the b-th 16 values
} group;

/// 64 integers as bytes; within each quarter of the register four bytes of each vector.
INLINE __m512i bytes(const __m512i v[4]) {
  return _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[1]), _mm512_packus_epi32(v[2], v[3]));
}

INLINE values values_of(const __m512 x[8]) {
  values v;
  for (int b = 0; b < 8; b++) v.magnitudes[b] = magnitude(x[b]);
  for (int i = 0; i < 2; i++) { // signed saturation keeps the sign bit
    const __m512 *y = x + 4 * i;
    v.signs[i] =
        _mm512_packs_epi16(_mm512_packs_epi32(bits(y[0]), bits(y[1])), _mm512_packs_epi32(bits(y[2]), bits(y[3])));
  }
  return v;
}

/// The 64 bytes of codes of 128 indices.
INLINE __m512i packed_codes(const __m512i index[8], const __m512i signs[2], const uint8_t table[128]) {
  const __m512i positive = _mm512_load_si512(table), negative = _mm512_load_si512(table + 64);
  __m512i pairs[2];
  for (int i = 0; i < 2; i++) {
    const __m512i clamped = _mm512_min_epu8(bytes(index + 4 * i), _mm512_set1_epi8(63));
    // Bit 6 chooses the half of the table.
    const __m512i place =
        _mm512_ternarylogic_epi32(clamped, _mm512_srli_epi16(signs[i], 1), _mm512_set1_epi8(0x40), 0xF8);
    const __m512i codes = _mm512_permutex2var_epi8(positive, place, negative);
    pairs[i] = _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x1001)); // low nibble + 16 * high nibble
  }
  // Each quarter of the register now holds two bytes of every block: gather them by block.
  const __m512i order = _mm512_set_epi16(31, 23, 15, 7, 30, 22, 14, 6, 29, 21, 13, 5, 28, 20, 12, 4, 27, 19, 11, 3, 26,
                                         18, 10, 2, 25, 17, 9, 1, 24, 16, 8, 0);
  return _mm512_permutexvar_epi16(order, _mm512_packus_epi16(pairs[0], pairs[1]));
}

/// g lies between NARROW_G_MIN and NARROW_G_MAX, so that d / 4 is exact and no quotient overflows.
INLINE group encode_nvfp4(const values *v, __m512 largest, float g) {
  group result;
  __m512 scale;
  result.scales = e4m3(_mm512_div_ps(largest, floats(6.0f * g)), &scale);
  const __m512 divisor = _mm512_mul_ps(scale, floats(g)), quarter = _mm512_mul_ps(divisor, floats(0.25f));
  const __mmask8 nonzero = (__mmask8)_mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_GT_OQ);
  // Only under the largest scale can quotients be large.
  const int clips = _mm512_cmpeq_epi32_mask(result.scales, integers(0x7E)) != 0;
  __m512i index[8];
  for (int b = 0; b < 8; b++) {
    __m512 m = v->magnitudes[b];
    if (__builtin_expect(clips, 0)) m = _mm512_min_ps(m, _mm512_mul_ps(lane(divisor, b), floats(8.0f)));
    index[b] = e2m1_index(_mm512_div_ps(m, lane(quarter, b)));
  }
  result.codes = _mm512_maskz_mov_epi64(nonzero, packed_codes(index, v->signs, codes_ties_even));
  return result;
}

#include "codec_avx512_four_over_six.inc.h"

INLINE group encode_group(nb_recipe recipe, const values *v, __m512 largest, float g) {
  if (recipe == NB_NVFP4) return encode_nvfp4(v, largest, g);
  if (recipe == NB_NVFP4_4OVER6) return encode_four_over_six(v, largest, g);
  group result;
  if (recipe == NB_FP4_MX_BLOCK16) { // as nb_mx_block16_scale
    const __m512i rounded = _mm512_add_epi32(bits(_mm512_max_ps(largest, floats(NB_MX16_FLOOR))), integers(0x3FFFFF));
    result.scales = _mm512_min_epi32(_mm512_sub_epi32(_mm512_srli_epi32(rounded, 23), integers(2)), integers(252));
  } else {
    // As nb_mxfp4_scale, for blocks of 32: two neighbouring lanes share a maximum.
    largest = _mm512_max_ps(largest, _mm512_permute_ps(largest, 0xB1));
    const __m512i exponent = _mm512_srli_epi32(bits(largest), 23);
    result.scales = _mm512_max_epi32(_mm512_sub_epi32(exponent, integers(2)), _mm512_setzero_si512());
  }
  const __m512 inverse = from_bits(_mm512_slli_epi32(_mm512_sub_epi32(integers(254), result.scales), 23));
  __m512i index[8];
  for (int b = 0; b < 8; b++) // two products: 4 * inverse may be too large a number
    index[b] = e2m1_index(_mm512_mul_ps(_mm512_mul_ps(v->magnitudes[b], lane(inverse, b)), floats(4.0f)));
  result.codes = packed_codes(index, v->signs, recipe == NB_FP4_MX_BLOCK16 ? codes_ties_away : codes_ties_even);
  return result;
}

/// Counts lost and imprecise block scales. Blocks past the row's end are zero: neither subnormal nor lost.
INLINE void count_scales(__m512i scales, __m512i largest, nb_encode_statistics *statistics) {
  const __mmask16 small = _mm512_mask_cmple_epu32_mask(0xFF, scales, integers(7));
  if (__builtin_expect(small == 0, 1)) return;
  const __mmask16 zero = _mm512_mask_cmpeq_epi32_mask(small, scales, _mm512_setzero_si512());
  statistics->subnormal_scales += (uint64_t)__builtin_popcount(small & ~zero);
  statistics->zero_scales += (uint64_t)__builtin_popcount(_mm512_mask_test_epi32_mask(zero, largest, largest));
}

/// How the bytes of a row lie: one after the other, or as one token's words and scales in a region.
typedef enum row_form { CANONICAL, WORDS } row_form;

/// Writes `count` words, an even number, as one token's.
INLINE void put_words(__m512i codes, int count, uint8_t *words) {
  _Pragma("unroll") for (int pair = 0; pair < 8; pair++) {
    if (2 * pair >= count) return;
    const uint64_t both = (uint64_t)codes[pair];
    const uint32_t low = (uint32_t)both, high = (uint32_t)(both >> 32);
    memcpy(words + 2 * pair * NB_WORD_STRIDE, &low, 4);
    memcpy(words + (2 * pair + 1) * NB_WORD_STRIDE, &high, 4);
  }
}

/// Encodes `count` values, a constant GROUP or a row's shorter end.
INLINE void encode_values(nb_recipe recipe, row_form form, const float *row, int count, float g, uint8_t *codes,
                          uint8_t *scales, nb_encode_statistics *statistics) {
  const int size = recipe == NB_MXFP4 ? 32 : 16;
  __m512 x[8];
  for (int b = 0; b < 8; b++) x[b] = 16 * b < count ? _mm512_loadu_ps(row + 16 * b) : _mm512_setzero_ps();
  values v = values_of(x);
  __m512i largest = maxima(v.magnitudes);
  // NaN and infinities are larger than every finite number when compared as integers.
  if (__builtin_expect(_mm512_cmpge_epu32_mask(largest, integers(0x7F800000)) != 0, 0)) {
    for (int b = 0; b < 8; b++) x[b] = finite(x[b], NB_LARGEST, &statistics->replaced_nonfinite);
    v = values_of(x);
    largest = maxima(v.magnitudes);
  }
  const group result = encode_group(recipe, &v, from_bits(largest), g);
  if (recipe == NB_NVFP4 || recipe == NB_NVFP4_4OVER6) count_scales(result.scales, largest, statistics);
  __m512i scale_lanes = result.scales;
  if (recipe == NB_MXFP4) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    scale_lanes = _mm512_permutexvar_epi32(even, scale_lanes);
  }
  const int64_t scale_bytes = _mm_cvtsi128_si64(_mm512_cvtepi32_epi8(scale_lanes));
  if (form == WORDS) {
    put_words(result.codes, count / 8, codes);
    for (int b = 0; b < count / size; b++) scales[b * NB_SCALE_STRIDE] = (uint8_t)(scale_bytes >> 8 * b);
    return;
  }
  memcpy(scales, &scale_bytes, (size_t)(count / size));
  // A masked store can't be forwarded to the loads of whoever reads the row next: only a row's end uses it.
  if (count == GROUP)
    _mm512_storeu_si512(codes, result.codes);
  else
    _mm512_mask_storeu_epi64(codes, (__mmask8)((1u << count / 16) - 1), result.codes);
}

INLINE void encode_fp4(nb_recipe recipe, row_form form, const float *row, int dimension, float g, uint8_t *codes,
                       uint8_t *scales, nb_encode_statistics *statistics) {
  const int size = recipe == NB_MXFP4 ? 32 : 16, tokens = form == WORDS ? NB_TOKENS : 1;
  statistics->values += (uint64_t)dimension;
  statistics->blocks += (uint64_t)(dimension / size);
  int i = 0;
  for (; i + GROUP <= dimension; i += GROUP)
    encode_values(recipe, form, row + i, GROUP, g, codes + i / 2 * tokens, scales + i / size * tokens, statistics);
  if (i < dimension)
    encode_values(recipe, form, row + i, dimension - i, g, codes + i / 2 * tokens, scales + i / size * tokens,
                  statistics);
}

/// One instantiation a recipe.
INLINE void encode_blocks(nb_recipe recipe, row_form form, const float *row, int dimension, float g, uint8_t *codes,
                          uint8_t *scales, nb_encode_statistics *statistics) {
  switch (recipe) {
    case NB_NVFP4: encode_fp4(NB_NVFP4, form, row, dimension, g, codes, scales, statistics); break;
    case NB_NVFP4_4OVER6: encode_fp4(NB_NVFP4_4OVER6, form, row, dimension, g, codes, scales, statistics); break;
    case NB_FP4_MX_BLOCK16: encode_fp4(NB_FP4_MX_BLOCK16, form, row, dimension, 1.0f, codes, scales, statistics); break;
    default: encode_fp4(NB_MXFP4, form, row, dimension, 1.0f, codes, scales, statistics); break;
  }
}

/// Whether the vector kernels encode with this factor.
static int is_in_range(nb_recipe recipe, float g) {
  return (recipe != NB_NVFP4 && recipe != NB_NVFP4_4OVER6) || (g >= NARROW_G_MIN && g <= NARROW_G_MAX);
}

/// The lanes of a vector that a row of `dimension` values still has at `start`.
INLINE __mmask16 lanes_left(int dimension, int start) {
  return (__mmask16)(dimension - start >= 16 ? 0xFFFF : (1u << (dimension - start)) - 1);
}

AVX512 static void encode_plain(nb_recipe recipe, const float *row, int dimension, float k, uint8_t *codes,
                                nb_encode_statistics *statistics) {
  for (int i = 0; i < dimension; i += 16) {
    const __mmask16 lanes = lanes_left(dimension, i);
    const float largest = recipe == NB_BF16 ? NB_LARGEST_BF16 : NB_LARGEST;
    const __m512 x = finite(_mm512_maskz_loadu_ps(lanes, row + i), largest, &statistics->replaced_nonfinite);
    if (recipe == NB_F32) {
      _mm512_mask_storeu_ps(codes + 4 * i, lanes, x);
    } else if (recipe == NB_BF16) {
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits(x), 16), integers(1));
      const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits(x), integers(0x7FFF)), odd);
      _mm512_mask_cvtepi32_storeu_epi16(codes + 2 * i, lanes, _mm512_srli_epi32(rounded, 16));
    } else {
      __m512 value;
      const __m512i byte = e4m3(_mm512_div_ps(magnitude(x), floats(k)), &value);
      const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits(x), 24), integers(0x80));
      _mm512_mask_cvtepi32_storeu_epi8(codes + i, lanes, _mm512_or_si512(byte, sign));
    }
  }
}

AVX512 void nb_encode_row_avx512(nb_recipe recipe, const float *row, int dimension, float decode_scale, uint8_t *codes,
                                 uint8_t *scales, nb_encode_statistics *statistics) {
  const int size = nb_recipe_block(recipe);
  if (!is_in_range(recipe, decode_scale))
    return nb_encode_row_portable(recipe, row, dimension, decode_scale, codes, scales, statistics);
  if (size > 0)
    return encode_blocks(recipe, CANONICAL, row, dimension / size * size, decode_scale, codes, scales, statistics);
  statistics->values += (uint64_t)dimension;
  encode_plain(recipe, row, dimension, decode_scale, codes, statistics);
}

AVX512 int nb_encode_words_avx512(nb_recipe recipe, const float *row, int dimension, float decode_scale, uint8_t *words,
                                  uint8_t *scales, nb_encode_statistics *statistics) {
  if (!is_in_range(recipe, decode_scale)) return 0;
  nb_encode_statistics ignored = {0};
  const int size = nb_recipe_block(recipe);
  encode_blocks(recipe, WORDS, row, dimension / size * size, decode_scale, words, scales,
                statistics == NULL ? &ignored : statistics);
  return 1;
}

/// The values of sixteen E4M3 bytes, NaN included.
INLINE __m512 e4m3_values(__m512i byte) {
  const __m512i fields = _mm512_and_si512(byte, integers(0x7F));
  const __m512 value = _mm512_mul_ps(from_bits(_mm512_slli_epi32(fields, 20)), floats(0x1p120f));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(fields, integers(0x7F));
  const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(byte, integers(0x80)), 24);
  return from_bits(_mm512_or_si512(_mm512_mask_mov_epi32(bits(value), nan, integers(0x7FC00000)), sign));
}

AVX512 static void decode_fp4(nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension, float g,
                              float *row) {
  const __m512 table = _mm512_loadu_ps(nb_e2m1_values);
  const __m512i shifts = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const int shift = recipe == NB_MXFP4 ? 5 : 4;
  for (int i = 0; i < dimension; i += 16) {
    // One table of sixteen products a block; a code picks its own.
    const __m512 scaled = _mm512_mul_ps(table, floats(nb_block_scale(recipe, scales[i >> shift])));
    const __m512 values = _mm512_mul_ps(scaled, floats(g));
    uint32_t words[2];
    memcpy(words, codes + i / 2, 8);
    const __m512i both = _mm512_mask_set1_epi32(integers((int)words[0]), 0xFF00, (int)words[1]);
    _mm512_storeu_ps(row + i, _mm512_permutexvar_ps(_mm512_srlv_epi32(both, shifts), values));
  }
}

AVX512 void nb_decode_row_avx512(nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension,
                                 float decode_scale, float *row) {
  switch (recipe) {
    case NB_F32: memcpy(row, codes, 4 * (size_t)dimension); break;
    case NB_BF16:
      for (int i = 0; i < dimension; i += 16) {
        const __mmask16 lanes = lanes_left(dimension, i);
        const __m512i half = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, codes + 2 * i));
        _mm512_mask_storeu_epi32(row + i, lanes, _mm512_slli_epi32(half, 16));
      }
      break;
    case NB_FP8_E4M3:
      for (int i = 0; i < dimension; i += 16) {
        const __mmask16 lanes = lanes_left(dimension, i);
        const __m512 value = e4m3_values(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, codes + i)));
        _mm512_mask_storeu_ps(row + i, lanes, _mm512_mul_ps(value, floats(decode_scale)));
      }
      break;
    case NB_NVFP4:
    case NB_NVFP4_4OVER6: decode_fp4(recipe, codes, scales, dimension / 16 * 16, decode_scale, row); break;
    case NB_FP4_MX_BLOCK16: decode_fp4(recipe, codes, scales, dimension / 16 * 16, 1.0f, row); break;
    case NB_MXFP4: decode_fp4(recipe, codes, scales, dimension / 32 * 32, 1.0f, row); break;
  }
}

#endif
