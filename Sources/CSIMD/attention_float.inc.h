// Float arithmetic on f32, bf16 and fp8 regions and on decoded tiles, in vector extensions, compiled once per level:
// the including file defines NAME(x), and FLOAT_ROWS x FLOAT_BLOCKS, the tile of sums that its registers hold. Sixteen
// lanes are the tokens of a group (keys) or sixteen dimensions (values) at every level.

INLINE vf16 NAME(load)(const void *from) {
  vf16 value;
  memcpy(&value, from, sizeof value);
  return value;
}

INLINE void NAME(store)(void *to, vf16 value) { memcpy(to, &value, sizeof value); }

INLINE vf16 NAME(as_float)(vu16 bits) {
  vf16 value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// E4M3 bytes at bits 31 ... 24 as floats times 2^-120: the arithmetic shift repeats the sign above the exponent, the
// mask leaves one copy.
INLINE vf16 NAME(e4m3)(vu16 top) {
  vi16 bits;
  memcpy(&bits, &top, sizeof bits);
  bits = (bits >> 4) & (int32_t)0x87F00000;
  memcpy(&top, &bits, sizeof bits);
  return NAME(as_float)(top);
}

// Values of dimension 16-run `d` of a canonical row; fp8 times 2^-120.
INLINE vf16 NAME(row_values)(const nb_recipe recipe, const uint8_t *row, int d) {
  if (recipe == NB_F32) return NAME(load)(row + 4 * d);
  if (recipe == NB_BF16) {
    vh16 half;
    memcpy(&half, row + 2 * d, sizeof half);
    return NAME(as_float)(__builtin_convertvector(half, vu16) << 16);
  }
  vb16 bytes;
  memcpy(&bytes, row + d, sizeof bytes);
  vi16 bits = (__builtin_convertvector(bytes, vi16) << 20) & (int32_t)0x87F00000;
  vf16 value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// The dimensions that word `w` of a group's 16 tokens holds, one vector each; returns how many.
INLINE int NAME(word_values)(const nb_recipe recipe, const uint8_t *group, int w, vf16 *values) {
  vu16 word;
  memcpy(&word, group + 64 * w, sizeof word);
  if (recipe == NB_F32) {
    values[0] = NAME(as_float)(word);
    return 1;
  }
  if (recipe == NB_BF16) {
    values[0] = NAME(as_float)(word << 16);
    values[1] = NAME(as_float)(word & 0xFFFF0000u);
    return 2;
  }
  values[0] = NAME(e4m3)(word << 24);
  values[1] = NAME(e4m3)(word << 16);
  values[2] = NAME(e4m3)(word << 8);
  values[3] = NAME(e4m3)(word);
  return 4;
}

// Scores of `nr` rows: even and odd dimensions are summed apart, each in ascending order.
INLINE void NAME(score_rows)(const nb_recipe recipe, const int nr, const operand *key, const tile *from, int groups,
                             const float *q, int64_t q_stride, int accumulate, float *scores) {
  const int words = key->row_bytes / 4;
  for (int g = 0; g < groups; g++) {
    const uint8_t *codes = from->codes[g], *next = from->next->codes[g];
    vf16 even[STRIP], odd[STRIP];
    for (int r = 0; r < nr; r++) even[r] = odd[r] = (vf16){0};
    const int step = recipe == NB_F32 ? 2 : 1; // an even number of dimensions a turn; dimensions are multiples of 16
    for (int w = 0, d = 0; w < words; w += step) {
      vf16 values[4];
      int count = NAME(word_values)(recipe, codes, w, values);
      __builtin_prefetch(next + 64 * w);
      if (step == 2) {
        count += NAME(word_values)(recipe, codes, w + 1, values + 1);
        __builtin_prefetch(next + 64 * w + 64);
      }
      for (int i = 0; i < count; i += 2, d += 2)
        for (int r = 0; r < nr; r++) {
          even[r] += values[i] * q[r * q_stride + d];
          odd[r] += values[i + 1] * q[r * q_stride + d + 1];
        }
    }
    for (int r = 0; r < nr; r++) {
      float *to = scores + r * TILE + g * GROUP;
      const vf16 sum = (even[r] + odd[r]) * key->post;
      NAME(store)(to, accumulate ? NAME(load)(to) + sum : sum);
    }
  }
}

// out = out * alpha + probabilities * values for `nr` rows and `nb` x 16 dimensions from d on, token after token.
INLINE void NAME(value_rows)(const nb_recipe recipe, const int nr, const int nb, const operand *value, const tile *from,
                             int groups, int d, const float *p, const float *alpha, float *out, int64_t out_stride) {
  vf16 sum[STRIP][4];
  for (int r = 0; r < nr; r++)
    for (int b = 0; b < nb; b++) sum[r][b] = NAME(load)(out + r * out_stride + d + 16 * b) * alpha[r];
  const int size = nb_recipe_code_bits(recipe) / 8;
  const int bytes = nb * size * 16, group_runs = value->dimension / 16;
  for (int g = 0; g < groups; g++) {
    // The next tile is fetched in the order of its addresses, these dimensions' share of it here. (Where a share
    // doesn't fit a group, a few lines are fetched in vain.)
    const int run = d / 16 * GROUPS + g * nb;
    const uint8_t *next = from->next->codes[run / group_runs] + run % group_runs * (16 * size * GROUP);
    const uint8_t *row = from->codes[g];
    for (int t = 0; t < GROUP; t++, row += value->row_bytes, next += bytes) {
      for (int b = 0; b < bytes; b += 64) __builtin_prefetch(next + b);
      vf16 values[4];
      for (int b = 0; b < nb; b++) values[b] = NAME(row_values)(recipe, row, d + 16 * b);
      for (int r = 0; r < nr; r++) {
        const float weight = p[r * TILE + g * GROUP + t];
        for (int b = 0; b < nb; b++) sum[r][b] += values[b] * weight;
      }
    }
  }
  for (int r = 0; r < nr; r++)
    for (int b = 0; b < nb; b++) NAME(store)(out + r * out_stride + d + 16 * b, sum[r][b]);
}

// Constants for the inlined kernels, so that strips of rows live in registers.
#define EACH_RECIPE(recipe, CALL)                                                                                      \
  switch (recipe) {                                                                                                    \
  case NB_F32: CALL(NB_F32); break;                                                                                    \
  case NB_BF16: CALL(NB_BF16); break;                                                                                  \
  default: CALL(NB_FP8_E4M3); break;                                                                                   \
  }
#define EACH_COUNT(count, CALL)                                                                                        \
  switch (count) {                                                                                                     \
  case 1: CALL(1); break;                                                                                              \
  case 2: CALL(2); break;                                                                                              \
  case 3: CALL(3); break;                                                                                              \
  default: CALL(4); break;                                                                                             \
  }

static void NAME(score_float)(const operand *key, const tile *from, int groups, int rows, const float *q,
                              int64_t q_stride, int accumulate, float *scores) {
  for (int r = 0; r < rows; r += FLOAT_ROWS) {
    const int nr = rows - r < FLOAT_ROWS ? rows - r : FLOAT_ROWS;
#define CALL(recipe) EACH_COUNT(nr, CALL_COUNT_##recipe)
#define CALL_COUNT(recipe, n)                                                                                          \
  NAME(score_rows)(recipe, n, key, from, groups, q + r * q_stride, q_stride, accumulate, scores + r * TILE)
#define CALL_COUNT_NB_F32(n) CALL_COUNT(NB_F32, n)
#define CALL_COUNT_NB_BF16(n) CALL_COUNT(NB_BF16, n)
#define CALL_COUNT_NB_FP8_E4M3(n) CALL_COUNT(NB_FP8_E4M3, n)
    EACH_RECIPE(key->recipe, CALL)
#undef CALL_COUNT
  }
}

static void NAME(value_float)(const operand *value, const tile *from, int groups, int rows, const float *p,
                              const float *alpha, float *out, int64_t out_stride) {
  for (int r = 0; r < rows; r += FLOAT_ROWS) {
    const int nr = rows - r < FLOAT_ROWS ? rows - r : FLOAT_ROWS;
    int d = 0;
#define CALL_COUNT(recipe, n)                                                                                          \
  for (; d + 16 * FLOAT_BLOCKS <= value->dimension; d += 16 * FLOAT_BLOCKS)                                            \
    NAME(value_rows)(recipe, n, FLOAT_BLOCKS, value, from, groups, d, p + r * TILE, alpha + r, out + r * out_stride,   \
                     out_stride);                                                                                      \
  for (; d < value->dimension; d += 16)                                                                                \
  NAME(value_rows)(recipe, n, 1, value, from, groups, d, p + r * TILE, alpha + r, out + r * out_stride, out_stride)
    EACH_RECIPE(value->recipe, CALL)
#undef CALL_COUNT
#undef CALL
  }
}

// The magnitudes and signs of E2M1 codes in the low four bits: codes from 2 on are floats with a small exponent field,
// 0 and 1 lie on the line below them.
INLINE vf16 NAME(e2m1)(vu16 codes) {
  const vu16 magnitude = codes & 7;
  const vf16 normal = NAME(as_float)((magnitude << 22) + (126u << 23)), small = normal * 2.0f - 1.0f;
  vu16 a, b;
  memcpy(&a, &normal, sizeof a);
  memcpy(&b, &small, sizeof b);
  const vu16 is_small = (vu16)(magnitude < 2);
  return NAME(as_float)((a & ~is_small) | (b & is_small) | ((codes & 8) << 28));
}

INLINE vf16 NAME(block_scales)(const nb_recipe recipe, const uint8_t *scales) {
  vb16 bytes;
  memcpy(&bytes, scales, sizeof bytes);
  const vu16 wide = __builtin_convertvector(bytes, vu16) & 0xFF;
  if (recipe == NB_NVFP4 || recipe == NB_NVFP4_4OVER6) return NAME(as_float)(wide << 20) * 0x1p120f;
  return NAME(as_float)(wide << 23);
}

// A tile of keys as float rows of 16 tokens, [groups][dimension][16]: the f32 recipe's byte order. fp8 stays times
// 2^-120.
static void NAME(decode_keys)(const operand *key, const tile *from, int groups, float *to) {
  const int block = nb_recipe_block(key->recipe);
  for (int g = 0; g < groups; g++) {
    const uint8_t *codes = from->codes[g];
    float *out = to + (int64_t)g * key->dimension * GROUP;
    if (block == 0) {
#define CALL(recipe)                                                                                                   \
  for (int w = 0; w < key->row_bytes / 4; w++) {                                                                       \
    vf16 values[4];                                                                                                    \
    __builtin_prefetch(from->next->codes[g] + 64 * w);                                                                 \
    const int count = NAME(word_values)(recipe, codes, w, values);                                                     \
    for (int i = 0; i < count; i++, out += GROUP) NAME(store)(out, values[i]);                                         \
  }
      EACH_RECIPE(key->recipe, CALL)
#undef CALL
    } else {
      for (int d = 0; d < key->dimension; d += 8) {
        const vf16 scale = NAME(block_scales)(key->recipe, from->scales[g] + d / block * GROUP);
        vu16 word;
        memcpy(&word, codes + d * 8, sizeof word);
        __builtin_prefetch(from->next->codes[g] + d * 8);
        for (int i = 0; i < 8; i++, out += GROUP) NAME(store)(out, NAME(e2m1)(word >> (4 * i)) * scale);
      }
    }
  }
}

// A tile of values as float rows, [token][dimension]; fp8 stays times 2^-120.
static void NAME(decode_values)(const operand *value, const tile *from, int groups, float *to) {
  const int block = nb_recipe_block(value->recipe), dimension = value->dimension;
  for (int g = 0; g < groups; g++)
    for (int t = 0; t < GROUP; t++, to += dimension) {
      if (block == 0) {
        const uint8_t *row = from->codes[g] + t * value->row_bytes;
        for (int b = 0; b < value->row_bytes; b += 64)
          __builtin_prefetch(from->next->codes[g] + t * value->row_bytes + b);
#define CALL(recipe)                                                                                                   \
  for (int d = 0; d < dimension; d += 16) NAME(store)(to + d, NAME(row_values)(recipe, row, d))
        EACH_RECIPE(value->recipe, CALL)
#undef CALL
      } else {
        const uint8_t *words = from->codes[g] + 4 * t;
        for (int b = 4 * t; b < value->row_bytes; b += 64) __builtin_prefetch(from->next->codes[g] + b * GROUP);
        for (int d = 0; d < dimension; d += 16) {
          const float scale = nb_block_scale(value->recipe, from->scales[g][d / block * GROUP + t]);
          float pairs[8][2];
          for (int i = 0; i < 8; i++) memcpy(pairs[i], e2m1_pairs[words[d * 8 + i / 4 * 64 + i % 4]], sizeof pairs[i]);
          NAME(store)(to + d, NAME(load)(pairs) * scale);
        }
      }
    }
}

// [groups][dimension][16 tokens] to [token][dimension]: 16 x 16 squares turned in four rounds of interleaving.
static void NAME(transpose_tile)(const float *from, int groups, int dimension, float *to) {
  for (int g = 0; g < groups; g++)
    for (int d = 0; d < dimension; d += 16) {
      vf16 a[16], b[16];
      for (int i = 0; i < 16; i++) a[i] = NAME(load)(from + ((int64_t)g * dimension + d + i) * GROUP);
      for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
          b[2 * i] = __builtin_shufflevector(a[i], a[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
          b[2 * i + 1] =
              __builtin_shufflevector(a[i], a[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(a, b, sizeof a);
      }
      for (int t = 0; t < 16; t++) NAME(store)(to + (int64_t)(g * GROUP + t) * dimension + d, a[t]);
    }
}
