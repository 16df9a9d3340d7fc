// Four-bit keys and values with AVX2, in integers: queries are rounded to 16 bits a row, probabilities times block scales to 15 bits
// a row, block and tile, so that `vpmaddwd` sums them exactly. Compiled inside a target("avx2") region that defines NAME(x).
//
// A byte shuffle turns codes into bytes, twice the values; keys are offset by 12 to be unsigned, which the query's packed form
// makes up for: [pairs as in the AVX-512 form][-12 times the sum of each block][bits of the row's factor].

static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const int8_t e2m1_doubled_offset[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

static __m256i NAME(load_table)(const int8_t *table) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}

INLINE __m256i NAME(broadcast_pair)(const uint32_t *pair) { return _mm256_set1_epi32((int32_t)*pair); }

// sum + values * the pair, in one volatile piece: left to itself, the compiler moves a block's broadcasts to its top and spills.
INLINE __m256i NAME(dot)(__m256i sum, __m256i values, const uint32_t *pair) {
  __m256i product;
  __asm__ volatile("vpbroadcastd %3, %1\n\tvpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
                   : "+x"(sum), "=&x"(product)
                   : "x"(values), "m"(*pair));
  return sum;
}

INLINE float NAME(greatest_of_8)(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

// Eight block scales as floats.
INLINE __m256 NAME(scale_lanes)(const uint8_t *scales, const int is_e4m3) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)scales));
  return is_e4m3 ? _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 20)), _mm256_set1_ps(0x1p120f))
                 : _mm256_castsi256_ps(_mm256_slli_epi32(wide, 23));
}

static void NAME(fp4_pack_queries)(const float *q, const operand *key, uint32_t *packed) {
  const int dimension = key->dimension, block = dimension / key->row_scales;
  __m256 most = _mm256_setzero_ps();
  for (int d = 0; d < dimension; d += 8)
    most = _mm256_max_ps(most, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(q + d)));
  const float amax = NAME(greatest_of_8)(most), inverse = amax > 0 ? 32767.0f / amax : 0.0f;
  const float factor = 0.5f * (amax / 32767.0f); // keys are doubled
  for (int b = 0; b < key->row_scales; b++) {
    int32_t sum = 0;
    for (int d = b * block; d < (b + 1) * block; d += 8) {
      int32_t rounded[8];
      _mm256_storeu_si256((__m256i *)rounded, _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(q + d), _mm256_set1_ps(inverse))));
      for (int k = 0; k < 4; k++) {
        packed[d / 2 + k] = ((uint32_t)rounded[k] & 0xFFFF) | (uint32_t)rounded[k + 4] << 16;
        sum += rounded[k] + rounded[k + 4];
      }
    }
    packed[dimension / 2 + b] = (uint32_t)(-12 * sum);
  }
  memcpy(packed + dimension / 2 + dimension / 16, &factor, sizeof factor);
}

// Scores of `nr` rows with eight tokens of group g.
INLINE void NAME(fp4_score_rows)(const int nr, const int words, const int is_e4m3, const operand *key, const tile *from, int g,
                                 int half, const uint32_t *q, int64_t q_stride, float *scores) {
  const __m256i table = NAME(load_table)(e2m1_doubled_offset), nibble = _mm256_set1_epi8(15),
                low = _mm256_set1_epi32(0x00FF00FF);
  const uint8_t *codes = from->codes[g] + half * 32, *scales = from->scales[g] + half * 8;
  const int pairs = key->dimension / 2;
  __m256 sum[STRIP];
  for (int r = 0; r < nr; r++) sum[r] = _mm256_setzero_ps();
  for (int b = 0; b < key->row_scales; b++) {
    __m256i part[STRIP];
    for (int r = 0; r < nr; r++) part[r] = NAME(broadcast_pair)(q + r * q_stride + pairs + b);
#pragma clang loop unroll(full)
    for (int w = 0; w < words; w++) {
      const int at = b * words + w;
      const __m256i word = _mm256_loadu_si256((const __m256i *)(codes + at * 64));
      if (half == 0) __builtin_prefetch(from->next_codes[g] + at * 64);
      const __m256i even = _mm256_shuffle_epi8(table, _mm256_and_si256(word, nibble));
      const __m256i odd = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(word, 4), nibble));
      const __m256i keys[4] = {_mm256_and_si256(even, low), _mm256_and_si256(odd, low), _mm256_srli_epi16(even, 8),
                               _mm256_srli_epi16(odd, 8)};
#pragma clang loop unroll(full)
      for (int k = 0; k < 4; k++)
        for (int r = 0; r < nr; r++)
          part[r] = NAME(dot)(part[r], keys[k], q + r * q_stride + at * 4 + k);
    }
    const __m256 scale = NAME(scale_lanes)(scales + b * GROUP, is_e4m3);
    if (half == 0) __builtin_prefetch(from->next_scales[g] + b * GROUP);
    for (int r = 0; r < nr; r++) sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(part[r]), scale, sum[r]);
  }
  for (int r = 0; r < nr; r++) {
    const __m256 factor = _mm256_castsi256_ps(NAME(broadcast_pair)(q + r * q_stride + pairs + key->dimension / 16));
    _mm256_storeu_ps(scores + r * TILE + g * GROUP + half * 8, _mm256_mul_ps(sum[r], factor));
  }
}

