// Four-bit keys and values with AVX-512 VNNI, in integers: a byte permute turns codes into bytes, twice the values;
// queries and probabilities are rounded to 23 bits and lie in three digits of eight bits, each of which takes one
// `vpdpbusd` a vector of codes, or, by choice, to 16 bits in two digits. The sums are exact. Compiled inside a
// target("avx512...") region.
//
// Both have the same byte order: nibble n of byte j of a token's word is dimension 2 j + n, and a line has that word of
// 16 tokens.
//
// Keys: quads of query digits have the order of a word's low, or high, nibbles. Keys are offset by 12 to be unsigned,
// which the packed queries make up for. A block's sum is multiplied by its scale once.
//
// Values: a byte permute of two lines collects eight tokens of a dimension pair, so that eight bytes of digits meet
// eight dimensions. Probabilities are multiplied by the block scale and rounded to a grid that depends on the greatest
// scale among those tokens of the tile that the row sees; no probability is above 1.
//
// Three digits leave an error of 6e-7, two one of 5e-5: little beside that of four-bit keys and values, but it flips so
// many codes of the next layer's that logits move by 2e-2.

enum {
  DIGITS = 3,                 // of a packed query; with two, the upper one is not read
  KEY_OFFSET = 12,            // makes doubled keys unsigned
  QUERY_RUN = 4 * DIGITS + 1, // words of 16 dimensions of a packed query
};

// Greatest integer of a query: 24 x 16 of those of three digits fit 32 bits, those of two have 8 bits and a sign in the
// upper one.
INLINE float query_limit(int digits) { return digits == 3 ? (1 << 22) - 1 : (1 << 15) - 129; }

// Greatest integer of a probability, with room for rounding.
INLINE float probability_limit(int digits) { return digits == 3 ? (1 << 23) - 8 : (1 << 16) - 64; }

// E2M1 to twice its value, four times: vpermb looks at six bits, of which the upper two belong to the neighbouring
// code.
#define E2M1_DOUBLED 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
static const int8_t e2m1_doubled_wide[64] = {E2M1_DOUBLED, E2M1_DOUBLED, E2M1_DOUBLED, E2M1_DOUBLED};

INLINE __m512i doubled(void) { return _mm512_loadu_si512(e2m1_doubled_wide); }

INLINE __m512i lookup(__m512i table, __m512i codes) { return _mm512_permutexvar_epi8(codes, table); }

// The two below are volatile to stay in the order they are written in: left to itself, the compiler moves all
// broadcasts of a block to its top and spills the sums.
INLINE __m512i broadcast_quad(const uint32_t *quad) {
  __m512i quads;
  __asm__ volatile("vpbroadcastd %1, %0" : "=v"(quads) : "m"(*quad));
  return quads;
}

INLINE __m512i broadcast_octet(const uint8_t *octet) {
  __m512i octets;
  __asm__ volatile("vpbroadcastq %1, %0" : "=v"(octets) : "m"(*(const uint8_t(*)[8])octet));
  return octets;
}

// sum + a * b, four neighbouring bytes to a lane.
INLINE __m512i dot(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
  return sum;
}

// How a recipe's block scale bytes become floats: shifted into the exponent, then multiplied.
typedef struct scale_reader {
  __m512i shift;
  __m512 factor;
} scale_reader;

INLINE scale_reader scale_reader_of(nb_recipe recipe) {
  const int is_e4m3 = recipe == NB_NVFP4 || recipe == NB_NVFP4_4OVER6;
  return (scale_reader){_mm512_set1_epi32(is_e4m3 ? 20 : 23), _mm512_set1_ps(is_e4m3 ? 0x1p120f : 1.0f)};
}

INLINE __m512 scale_lanes(const uint8_t *scales, scale_reader reader) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)scales));
  return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_sllv_epi32(wide, reader.shift)), reader.factor);
}

