// Four-bit keys and values with AVX-512 VNNI, in integers: a byte permute turns codes into bytes, twice the values; queries and
// probabilities are rounded to 23 bits and lie in three digits of eight bits, each of which takes one `vpdpbusd` a vector of codes.
// The sums are exact. Compiled inside a target("avx512...") region.
//
// Keys: nibble n of byte j of a token's word is dimension 2 j + n; quads of query digits have that order. Keys are offset by 12
// to be unsigned, which the packed queries make up for. A block's sum is multiplied by its scale once.
// Values: quads are neighbouring tokens. Probabilities are multiplied by the block scale and rounded to a grid that depends on the
// greatest scale among those tokens of the tile that the row sees; no probability is above 1.
//
// Two digits are not enough: an error of 5e-5 flips so many codes of the next layer's keys and values that logits move by 2e-2; that
// of three is 6e-7.

enum {
  QUERY_LIMIT = (1 << 22) - 1,       // greatest integer of a query: 12 x 16 of them fit 32 bits
  PROBABILITY_LIMIT = (1 << 23) - 8, // and of a probability, with room for rounding
  DIGITS = 3,
  KEY_OFFSET = 12,                   // makes doubled keys unsigned
  HALF = GROUPS / 2,                 // groups of a tile that are scored at a time
  QUERY_RUN = 4 * DIGITS + 1,        // words of 16 dimensions of a packed query
  WEIGHTS = TILE,                    // words of a row's probabilities of a block
};

// E2M1 to twice its value, four times: vpermb looks at six bits, of which the upper two belong to the neighbouring code.
#define E2M1_DOUBLED 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
static const int8_t e2m1_doubled_wide[64] = {E2M1_DOUBLED, E2M1_DOUBLED, E2M1_DOUBLED, E2M1_DOUBLED};

INLINE __m512i doubled(void) { return _mm512_loadu_si512(e2m1_doubled_wide); }

INLINE __m512i lookup(__m512i table, __m512i codes) { return _mm512_permutexvar_epi8(codes, table); }

// The two below are volatile to stay in the order they are written in: left to itself, the compiler moves all broadcasts of a
// block to its top and spills the sums.
INLINE __m512i broadcast_quad(const uint32_t *quad) {
  __m512i quads;
  __asm__ volatile("vpbroadcastd %1, %0" : "=v"(quads) : "m"(*quad));
  return quads;
}

// sum + a * b, four neighbouring bytes to a lane.
INLINE __m512i dot(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
  return sum;
}

// How a recipe's block scale bytes become floats: shifted into the exponent, then multiplied.
typedef struct scale_reader {
  __m128i shift;
  __m512 factor;
} scale_reader;

INLINE scale_reader scale_reader_of(nb_recipe recipe) {
  const int is_e4m3 = recipe == NB_NVFP4 || recipe == NB_NVFP4_4OVER6;
  return (scale_reader){_mm_cvtsi32_si128(is_e4m3 ? 20 : 23), _mm512_set1_ps(is_e4m3 ? 0x1p120f : 1.0f)};
}

INLINE __m512 scale_lanes(const uint8_t *scales, scale_reader reader) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)scales));
  return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_sll_epi32(wide, reader.shift)), reader.factor);
}

// Queries of one row, already scaled floats, in runs of 16 dimensions: the signed digits of quad i, the upper first, at [i DIGITS]
// (quad 2 w + n has the dimensions 8 w + n + {0, 2, 4, 6}), then what makes up for the offset of the keys. The factor of the
// integers comes last.
static void NAME(fp4_pack_queries)(const float *q, const operand *key, uint32_t *packed) {
  const int dimension = key->dimension;
  __m512 most = _mm512_setzero_ps();
  for (int d = 0; d < dimension; d += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(q + d)));
  const float amax = _mm512_reduce_max_ps(most), inverse = amax > 0x1p-100f ? QUERY_LIMIT / amax : 0.0f;
  const float factor = 0.5f * (amax / QUERY_LIMIT); // keys are doubled
  const __m512i bytes = _mm512_setr_epi32(0x1A120A02, 0x19110901, 0x18100800, 0x1E160E06, 0x1D150D05, 0x1C140C04, 0x3A322A22,
                                          0x39312921, 0x38302820, 0x3E362E26, 0x3D352D25, 0x3C342C24, 0, 0, 0, 0);
  const __m512i signs = _mm512_set1_epi32(0x00808080);
  for (int d = 0; d < dimension; d += 16, packed += QUERY_RUN) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(q + d), _mm512_set1_ps(inverse)));
    const __m512i digits = _mm512_xor_si512(_mm512_add_epi32(rounded, signs), signs);
    _mm512_mask_storeu_epi32(packed, (1 << 4 * DIGITS) - 1, _mm512_permutexvar_epi8(bytes, digits));
    packed[4 * DIGITS] = (uint32_t)(-KEY_OFFSET * _mm512_reduce_add_epi32(rounded));
  }
  memcpy(packed, &factor, sizeof factor);
}

