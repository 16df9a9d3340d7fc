// Four-bit keys and values with AVX2, in floats: a byte shuffle turns codes into bytes, twice the values, which become floats; queries and
// probabilities stay as they are. Compiled inside a target("avx2,fma") region that defines NAME(x).
//
// Keys: a vector is eight tokens, a block's sum is multiplied by its scale once. Values: a vector is eight dimensions of a token;
// probabilities are multiplied by the block scale beforehand.

static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// sum + values * the float at `factor`, in one volatile piece: left to itself, the compiler moves a block's broadcasts to its top and
// spills.
INLINE __m256 NAME(multiply_add)(__m256 sum, __m256 values, const float *factor) {
  __m256 broadcast;
  __asm__ volatile("vbroadcastss %3, %1\n\tvfmadd231ps %2, %1, %0"
                   : "+x"(sum), "=&x"(broadcast)
                   : "x"(values), "m"(*factor));
  return sum;
}

// The codes in the low nibbles of the bytes, doubled, as signed bytes.
INLINE __m256i NAME(lookup)(__m256i codes) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)e2m1_doubled));
  return _mm256_shuffle_epi8(table, _mm256_and_si256(codes, _mm256_set1_epi8(15)));
}

// Byte `index` of each 32-bit lane as a float.
INLINE __m256 NAME(byte_values)(__m256i bytes, const int index) {
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bytes, 24 - 8 * index), 24));
}

// Eight block scales as floats.
INLINE __m256 NAME(scale_lanes)(const uint8_t *scales, const int is_e4m3) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)scales));
  return is_e4m3 ? _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 20)), _mm256_set1_ps(0x1p120f))
                 : _mm256_castsi256_ps(_mm256_slli_epi32(wide, 23));
}

// Queries of one row, already scaled, halved because keys are doubled.
static void NAME(fp4_pack_queries)(const float *q, const operand *key, uint32_t *packed) {
  for (int d = 0; d < key->dimension; d += 8)
    _mm256_storeu_ps((float *)packed + d, _mm256_mul_ps(_mm256_loadu_ps(q + d), _mm256_set1_ps(0.5f)));
}

// Scores of `nr` rows with eight tokens of group g: even and odd dimensions of a block are summed apart.
INLINE void NAME(fp4_score_rows)(const int nr, const int words, const int is_e4m3, const operand *key, const tile *from, int g,
                                 int half, const float *q, int64_t q_stride, float *scores) {
  const uint8_t *codes = from->codes[g] + half * 32, *scales = from->scales[g] + half * 8;
  __m256 sum[STRIP];
  for (int r = 0; r < nr; r++) sum[r] = _mm256_setzero_ps();
  for (int b = 0; b < key->row_scales; b++) {
    __m256 part[STRIP][2];
    for (int r = 0; r < nr; r++) part[r][0] = part[r][1] = _mm256_setzero_ps();
#pragma clang loop unroll(full)
    for (int w = 0; w < words; w++) {
      const int at = b * words + w;
      const __m256i word = _mm256_loadu_si256((const __m256i *)(codes + at * 64));
      if (half == 0) __builtin_prefetch(from->next_codes[g] + at * 64);
      const __m256i even = NAME(lookup)(word), odd = NAME(lookup)(_mm256_srli_epi16(word, 4));
#pragma clang loop unroll(full)
      for (int k = 0; k < 4; k++) {
        const __m256 values[2] = {NAME(byte_values)(even, k), NAME(byte_values)(odd, k)};
        const float *of = q + at * 8 + 2 * k;
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++)
          for (int side = 0; side < 2; side++)
            part[r][side] = NAME(multiply_add)(part[r][side], values[side], of + r * q_stride + side);
      }
    }
    const __m256 scale = NAME(scale_lanes)(scales + b * GROUP, is_e4m3);
    if (half == 0) __builtin_prefetch(from->next_scales[g] + b * GROUP);
    for (int r = 0; r < nr; r++) sum[r] = _mm256_fmadd_ps(_mm256_add_ps(part[r][0], part[r][1]), scale, sum[r]);
  }
  for (int r = 0; r < nr; r++) _mm256_storeu_ps(scores + r * TILE + g * GROUP + half * 8, sum[r]);
}