static void NAME(fp4_score)(const operand *key, const tile *from, int rows, const uint32_t *q, int64_t q_stride,
                            float *scores) {
  const int is_e4m3 = key->recipe == NB_NVFP4 || key->recipe == NB_NVFP4_4OVER6;
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
    for (int i = 0; i < 2 * GROUPS; i++) {
#define CALL_KIND(n, words, is_e4m3)                                                                                   \
  NAME(fp4_score_rows)(n, words, is_e4m3, key, from, i / 2, i % 2, q + r * q_stride, q_stride, scores + r * TILE)
#define CALL(n)                                                                                                        \
  if (is_e4m3) CALL_KIND(n, 2, 1);                                                                                     \
  else if (key->recipe == NB_MXFP4) CALL_KIND(n, 4, 0);                                                                \
  else CALL_KIND(n, 2, 0)
      EACH_COUNT(nr, CALL)
#undef CALL
#undef CALL_KIND
    }
  }
}

// Probabilities of one row times a block's scales in 15 bits, as token pairs; returns the unit of the integers, halved because values
// are doubled. The unit comes from the greatest product: tokens that the row does not see are zeros and do not matter.
INLINE float NAME(fp4_pack_probabilities)(int groups, const float *scales, const float *p, uint32_t *pairs) {
  __m256 most = _mm256_setzero_ps();
  for (int t = 0; t < groups * GROUP; t += 8)
    most = _mm256_max_ps(most, _mm256_mul_ps(_mm256_loadu_ps(p + t), _mm256_loadu_ps(scales + t)));
  const float amax = NAME(greatest_of_8)(most);
  const __m256 inverse = _mm256_set1_ps(amax > 0 ? 32767.0f / amax : 0.0f);
  for (int t = 0; t < groups * GROUP; t += GROUP) {
    const __m256 a = _mm256_mul_ps(_mm256_loadu_ps(p + t), _mm256_loadu_ps(scales + t));
    const __m256 b = _mm256_mul_ps(_mm256_loadu_ps(p + t + 8), _mm256_loadu_ps(scales + t + 8));
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(a, inverse)),
                                             _mm256_cvtps_epi32(_mm256_mul_ps(b, inverse)));
    _mm256_storeu_si256((__m256i *)(pairs + t / 2), _mm256_permute4x64_epi64(words, 0xD8));
  }
  return 0.5f * (amax / 32767.0f);
}