// Scores of `nr` rows with the groups g and g + 1 of a tile; the sums over blocks live in `scores`.
INLINE void fp4_score_rows(const int nr, const operand *key, const tile *from, int g, const uint32_t *q, int64_t q_stride,
                           float *scores) {
  const __m512i table = _mm512_add_epi8(doubled(), _mm512_set1_epi8(KEY_OFFSET));
  const scale_reader reader = scale_reader_of(key->recipe);
  const int runs = key->dimension / 16, runs_of_scale = key->recipe == NB_MXFP4 ? 2 : 1;
  for (int b = 0; b < runs; b++, q += QUERY_RUN) {
    __m512i codes[HALF][4], part[STRIP][HALF];
#pragma clang loop unroll(full)
    for (int h = 0; h < HALF; h++)
#pragma clang loop unroll(full)
      for (int w = 0; w < 2; w++) {
        const __m512i word = _mm512_loadu_si512(from->codes[g + h] + (2 * b + w) * 64);
        __builtin_prefetch(from->next_codes[g + h] + (2 * b + w) * 64);
        codes[h][2 * w] = lookup(table, word);
        codes[h][2 * w + 1] = lookup(table, _mm512_srli_epi16(word, 4));
      }
#pragma clang loop unroll(full)
    for (int r = 0; r < nr; r++)
      for (int h = 0; h < HALF; h++) part[r][h] = _mm512_setzero_si512();
#pragma clang loop unroll(full)
    for (int digit = 0; digit < DIGITS; digit++) {
      if (digit > 0)
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++)
          for (int h = 0; h < HALF; h++) part[r][h] = _mm512_slli_epi32(part[r][h], 8);
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++)
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++) {
          const __m512i digits = broadcast_quad(q + r * q_stride + i * DIGITS + digit);
          for (int h = 0; h < HALF; h++) part[r][h] = dot(part[r][h], codes[h][i], digits);
        }
    }
#pragma clang loop unroll(full)
    for (int h = 0; h < HALF; h++) {
      const __m512 scale = scale_lanes(from->scales[g + h] + b / runs_of_scale * GROUP, reader);
      __builtin_prefetch(from->next_scales[g + h] + b / runs_of_scale * GROUP);
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++) {
        float *to = scores + r * TILE + (g + h) * GROUP;
        const __m512i offset = _mm512_set1_epi32((int32_t)q[r * q_stride + 4 * DIGITS]);
        const __m512 before = b == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(to);
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(part[r][h], offset));
        _mm512_storeu_ps(to, _mm512_fmadd_ps(sum, scale, before));
      }
    }
  }
  for (int r = 0; r < nr; r++) {
    const __m512 factor = _mm512_castsi512_ps(broadcast_quad(q + r * q_stride));
    for (int h = 0; h < HALF; h++) {
      float *to = scores + r * TILE + (g + h) * GROUP;
      _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_loadu_ps(to), factor));
    }
  }
}

static void NAME(fp4_score)(const operand *key, const tile *from, int rows, const uint32_t *q, int64_t q_stride,
                            float *scores) {
  for (int g = 0; g < GROUPS; g += HALF)
    for (int r = 0; r < rows; r += STRIP) {
      const int nr = rows - r < STRIP ? rows - r : STRIP;
#define CALL(n) fp4_score_rows(n, key, from, g, q + r * q_stride, q_stride, scores + r * TILE)
      EACH_COUNT(nr, CALL)
#undef CALL
    }
}

// A tile of values as token quads of doubled values, [quad][dimension], from a region in the keys' byte order (MLA's latent): a byte
// permute collects a dimension's codes of a quad.
static void fp4_decode_latent_values(const operand *value, const tile *from, int groups, uint32_t *to) {
  const __m512i table = doubled();
  static const uint8_t token[4] = {0, 2, 1, 3};
  uint8_t bytes[64];
  for (int l = 0; l < 16; l++)
    for (int j = 0; j < 4; j++) bytes[4 * l + j] = (uint8_t)(l / 8 * 64 + token[j] * 4 + l % 8 / 2);
  const __m512i first = _mm512_loadu_si512(bytes), step = _mm512_set1_epi8(16);
  const __m512i nibble = _mm512_set1_epi64(4ll << 32); // odd lanes take the high nibble
  for (int g = 0; g < groups; g++)
    for (int d = 0; d < value->dimension; d += 16) {
      const __m512i low = _mm512_loadu_si512(from->codes[g] + d * 8), high = _mm512_loadu_si512(from->codes[g] + d * 8 + 64);
      __m512i index = first;
      uint32_t *out = to + (int64_t)g * 4 * value->dimension + d;
      for (int quad = 0; quad < 4; quad++, out += value->dimension) {
        const __m512i picked = _mm512_permutex2var_epi8(low, index, high);
        _mm512_storeu_si512(out, lookup(table, _mm512_srlv_epi32(picked, nibble)));
        index = _mm512_add_epi8(index, step);
      }
    }
}