// Queries of one row, already scaled floats, in runs of 16 dimensions: the signed digits of quad i, the upper first, at
// [i DIGITS] (quad 2 w + n has the dimensions 8 w + n + {0, 2, 4, 6}), then what makes up for the offset of the keys.
// The factor of the integers comes last.
static void NAME(fp4_pack_queries)(const float *q, const operand *key, uint32_t *packed) {
  const int dimension = key->dimension;
  __m512 most = _mm512_setzero_ps();
  for (int d = 0; d < dimension; d += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(q + d)));
  const float amax = _mm512_reduce_max_ps(most), limit = query_limit(key->digits);
  const float inverse = amax > 0x1p-100f ? limit / amax : 0.0f;
  const float factor = 0.5f * (amax / limit); // keys are doubled
  const __m512i bytes =
      _mm512_setr_epi32(0x1A120A02, 0x19110901, 0x18100800, 0x1E160E06, 0x1D150D05, 0x1C140C04, 0x3A322A22, 0x39312921,
                        0x38302820, 0x3E362E26, 0x3D352D25, 0x3C342C24, 0, 0, 0, 0);
  const __m512i signs = _mm512_set1_epi32(0x00808080);
  for (int d = 0; d < dimension; d += 16, packed += QUERY_RUN) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(q + d), _mm512_set1_ps(inverse)));
    const __m512i signed_bytes = _mm512_xor_si512(_mm512_add_epi32(rounded, signs), signs);
    _mm512_mask_storeu_epi32(packed, (1 << 4 * DIGITS) - 1, _mm512_permutexvar_epi8(bytes, signed_bytes));
    packed[4 * DIGITS] = (uint32_t)(-KEY_OFFSET * _mm512_reduce_add_epi32(rounded));
  }
  memcpy(packed, &factor, sizeof factor);
}

// sums + codes * one digit of `nr` rows' queries, for the `nh` groups of `codes`.
INLINE void fp4_dot_digit(const int nr, const int nh, const __m512i codes[4][4], int i, const uint32_t *digit,
                          int64_t q_stride, __m512i sums[STRIP][4]) {
#pragma clang loop unroll(full)
  for (int r = 0; r < nr; r++) {
    const __m512i digits = broadcast_quad(digit + r * q_stride);
#pragma clang loop unroll(full)
    for (int h = 0; h < nh; h++) sums[r][h] = dot(sums[r][h], codes[h][i], digits);
  }
}

// Scores of `nr` rows with the `nh` groups from g on of a tile; the sums over blocks live in `scores`. The lowest digit
// is summed apart from the other two: twice the independent sums, which keep the multipliers busy.
INLINE void fp4_score_rows(const int nr, const int nh, const int digits, const operand *key, const tile *from, int g,
                           const uint32_t *q, int64_t q_stride, float *scores) {
  const __m512i table = _mm512_add_epi8(doubled(), _mm512_set1_epi8(KEY_OFFSET));
  const scale_reader reader = scale_reader_of(key->recipe);
  const int runs = key->dimension / 16, runs_of_scale = key->recipe == NB_MXFP4 ? 2 : 1;
  for (int b = 0; b < runs; b++, q += QUERY_RUN) {
    __m512i codes[4][4], upper[STRIP][4], lowest[STRIP][4];
#pragma clang loop unroll(full)
    for (int h = 0; h < nh; h++) {
#pragma clang loop unroll(full)
      for (int w = 0; w < 2; w++) {
        const __m512i word = _mm512_loadu_si512(from->codes[g + h] + (2 * b + w) * 64);
        fetch_line(from->next->codes[g + h] + (2 * b + w) * 64);
        codes[h][2 * w] = lookup(table, word);
        codes[h][2 * w + 1] = lookup(table, _mm512_srli_epi16(word, 4));
      }
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++) {
        upper[r][h] = _mm512_setzero_si512();
        lowest[r][h] = _mm512_set1_epi32((int32_t)q[r * q_stride + 4 * DIGITS]);
      }
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
      fp4_dot_digit(nr, nh, codes, i, q + (i + 1) * DIGITS - digits, q_stride, upper);
      fp4_dot_digit(nr, nh, codes, i, q + (i + 1) * DIGITS - 1, q_stride, lowest);
    }
    if (digits == 3) {
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++)
        for (int h = 0; h < nh; h++) upper[r][h] = _mm512_slli_epi32(upper[r][h], 8);
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++) fp4_dot_digit(nr, nh, codes, i, q + (i + 1) * DIGITS - 2, q_stride, upper);
    }
