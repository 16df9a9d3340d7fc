// Four-bit keys and values with AVX2, in floats: two byte shuffles turn codes into the upper and the lower byte of a
// bfloat16, which is the upper half of a float; queries and probabilities stay as they are. Compiled inside a
// target("avx2,fma") region that defines NAME(x).
//
// Interleaving the two bytes leaves pairs of numbers side by side that meet the same pair of factors: dimensions for
// keys, tokens for values. Keys: a block's sums are multiplied by its scale once. Values: probabilities are multiplied
// by the block scale beforehand.

static const uint8_t e2m1_upper[16] = {0x00, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40,
                                       0x80, 0xBF, 0xBF, 0xBF, 0xC0, 0xC0, 0xC0, 0xC0};
static const uint8_t e2m1_lower[16] = {0x00, 0x00, 0x80, 0xC0, 0x00, 0x40, 0x80, 0xC0,
                                       0x00, 0x00, 0x80, 0xC0, 0x00, 0x40, 0x80, 0xC0};

// Codes in bytes as numbers in pairs: of four bytes 0 ... 3, the numbers 0 and 2 in `first`, 1 and 3 in `second`; [0]
// has the first eight bytes of each 128-bit half, [1] the other eight.
typedef struct NAME(numbers) {
  __m256 first[2], second[2];
} NAME(numbers);

INLINE NAME(numbers) NAME(numbers_of)(__m256i codes) {
  const __m256i nibbles = _mm256_and_si256(codes, _mm256_set1_epi8(15)),
                halves = _mm256_set1_epi32((int32_t)0xFFFF0000);
  const __m256i upper =
      _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)e2m1_upper)), nibbles);
  const __m256i lower =
      _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)e2m1_lower)), nibbles);
  const __m256i pairs[2] = {_mm256_unpacklo_epi8(lower, upper), _mm256_unpackhi_epi8(lower, upper)};
  NAME(numbers) all;
  for (int i = 0; i < 2; i++) {
    all.first[i] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs[i], 16));
    all.second[i] = _mm256_castsi256_ps(_mm256_and_si256(pairs[i], halves));
  }
  return all;
}

// sums + values * the pair of floats at `factors`, in one volatile piece: left to itself, the compiler moves a block's
// broadcasts to its top and spills.
INLINE void NAME(multiply_add)(__m256 sums[2], const __m256 values[2], const float *factors) {
  __m256 broadcast;
  __asm__ volatile("vbroadcastsd %5, %2\n\tvfmadd231ps %3, %2, %0\n\tvfmadd231ps %4, %2, %1"
                   : "+x"(sums[0]), "+x"(sums[1]), "=&x"(broadcast)
                   : "x"(values[0]), "x"(values[1]), "m"(*(const float(*)[2])factors));
}

// Eight block scales as floats. An E8M0 byte of 0, 2^-127, counts as 0. Encoders write no E8M0 byte of 255 and no E4M3
// byte that is negative or not a number.
INLINE __m256 NAME(scale_lanes)(const uint8_t *scales, const int is_e4m3) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)scales));
  return is_e4m3 ? _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 20)), _mm256_set1_ps(0x1p120f))
                 : _mm256_castsi256_ps(_mm256_slli_epi32(wide, 23));
}

// Queries of one row, already scaled; the dimensions of a word in the order that `numbers_of` gives them.
static void NAME(fp4_pack_queries)(const float *q, const operand *key, uint32_t *packed) {
  const __m256i order = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7);
  for (int d = 0; d < key->dimension; d += 8)
    _mm256_storeu_ps((float *)packed + d, _mm256_permutevar8x32_ps(_mm256_loadu_ps(q + d), order));
}

// Scores of `nr` rows with eight tokens of group g. Each token has two partial sums, side by side.
INLINE void NAME(fp4_score_rows)(const int nr, const int words, const int is_e4m3, const operand *key, const tile *from,
                                 int g, int half, const float *q, int64_t q_stride, float *scores) {
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
      if (half == 0) __builtin_prefetch(from->next->codes[g] + at * 64);
#pragma clang loop unroll(full)
      for (int n = 0; n < 2; n++) {
        const NAME(numbers) keys = NAME(numbers_of)(n == 0 ? word : _mm256_srli_epi16(word, 4));
        const float *of = q + at * 8 + 4 * n;
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++) NAME(multiply_add)(part[r], keys.first, of + r * q_stride);
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++) NAME(multiply_add)(part[r], keys.second, of + r * q_stride + 2);
      }
    }
    const __m256 scale = NAME(scale_lanes)(scales + b * GROUP, is_e4m3);
    if (half == 0) __builtin_prefetch(from->next->scales[g] + b * GROUP);
    for (int r = 0; r < nr; r++) sum[r] = _mm256_fmadd_ps(_mm256_hadd_ps(part[r][0], part[r][1]), scale, sum[r]);
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