// The greatest scale of each block among the first `visible` tokens of a tile, four blocks at a time.
static void fp4_greatest_scales(const operand *value, const tile *from, int visible, float *greatest) {
  for (int b = 0; b < value->row_scales; b += 4) {
    const int left = value->row_scales - b;
    const uint64_t exist = left < 4 ? (1ull << 16 * left) - 1 : ~0ull;
    __m512i most = _mm512_setzero_si512();
    for (int g = 0; g < GROUPS && g * GROUP < visible; g++) {
      const int seen = visible - g * GROUP;
      const uint64_t tokens = seen < GROUP ? ((1ull << seen) - 1) * 0x0001000100010001ull : ~0ull;
      most = _mm512_max_epu8(most, _mm512_maskz_loadu_epi8(exist & tokens, from->scales[g] + b * GROUP));
    }
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 8));
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 4));
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 2));
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 1));
    uint8_t bytes[64];
    _mm512_storeu_si512(bytes, most);
    for (int i = 0; i < 4 && i < left; i++) greatest[b + i] = nb_block_scale(value->recipe, bytes[16 * i]);
  }
}

// Probabilities of a strip times block scales: digits of quad i, the lowest first, at [block][row][4 i]; and what
// 1 stands for, at [row][block].
INLINE void fp4_pack_probabilities(const int nr, const operand *value, const tile *from, const float *p, const int *visible,
                                   uint32_t *weights, float *units) {
  const scale_reader reader = scale_reader_of(value->recipe);
  const __m512 limit = _mm512_set1_ps(PROBABILITY_LIMIT);
  const __m512 magic = _mm512_set1_ps(0x1p23f); // a float in [2^23, 2^24) has an integer in its lower bits
  // The four tokens of a 128-bit lane become words of their lowest, middle and upper digits.
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi32(0x0C040800, 0x0D050901, 0x0E060A02, -1));
  const int blocks = value->row_scales;
  for (int r = 0; r < nr; r++) {
    float *greatest = units + r * blocks;
    if (r > 0 && visible[r] == visible[r - 1]) memcpy(greatest, greatest - blocks, (size_t)blocks * sizeof(float));
    else fp4_greatest_scales(value, from, visible[r], greatest);
  }
  for (int b = 0; b < blocks; b++) {
    __m512 scales[GROUPS], grid[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
      scales[g] = scale_lanes(from->scales[g] + b * GROUP, reader);
      __builtin_prefetch(from->next_scales[g] + b * GROUP);
    }
    float before = -1;
    for (int r = 0; r < nr; r++, weights += WEIGHTS) {
      const float greatest = units[r * blocks + b];
      if (greatest != before) {
        before = greatest;
        // The bound keeps the quotient finite; tokens that the row doesn't see may exceed the limit, but have no probability.
        const __m512 factor = _mm512_set1_ps(PROBABILITY_LIMIT / (greatest > 0x1p-100f ? greatest : 0x1p-100f));
        for (int g = 0; g < GROUPS; g++) grid[g] = _mm512_min_ps(_mm512_mul_ps(scales[g], factor), limit);
      }
      // Values are doubled.
      units[r * blocks + b] = (greatest > 0x1p-100f ? greatest : 0x1p-100f) * (0.5f / PROBABILITY_LIMIT);
      for (int g = 0; g < GROUPS; g++) {
        const __m512 rounded = _mm512_fmadd_ps(_mm512_loadu_ps(p + r * TILE + g * GROUP), grid[g], magic);
        _mm512_storeu_si512(weights + g * GROUP, _mm512_shuffle_epi8(_mm512_castps_si512(rounded), order));
      }
    }
  }
}