#pragma clang loop unroll(full)
    for (int h = 0; h < nh; h++) {
      const __m512 scale = scale_lanes(from->scales[g + h] + b / runs_of_scale * GROUP, reader);
      fetch_line(from->next->scales[g + h] + b / runs_of_scale * GROUP);
#pragma clang loop unroll(full)
      for (int r = 0; r < nr; r++) {
        float *to = scores + r * TILE + (g + h) * GROUP;
        const __m512 before = b == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(to);
        const __m512 total = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(upper[r][h], 8), lowest[r][h]));
        _mm512_storeu_ps(to, _mm512_fmadd_ps(total, scale, before));
      }
    }
  }
  for (int r = 0; r < nr; r++) {
    const __m512 factor = _mm512_castsi512_ps(broadcast_quad(q + r * q_stride));
    for (int h = 0; h < nh; h++) {
      float *to = scores + r * TILE + (g + h) * GROUP;
      _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_loadu_ps(to), factor));
    }
  }
}

static void NAME(fp4_score)(const operand *key, const tile *from, int rows, const uint32_t *q, int64_t q_stride,
                            float *scores) {
  for (int r = 0; r < rows; r += STRIP) {
    const int nr = rows - r < STRIP ? rows - r : STRIP;
    // As many groups at a time as the sums have registers for.
#define CALL_WITH(n, digits)                                                                                           \
  for (int g = 0; g < GROUPS; g += n < 2 ? 4 : 2)                                                                      \
  fp4_score_rows(n, n < 2 ? 4 : 2, digits, key, from, g, q + r * q_stride, q_stride, scores + r * TILE)
#define CALL(n)                                                                                                        \
  if (key->digits == 3) CALL_WITH(n, 3);                                                                               \
  else CALL_WITH(n, 2)
    EACH_COUNT(nr, CALL)
#undef CALL
#undef CALL_WITH
  }
}

// For each block of a tile, of which `visible` tokens count: what takes a token's probability times its scale to an
// integer, at [block][token], and what 1 of a sum of integers stands for.
static void fp4_grids(const operand *value, const tile *from, int visible, float *grids, float *units) {
  const scale_reader reader = scale_reader_of(value->recipe);
  const float greatest_integer = probability_limit(value->digits);
  const __m512 limit = _mm512_set1_ps(greatest_integer);
  for (int b = 0; b < value->row_scales; b += 4) {
    const int left = value->row_scales - b < 4 ? value->row_scales - b : 4;
    const uint64_t exist = left < 4 ? (1ull << 16 * left) - 1 : ~0ull;
    __m512i most = _mm512_setzero_si512();
    for (int g = 0; g < GROUPS && g * GROUP < visible; g++) {
      const int seen = visible - g * GROUP;
      const uint64_t tokens = seen < GROUP ? ((1ull << seen) - 1) * 0x0001000100010001ull : ~0ull;
      most = _mm512_max_epu8(most, _mm512_maskz_loadu_epi8(exist & tokens, from->scales[g] + b * GROUP));
      fetch_line(from->next->scales[g] + b * GROUP);
    }
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 8));
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 4));
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 2));
    most = _mm512_max_epu8(most, _mm512_bsrli_epi128(most, 1));
    // The greatest scales of block b + i in all lanes of quarter i. The bound keeps the quotient finite.
    const __m512i bytes = _mm512_and_si512(_mm512_shuffle_epi8(most, _mm512_setzero_si512()), _mm512_set1_epi32(0xFF));
    const __m512 scales = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_sllv_epi32(bytes, reader.shift)), reader.factor);
    const __m512 greatest = _mm512_max_ps(scales, _mm512_set1_ps(0x1p-100f));
    const __m512 factors = _mm512_div_ps(limit, greatest);
    const __m512 unit = _mm512_mul_ps(greatest, _mm512_set1_ps(0.5f / greatest_integer)); // values are doubled
    _mm512_mask_storeu_ps(units + b, (__mmask16)((1 << left) - 1), _mm512_maskz_compress_ps(0x1111, unit));
    for (int i = 0; i < left; i++, grids += TILE) {
      const __m512 factor = _mm512_permutexvar_ps(_mm512_set1_epi32(4 * i), factors);
#pragma clang loop unroll(full)
      for (int g = 0; g < GROUPS; g++) {
        const __m512 scale = scale_lanes(from->scales[g] + (b + i) * GROUP, reader);
        // Tokens that the row doesn't see may exceed the limit, but have no probability.
        _mm512_storeu_ps(grids + g * GROUP, _mm512_min_ps(_mm512_mul_ps(scale, factor), limit));
      }
    }
  }
}