// Probabilities of a strip times block scales, as floats [block][row][TILE].
INLINE void NAME(fp4_scale_probabilities)(const int nr, const operand *value, const tile *from, const float *p,
                                          float *weights) {
  const int is_e4m3 = value->recipe == NB_NVFP4 || value->recipe == NB_NVFP4_4OVER6;
  for (int b = 0; b < value->row_scales; b++, weights += nr * TILE)
    for (int t = 0; t < TILE; t += 8) {
      const uint8_t *bytes = from->scales[t / GROUP] + b * GROUP + t % GROUP;
      __builtin_prefetch(from->next->scales[t / GROUP] + b * GROUP);
      const __m256 scales = is_e4m3 ? NAME(scale_lanes)(bytes, 1) : NAME(scale_lanes)(bytes, 0);
      for (int r = 0; r < nr; r++)
        _mm256_storeu_ps(weights + r * TILE + t, _mm256_mul_ps(_mm256_loadu_ps(p + r * TILE + t), scales));
    }
}

// weights * values of `nr` rows and every second dimension of the run of 16 from d on, the first or the second nibbles.
// A byte shuffle of two words' quads of tokens puts a canonical byte, a dimension pair, of the tokens 0, 2, 1, 3 into
// each lane.
INLINE void NAME(fp4_value_nibbles)(const int nr, const int nibble, const tile *from, int d, const float *weights,
                                    __m256 sums[STRIP]) {
  const __m256i tokens =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15));
  __m256 part[STRIP][2];
  for (int r = 0; r < nr; r++) part[r][0] = part[r][1] = _mm256_setzero_ps();
  for (int g = 0; g < GROUPS; g++)
#pragma clang loop unroll(full)
    for (int quad = 0; quad < 4; quad++) {
      const uint8_t *at = from->codes[g] + d * 8 + quad * 16;
      if (nibble == 0 && quad % 2 == 0) __builtin_prefetch(from->next->codes[g] + d * 8 + quad * 32);
      const __m256i words = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
                                                    _mm_loadu_si128((const __m128i *)(at + 64)), 1);
      const __m256i lanes = _mm256_shuffle_epi8(words, tokens);
      const NAME(numbers) values = NAME(numbers_of)(nibble == 0 ? lanes : _mm256_srli_epi16(lanes, 4));
      const float *weight = weights + g * GROUP + quad * 4;
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++) NAME(multiply_add)(part[r], values.first, weight + r * TILE);
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++) NAME(multiply_add)(part[r], values.second, weight + r * TILE + 2);
    }
  for (int r = 0; r < nr; r++) sums[r] = _mm256_hadd_ps(part[r][0], part[r][1]);
}

// A run of 16 dimensions of `nr` rows: out = out * alpha + weights * values.
INLINE void NAME(fp4_value_rows)(const int nr, const tile *from, int d, const float *weights, const float *alpha,
                                 float *out, int64_t out_stride) {
  __m256 even[STRIP], odd[STRIP];
  NAME(fp4_value_nibbles)(nr, 0, from, d, weights, even);
  NAME(fp4_value_nibbles)(nr, 1, from, d, weights, odd);
  for (int r = 0; r < nr; r++) {
    float *to = out + r * out_stride + d;
    const __m256 factor = _mm256_set1_ps(alpha[r]);
    const __m256 low = _mm256_unpacklo_ps(even[r], odd[r]), high = _mm256_unpackhi_ps(even[r], odd[r]);
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_loadu_ps(to), factor, _mm256_permute2f128_ps(low, high, 0x20)));
    _mm256_storeu_ps(to + 8, _mm256_fmadd_ps(_mm256_loadu_ps(to + 8), factor, _mm256_permute2f128_ps(low, high, 0x31)));
  }
}

static void NAME(fp4_prepare_values)(const operand *value, const tile *from, float *grids, float *units) {
  (void)value, (void)from, (void)grids, (void)units;
}

// out = out * alpha + probabilities * values.
static __attribute__((noinline)) void NAME(fp4_value)(const operand *value, const step *at, int rows, float *weights,
                                                      float *units, float *out, int64_t out_stride) {
  (void)units;
  const tile *from = at->values;
  const float *p = at->weights->scores + at->first * TILE, *alpha = at->weights->alpha + at->first;
  const int block = value->recipe == NB_MXFP4 ? 32 : 16;
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
#define CALL(n)                                                                                                        \
  {                                                                                                                    \
    NAME(fp4_scale_probabilities)(n, value, from, p + r * TILE, weights);                                              \
    for (int d = 0; d < value->dimension; d += 16)                                                                     \
      NAME(fp4_value_rows)(n, from, d, weights + d / block * (n * TILE), alpha + r, out + r * out_stride, out_stride); \
  }
    EACH_COUNT(nr, CALL)
#undef CALL
  }
}