// out = out * alpha + probabilities * values: `nr` rows, `runs` x 16 dimensions from d on, quad after quad, from codes or from a decoded
// tile.
INLINE void fp4_value_rows(const int nr, const int runs, const int is_decoded, const operand *value, const tile *from,
                           const uint32_t *decoded, int groups, int d, const uint32_t *weights, const float *units,
                           const float *alpha, float *out, int64_t out_stride) {
  const __m512i table = doubled();
  const int block_size = value->recipe == NB_MXFP4 ? 32 : 16;
  const int block[2] = {d / block_size, (d + 16) / block_size};
  const uint32_t *of[2] = {weights + block[0] * (nr * WEIGHTS), weights + block[1] * (nr * WEIGHTS)};
  __m512i sum[STRIP][2][DIGITS];
#pragma clang loop unroll(full)
  for (int r = 0; r < nr; r++)
#pragma clang loop unroll(full)
    for (int run = 0; run < runs; run++)
#pragma clang loop unroll(full)
      for (int digit = 0; digit < DIGITS; digit++) sum[r][run][digit] = _mm512_setzero_si512();
  for (int g = 0; g < groups; g++) {
    const uint8_t *codes = from->codes[g] + d / 32 * 256, *next = from->next_codes[g] + d / 32 * 256;
    for (int quad = 0; quad < 4; quad++) {
      __m512i values[2];
      if (is_decoded) {
        for (int run = 0; run < runs; run++)
          values[run] = _mm512_loadu_si512(decoded + (int64_t)(g * 4 + quad) * value->dimension + d + 16 * run);
      } else if (runs == 1) { // a half unit
        const __m256i half = _mm256_loadu_si256((const __m256i *)(codes + quad * 32));
        values[0] = lookup(table, _mm512_inserti64x4(_mm512_castsi256_si512(half), _mm256_srli_epi16(half, 4), 1));
        __builtin_prefetch(next + quad * 32);
      } else {
        const __m512i lanes = _mm512_loadu_si512(codes + quad * 64);
        values[0] = lookup(table, lanes);
        values[1] = lookup(table, _mm512_srli_epi16(lanes, 4));
        __builtin_prefetch(next + quad * 64);
      }
      const int at = g * GROUP + quad * 4;
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++)
#pragma clang loop unroll(full)
        for (int digit = 0; digit < DIGITS; digit++)
#pragma clang loop unroll(full)
          for (int run = 0; run < runs; run++)
            sum[r][run][digit] =
                dot(sum[r][run][digit], broadcast_quad(of[run] + r * WEIGHTS + at + digit), values[run]);
    }
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < nr; r++)
#pragma clang loop unroll(full)
    for (int run = 0; run < runs; run++) {
      float *to = out + r * out_stride + d + 16 * run;
      const __m512i low = _mm512_add_epi32(_mm512_slli_epi32(sum[r][run][1], 8), sum[r][run][0]);
      const __m512 total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][run][2]), _mm512_set1_ps(0x1p16f), _mm512_cvtepi32_ps(low));
      const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(to), _mm512_set1_ps(alpha[r]));
      _mm512_storeu_ps(to, _mm512_fmadd_ps(total, _mm512_set1_ps(units[r * value->row_scales + block[run]]), before));
    }
}

static void fp4_value_of(const operand *value, const tile *from, const uint32_t *decoded, int groups, int rows,
                         const float *p, const int *visible, uint32_t *weights, float *units, const float *alpha, float *out,
                         int64_t out_stride) {
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
#define CALL_RUNS(n, runs, is_decoded)                                                                                 \
  fp4_value_rows(n, runs, is_decoded, value, from, decoded, groups, d, weights, units, alpha + r, out + r * out_stride, \
                 out_stride)
#define CALL_KIND(n, is_decoded)                                                                                       \
  for (; d + 32 <= value->dimension; d += 32) CALL_RUNS(n, 2, is_decoded);                                             \
  if (d < value->dimension) CALL_RUNS(n, 1, is_decoded)
#define CALL(n)                                                                                                        \
  {                                                                                                                    \
    int d = 0;                                                                                                         \
    fp4_pack_probabilities(n, value, from, p + r * TILE, visible + r, weights, units);                                 \
    if (decoded != NULL) {                                                                                             \
      CALL_KIND(n, 1);                                                                                                 \
    } else {                                                                                                           \
      CALL_KIND(n, 0);                                                                                                 \
    }                                                                                                                  \
  }
    EACH_COUNT(nr, CALL)
#undef CALL
#undef CALL_KIND
#undef CALL_RUNS
  }
}

static void NAME(fp4_value)(const operand *value, const tile *from, int groups, int rows, const float *p, const int *visible,
                            uint32_t *weights, float *units, const float *alpha, float *out, int64_t out_stride) {
  fp4_value_of(value, from, NULL, groups, rows, p, visible, weights, units, alpha, out, out_stride);
}

// Values of a latent region; `decoded` is a tile's memory.
static void NAME(fp4_latent_value)(const operand *value, const tile *from, int groups, int rows, const float *p,
                                   const int *visible, uint32_t *weights, float *units, uint32_t *decoded,
                                   const float *alpha, float *out, int64_t out_stride) {
  fp4_decode_latent_values(value, from, groups, decoded);
  fp4_value_of(value, from, decoded, groups, rows, p, visible, weights, units, alpha, out, out_stride);
}