// The two partial sums of each even and each odd dimension, added and in order.
INLINE __m512i add_halves(__m512i even, __m512i odd) {
  const __m512i crossed = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
  return _mm512_add_epi32(_mm512_mask_blend_epi32(0xAAAA, even, odd), _mm512_permutex2var_epi32(even, crossed, odd));
}

// Probabilities of a group of `nr` rows as integers: of each row the lowest digits of 16 tokens, then their middle,
// then their upper ones. Rows are 64 bytes apart, those of two digits 32.
INLINE void fp4_digits(const int nr, const int digits, const float *p, const float *grid, uint8_t *to) {
  const __m512i of_row =
      _mm512_setr_epi32(0x0C080400, 0x1C181410, 0x2C282420, 0x3C383430, 0x0D090501, 0x1D191511, 0x2D292521, 0x3D393531,
                        0x0E0A0602, 0x1E1A1612, 0x2E2A2622, 0x3E3A3632, -1, -1, -1, -1);
  const __m512i of_two_rows =
      _mm512_setr_epi32(0x0C080400, 0x1C181410, 0x2C282420, 0x3C383430, 0x0D090501, 0x1D191511, 0x2D292521, 0x3D393531,
                        0x4C484440, 0x5C585450, 0x6C686460, 0x7C787470, 0x4D494541, 0x5D595551, 0x6D696561, 0x7D797571);
  const __m512 magic = _mm512_set1_ps(0x1p23f); // a float in [2^23, 2^24) has an integer in its lower bits
  const __m512 factor = _mm512_loadu_ps(grid);
  __m512i rounded[STRIP];
#pragma clang loop unroll(full)
  for (int r = 0; r < nr; r++)
    rounded[r] = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_loadu_ps(p + r * TILE), factor, magic));
#pragma clang loop unroll(full)
  for (int r = 0; r < nr; r++) {
    if (digits == 3) _mm512_store_si512(to + r * 64, _mm512_permutexvar_epi8(of_row, rounded[r]));
    if (digits == 2 && r % 2 == 0)
      _mm512_store_si512(to + r * 32,
                         _mm512_permutex2var_epi8(rounded[r], of_two_rows, rounded[r + 1 < nr ? r + 1 : r]));
  }
}