static void NAME(fp4_score)(const operand *key, const tile *from, int rows, const uint32_t *packed, int64_t q_stride,
                            float *scores) {
  const int is_e4m3 = key->recipe == NB_NVFP4 || key->recipe == NB_NVFP4_4OVER6;
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
    const float *q = (const float *)packed + r * q_stride;
    for (int i = 0; i < 2 * GROUPS; i++) {
#define CALL_KIND(n, words, is_e4m3)                                                                                   \
  NAME(fp4_score_rows)(n, words, is_e4m3, key, from, i / 2, i % 2, q, q_stride, scores + r * TILE)
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

// Probabilities of a strip times half of the block scales (values are doubled), as floats [block][row][TILE].
INLINE void NAME(fp4_scale_probabilities)(const int nr, const operand *value, const tile *from, int groups, const float *p,
                                          float *weights) {
  const int is_e4m3 = value->recipe == NB_NVFP4 || value->recipe == NB_NVFP4_4OVER6;
  for (int b = 0; b < value->row_scales; b++, weights += nr * TILE)
    for (int t = 0; t < groups * GROUP; t += 8) {
      const uint8_t *bytes = from->scales[t / GROUP] + b * GROUP + t % GROUP;
      __builtin_prefetch(from->next_scales[t / GROUP] + b * GROUP);
      const __m256 scales = _mm256_mul_ps(is_e4m3 ? NAME(scale_lanes)(bytes, 1) : NAME(scale_lanes)(bytes, 0), _mm256_set1_ps(0.5f));
      for (int r = 0; r < nr; r++)
        _mm256_storeu_ps(weights + r * TILE + t, _mm256_mul_ps(_mm256_loadu_ps(p + r * TILE + t), scales));
    }
}

// A run of 16 dimensions of `nr` rows: out = out * alpha + weights * values. A byte shuffle of two words' quads of tokens puts a
// canonical byte, a dimension pair, of four tokens into each lane; even and odd dimensions are summed apart.
INLINE void NAME(fp4_value_rows)(const int nr, const tile *from, int groups, int d, const float *weights, const float *alpha,
                                 float *out, int64_t out_stride) {
  const __m256i tokens = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m256 sum[STRIP][2];
  for (int r = 0; r < nr; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int g = 0; g < groups; g++)
    for (int quad = 0; quad < 4; quad++) {
      const uint8_t *at = from->codes[g] + d * 8 + quad * 16;
      if (quad % 2 == 0) __builtin_prefetch(from->next_codes[g] + d * 8 + quad * 32);
      const __m256i words = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
                                                    _mm_loadu_si128((const __m128i *)(at + 64)), 1);
      const __m256i lanes = _mm256_shuffle_epi8(words, tokens);
      const __m256i even = NAME(lookup)(lanes), odd = NAME(lookup)(_mm256_srli_epi16(lanes, 4));
#pragma clang loop unroll(full)
      for (int token = 0; token < 4; token++) {
        const __m256 values[2] = {NAME(byte_values)(even, token), NAME(byte_values)(odd, token)};
        const float *weight = weights + g * GROUP + quad * 4 + token;
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++)
          for (int side = 0; side < 2; side++)
            sum[r][side] = NAME(multiply_add)(sum[r][side], values[side], weight + r * TILE);
      }
    }
  for (int r = 0; r < nr; r++) {
    float *to = out + r * out_stride + d;
    const __m256 factor = _mm256_set1_ps(alpha[r]);
    const __m256 low = _mm256_unpacklo_ps(sum[r][0], sum[r][1]), high = _mm256_unpackhi_ps(sum[r][0], sum[r][1]);
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_loadu_ps(to), factor, _mm256_permute2f128_ps(low, high, 0x20)));
    _mm256_storeu_ps(to + 8, _mm256_fmadd_ps(_mm256_loadu_ps(to + 8), factor, _mm256_permute2f128_ps(low, high, 0x31)));
  }
}

static void NAME(fp4_prepare_values)(const operand *value, const tile *from, float *grids, float *units) {
  (void)value, (void)from, (void)grids, (void)units;
}

// out = out * alpha + probabilities * values.
static __attribute__((noinline)) void NAME(fp4_value)(const operand *value, const tile *from, int rows, const float *p,
                                                      const int *visible, float *weights, float *units,
                                                      const float *alpha, float *out, int64_t out_stride) {
  (void)visible;
  (void)units;
  const int block = value->recipe == NB_MXFP4 ? 32 : 16;
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
#define CALL(n)                                                                                                        \
  {                                                                                                                    \
    NAME(fp4_scale_probabilities)(n, value, from, GROUPS, p + r * TILE, weights);                                      \
    for (int d = 0; d < value->dimension; d += 16)                                                                     \
      NAME(fp4_value_rows)(n, from, GROUPS, d, weights + d / block * (n * TILE), alpha + r, out + r * out_stride,      \
                           out_stride);                                                                                \
  }
    EACH_COUNT(nr, CALL)
#undef CALL
  }
}