// Eight lanes of a unit: dimensions first ... first + 7 (low nibbles, block `a`) and second ... second + 7 (high nibbles, block `b`) of
// `nr` rows.
INLINE void NAME(fp4_value_rows)(const int nr, const tile *from, int groups, int offset, int stride, int first, int second,
                                 int a, int b, const uint32_t *pairs, const float *units, int blocks, const float *alpha,
                                 float *out, int64_t out_stride) {
  const __m256i table = NAME(load_table)(e2m1_doubled), nibble = _mm256_set1_epi8(15);
  __m256i sum[STRIP][2];
  for (int r = 0; r < nr; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  const uint32_t *low = pairs + a * (TILE / 2), *high = pairs + b * (TILE / 2);
  const int row = blocks * (TILE / 2);
  for (int g = 0; g < groups; g++)
    for (int quad = 0; quad < 4; quad++) {
      const uint8_t *codes = from->codes[g] + offset + quad * stride;
      const __m256i lanes = _mm256_loadu_si256((const __m256i *)codes);
      __builtin_prefetch(from->next_codes[g] + offset + quad * stride);
      const __m256i x = _mm256_shuffle_epi8(table, _mm256_and_si256(lanes, nibble));
      const __m256i y = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(lanes, 4), nibble));
      const int pair = g * 8 + quad * 2;
#pragma clang loop unroll(full)
      for (int side = 0; side < 2; side++) {
        const __m256i values[2] = {_mm256_srai_epi16(side == 0 ? _mm256_slli_epi16(x, 8) : x, 8),
                                   _mm256_srai_epi16(side == 0 ? _mm256_slli_epi16(y, 8) : y, 8)};
        for (int r = 0; r < nr; r++) {
          sum[r][0] = NAME(dot)(sum[r][0], values[0], low + r * row + pair + side);
          sum[r][1] = NAME(dot)(sum[r][1], values[1], high + r * row + pair + side);
        }
      }
    }
  for (int r = 0; r < nr; r++) {
    const __m256 factor = _mm256_set1_ps(alpha[r]);
    float *to = out + r * out_stride;
    _mm256_storeu_ps(to + first, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][0]), _mm256_set1_ps(units[r * blocks + a]),
                                                 _mm256_mul_ps(_mm256_loadu_ps(to + first), factor)));
    _mm256_storeu_ps(to + second, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][1]), _mm256_set1_ps(units[r * blocks + b]),
                                                  _mm256_mul_ps(_mm256_loadu_ps(to + second), factor)));
  }
}

// out = out * alpha + probabilities * values.
static __attribute__((noinline)) void NAME(fp4_value)(const operand *value, const tile *from, int groups, int rows, const float *p,
    const int *visible, uint32_t *pairs,
                            float *units, const float *alpha, float *out, int64_t out_stride) {
  (void)visible;
  const int blocks = value->row_scales, runs = value->recipe == NB_MXFP4 ? 2 : 1;
  const int is_e4m3 = value->recipe == NB_NVFP4 || value->recipe == NB_NVFP4_4OVER6;
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
    for (int b = 0; b < blocks; b++) {
      float scales[TILE];
      for (int t = 0; t < groups * GROUP; t += 8) {
        const uint8_t *bytes = from->scales[t / GROUP] + b * GROUP + t % GROUP;
        __builtin_prefetch(from->next_scales[t / GROUP] + b * GROUP);
        _mm256_storeu_ps(scales + t, is_e4m3 ? NAME(scale_lanes)(bytes, 1) : NAME(scale_lanes)(bytes, 0));
      }
      for (int i = 0; i < nr; i++) {
        const int at = i * blocks + b;
        units[at] = NAME(fp4_pack_probabilities)(groups, scales, p + (r + i) * TILE, pairs + at * (TILE / 2));
      }
    }
    for (int d = 0; d < value->dimension; d += 16) {
      // Half a unit of 32 dimensions (16 bytes of lanes are 8 of each nibble), or a last half unit.
      const int unit = d / 32 * 32, is_half = value->dimension - unit < 32, lanes = is_half ? 0 : d % 32 / 2;
      const int offset = unit * 8 + lanes * 4, stride = is_half ? 32 : 64;
      const int first = unit + lanes, second = first + (is_half ? 8 : 16);
#define CALL(n)                                                                                                        \
  NAME(fp4_value_rows)(n, from, groups, offset, stride, first, second, first / 16 / runs, second / 16 / runs, pairs,   \
                       units, blocks, alpha + r, out + r * out_stride, out_stride)
      EACH_COUNT(nr, CALL)
#undef CALL
    }
  }
}