// out = out * alpha + probabilities * values of `nr` rows, 16 dimensions at a time. The digits of a run are made beside
// the products of the run before, which leaves nothing to wait for.
INLINE void fp4_value_rows(const int nr, const int digits, const operand *value, const tile *from, const float *p,
                           const float *grids, const float *units, const float *alpha, const float *unit, float *out,
                           int64_t out_stride) {
  enum { BANKS_OF_ONE = 2 }; // one row alone has too few sums to keep the multipliers busy
  const int banks = nr == 1 ? BANKS_OF_ONE : 1;
  const int runs = value->dimension / 16, runs_of_scale = value->recipe == NB_MXFP4 ? 2 : 1;
  const __m512i table = doubled();
  // Bytes of eight tokens of canonical byte i at 8 i ... 8 i + 7.
  const __m512i first_octets =
      _mm512_setr_epi64(0x1C1814100C080400, 0x1D1915110D090501, 0x1E1A16120E0A0602, 0x1F1B17130F0B0703,
                        0x5C5854504C484440, 0x5D5955514D494541, 0x5E5A56524E4A4642, 0x5F5B57534F4B4743);
  _Alignas(64) uint8_t integers[2][GROUPS][STRIP * 64]; // aligned, or loads would wait for their stores
  const int integer_stride = digits == 3 ? 64 : 32;
  for (int g = 0; g < GROUPS; g++) fp4_digits(nr, digits, p + g * GROUP, grids + g * GROUP, integers[0][g]);
  // The next tile is fetched in the order of its addresses, which the memory answers sooner than the order in which it
  // will be read, a run at a time.
  int next_group = 0, next_run = 0;
  for (int b = 0; b < runs; b++) {
    const int next = b + 1 < runs ? b + 1 : b;
    const float *grid = grids + next / runs_of_scale * TILE;
    __m512i sum[STRIP][BANKS_OF_ONE][2][DIGITS];
#pragma clang loop unroll(full)
    for (int r = 0; r < nr; r++)
      for (int bank = 0; bank < banks; bank++)
        for (int n = 0; n < 2; n++)
          for (int digit = 0; digit < digits; digit++) sum[r][bank][n][digit] = _mm512_setzero_si512();
#pragma clang loop unroll(disable)
    for (int g = 0; g < GROUPS; g++) {
      const uint8_t *codes_of_run = from->codes[g] + b * 128;
      const __m512i first = _mm512_loadu_si512(codes_of_run), second = _mm512_loadu_si512(codes_of_run + 64);
      const uint8_t *lines = from->next->codes[next_group] + next_run * 128;
      fetch_line(lines);
      fetch_line(lines + 64);
      if (++next_run == runs) {
        next_run = 0;
        next_group++;
      }
#pragma clang loop unroll(full)
      for (int h = 0; h < 2; h++) {
        const __m512i index = _mm512_add_epi8(first_octets, _mm512_set1_epi8((char)(32 * h)));
        const __m512i octets = _mm512_permutex2var_epi8(first, index, second);
        const __m512i codes[2] = {lookup(table, octets), lookup(table, _mm512_srli_epi16(octets, 4))};
#pragma clang loop unroll(full)
        for (int r = 0; r < nr; r++)
#pragma clang loop unroll(full)
          for (int digit = 0; digit < digits; digit++) {
            const __m512i octet = broadcast_octet(integers[b % 2][g] + r * integer_stride + 16 * digit + 8 * h);
#pragma clang loop unroll(full)
            for (int n = 0; n < 2; n++)
              sum[r][h % banks][n][digit] = dot(sum[r][h % banks][n][digit], octet, codes[n]);
          }
        if (h == 0) fp4_digits(nr, digits, p + g * GROUP, grid + g * GROUP, integers[(b + 1) % 2][g]);
      }
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < nr; r++) {
      __m512i low[2], high[2];
#pragma clang loop unroll(full)
      for (int n = 0; n < 2; n++) {
        __m512i *first = sum[r][0][n];
        if (banks == 2)
          for (int digit = 0; digit < digits; digit++)
            first[digit] = _mm512_add_epi32(first[digit], sum[r][1][n][digit]);
        low[n] = _mm512_add_epi32(_mm512_slli_epi32(first[1], 8), first[0]);
        if (digits == 3) high[n] = first[2];
      }
      float *to = out + r * out_stride + b * 16;
      __m512 total = _mm512_cvtepi32_ps(add_halves(low[0], low[1]));
      if (digits == 3)
        total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(add_halves(high[0], high[1])), _mm512_set1_ps(0x1p16f), total);
      const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(to), _mm512_set1_ps(alpha[r]));
      _mm512_storeu_ps(to, _mm512_fmadd_ps(total, _mm512_set1_ps(units[b / runs_of_scale] * unit[r]), before));
    }
  }
}

// What `fp4_value` needs to know of a tile that a row sees all of.
static void NAME(fp4_prepare_values)(const operand *value, const tile *from, float *grids, float *units) {
  fp4_grids(value, from, TILE, grids, units);
}

// out = out * alpha + probabilities * values, after `fp4_prepare_values`.
static void NAME(fp4_value)(const operand *value, const step *at, int rows, float *grids, float *units, float *out,
                            int64_t out_stride) {
  const tile *from = at->values;
  const float *p = at->weights->scores + at->first * TILE;
  const float *alpha = at->weights->alpha + at->first, *unit = at->weights->unit + at->first;
  const int *visible = at->weights->visible + at->first, *digits = at->weights->digits + at->first;
  for (int r = 0, nr = 0, grid_of = TILE; r < rows; r += nr) {
    for (nr = 1; nr < STRIP && r + nr < rows && visible[r + nr] == visible[r]; nr++) {}
    if (visible[r] != grid_of) fp4_grids(value, from, grid_of = visible[r], grids, units);
    int is_narrow = value->digits == 2; // a row of two digits has the same sums with a third one, of zeros
    for (int i = r; i < r + nr && is_narrow; i++) is_narrow = digits[i] == 2;
#define CALL_WITH(n, digits)                                                                                           \
  fp4_value_rows(n, digits, value, from, p + r * TILE, grids, units, alpha + r, unit + r, out + r * out_stride,        \
                 out_stride)
#define CALL(n)                                                                                                        \
  if (is_narrow) CALL_WITH(n, 2);                                                                                      \
  else CALL_WITH(n, 3)
    EACH_COUNT(nr, CALL)
#undef CALL
#undef CALL_WITH
  }
}
