// The dense kernels in vector extensions, compiled once per instruction-set level: the including file defines NAME(x)
// and the tile of the matrix product, TILE_ROWS x TILE_COLUMNS, such that its sums stay in registers. A vector has 16
// floats at every level (two or four registers where the hardware is narrower), so the order of a sum is the same
// everywhere; levels may still differ in the last bit, where the hardware has no fused multiply-add.

// Sixteen E4M3 bytes as floats times 2^-120: exponent and mantissa moved to their places; the sign's copies above are
// masked.
static inline vf16 NAME(e4m3_values)(const uint8_t *bytes) {
  vi8 narrow;
  memcpy(&narrow, bytes, sizeof narrow);
  vi16 bits = __builtin_convertvector(narrow, vi16) << 20 & (int32_t)0x87f00000;
  return (vf16)bits;
}

// What inputs are multiplied by before, and sums after, to make up for weights that are read times 2^-120.
static inline float NAME(weight_factor)(nb_weight_type type) { return type == NB_WEIGHT_FP8_E4M3 ? 0x1p60f : 1; }

// The sixteen weights from `group` + 16 `block` on, `group` a multiple of 128; E4M3 times 2^-120. `width` is the row's.
static inline vf16 NAME(load_block)(nb_weight_type type, const void *row, int64_t width, int64_t group, int block) {
  int64_t k = group + 16 * block;
  if (type == NB_WEIGHT_NVFP4) {
    vu32 words;
    memcpy(&words, (const uint8_t *)row + group / 2, sizeof words);
    uint8_t scale = ((const uint8_t *)row)[(width + 127) / 128 * 64 + k / 16];
    return NAME(e2m1_values)(words >> (uint32_t)(4 * block)) * e4m3_scales[scale];
  }
  if (type == NB_WEIGHT_FP8_E4M3) return NAME(e4m3_values)((const uint8_t *)row + k);
  return NAME(load_weights)(type, row, k);
}

// The last weights of a row, from k on; zeros follow them.
static inline vf16 NAME(load_last_block)(nb_weight_type type, const void *row, int64_t width, int64_t k) {
  if (type == NB_WEIGHT_NVFP4) return NAME(load_block)(type, row, width, k & ~127, k / 16 % 8); // padded with zeros
  if (type == NB_WEIGHT_FP8_E4M3) {
    uint8_t padded[16] = {0};
    memcpy(padded, (const uint8_t *)row + k, width - k);
    return NAME(e4m3_values)(padded);
  }
  return NAME(load_weights_tail)(type, row, k, width - k);
}

static inline float NAME(sum)(vf16 v) {
  vf8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
          __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  vf4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
  return (b[0] + b[2]) + (b[1] + b[3]);
}

// Fetches the weights that come FETCH_AHEAD bytes after the 128 columns from k on of a tile's rows, as much as those
// take: in the order of their addresses, in which memory is fastest, and which the hardware can't guess from a tile's
// short rows. What other workers multiply, from `weights_end` on, is left to them.
static inline __attribute__((always_inline)) void
NAME(fetch_ahead)(nb_weight_type type, const uint8_t *tile, int columns, int64_t k, const uint8_t *weights_end) {
  const int group_bytes = columns * (int)(type == NB_WEIGHT_NVFP4      ? 72
                                          : type == NB_WEIGHT_FP8_E4M3 ? 128
                                          : type == NB_WEIGHT_F32      ? 512
                                                                       : 256);
  const uint8_t *ahead = tile + FETCH_AHEAD + k / 128 * group_bytes;
  if (ahead >= weights_end) return;
  for (int at = 0; at < group_bytes; at += 64) __builtin_prefetch(ahead + at);
}

// Sixteen inputs of a tile.
#define STEP(ROWS, COLUMNS, group, block)                                                                              \
  {                                                                                                                    \
    vf16 w[COLUMNS];                                                                                                   \
    _Pragma("unroll") for (int c = 0; c < COLUMNS; c++) w[c] =                                                         \
        NAME(load_block)(type, weights + c * row_bytes, width, group, block);                                          \
    _Pragma("unroll") for (int r = 0; r < ROWS; r++) {                                                                 \
      vf16 input = NAME(load)(x + r * x_stride + group + 16 * block) * NAME(weight_factor)(type);                      \
      _Pragma("unroll") for (int c = 0; c < COLUMNS; c++) sums[r][c] += input * w[c];                                  \
    }                                                                                                                  \
  }

// A tile of ROWS x COLUMNS dot products, each with one accumulator of 16 lanes along k.
#define TILE(ROWS, COLUMNS)                                                                                            \
  static inline __attribute__((always_inline)) void NAME(tile_##ROWS##x##COLUMNS)(                                     \
      nb_weight_type type, const uint8_t *weights, const uint8_t *weights_end, int64_t row_bytes, int64_t width,       \
      const float *factors, const float *bias, const float *x, int64_t x_stride, float *y, int64_t y_stride,           \
      int accumulate) {                                                                                                \
    vf16 sums[ROWS][COLUMNS];                                                                                          \
    _Pragma("unroll") for (int r = 0; r < ROWS; r++) _Pragma("unroll") for (int c = 0; c < COLUMNS; c++) sums[r][c] = \
        (vf16){0};                                                                                                     \
    int64_t k = 0;                                                                                                     \
    for (; k + 128 <= width; k += 128) {                                                                               \
      NAME(fetch_ahead)(type, weights, COLUMNS, k, weights_end);                                                       \
      if (type == NB_WEIGHT_NVFP4 && ROWS == 1) { /* unrolled, the expanded weights would not fit the registers */    \
        vu32 words[COLUMNS];                                                                                           \
        const uint8_t *scales = weights + (width + 127) / 128 * 64 + k / 16;                                           \
        _Pragma("unroll") for (int c = 0; c < COLUMNS; c++)                                                            \
            memcpy(words + c, weights + c * row_bytes + k / 2, sizeof *words);                                         \
        _Pragma("nounroll") for (int block = 0; block < 8; block++) {                                                  \
          vf16 input = NAME(load)(x + k + 16 * block);                                                                 \
          _Pragma("unroll") for (int c = 0; c < COLUMNS; c++, words[c - 1] >>= 4) sums[0][c] +=                        \
              input * (NAME(e2m1_values)(words[c]) * e4m3_scales[scales[c * row_bytes + block]]);                      \
        }                                                                                                              \
      } else {                                                                                                         \
        _Pragma("unroll") for (int block = 0; block < 8; block++) STEP(ROWS, COLUMNS, k, block)                        \
      }                                                                                                                \
    }                                                                                                                  \
    for (; k + 16 <= width; k += 16) STEP(ROWS, COLUMNS, (k & ~127), (int)(k / 16 % 8))                                \
    if (k < width) {                                                                                                   \
      _Pragma("unroll") for (int c = 0; c < COLUMNS; c++) {                                                            \
        vf16 w = NAME(load_last_block)(type, weights + c * row_bytes, width, k);                              \
        _Pragma("unroll") for (int r = 0; r < ROWS; r++) sums[r][c] +=                                                 \
            NAME(load_tail)(x + r * x_stride + k, width - k) * NAME(weight_factor)(type) * w;                          \
      }                                                                                                                \
    }                                                                                                                  \
    _Pragma("unroll") for (int r = 0; r < ROWS; r++) _Pragma("unroll") for (int c = 0; c < COLUMNS; c++) {             \
      float value = NAME(sum)(sums[r][c]) * NAME(weight_factor)(type);                                                 \
      if (factors) value *= factors[c];                                                                                \
      if (bias) value += bias[c];                                                                                      \
      float *out = y + r * y_stride + c;                                                                               \
      *out = accumulate ? *out + value : value;                                                                        \
    }                                                                                                                  \
  }

#define EXPANDED_TILE(ROWS, COLUMNS) TILE(ROWS, COLUMNS)
EXPANDED_TILE(TILE_ROWS, TILE_COLUMNS)
EXPANDED_TILE(TILE_ROWS, 1)
EXPANDED_TILE(2, TILE_COLUMNS)
TILE(2, 1)
#if TILE_ROWS > 3
EXPANDED_TILE(3, TILE_COLUMNS)
TILE(3, 1)
#endif
#if TILE_ROWS > 4
EXPANDED_TILE(4, TILE_COLUMNS)
TILE(4, 1)
#endif
#if TILE_ROWS > 5
EXPANDED_TILE(5, TILE_COLUMNS)
TILE(5, 1)
#endif
TILE(1, 4)
TILE(1, 1)
#undef EXPANDED_TILE
#undef TILE
#undef STEP

static inline __attribute__((always_inline)) void
NAME(linear_typed)(nb_weight_type type, const void *weights, int64_t width, int64_t first, int64_t end,
                   const float *factors, const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
                   int64_t y_stride, int accumulate) {
  int64_t row_bytes = nb_weight_row_bytes(type, width);
  const uint8_t *weights_end = (const uint8_t *)weights + end * row_bytes;
#define CALL(ROWS, COLUMNS) CALL_TILE(ROWS, COLUMNS)
#define CALL_TILE(ROWS, COLUMNS)                                                                                       \
  NAME(tile_##ROWS##x##COLUMNS)(type, (const uint8_t *)weights + n * row_bytes, weights_end, row_bytes, width,         \
                                factors ? factors + n : 0, bias ? bias + n : 0, x + r * x_stride, x_stride,            \
                                y + r * y_stride + n, y_stride, accumulate)
  for (int64_t at = 0; at < FETCH_AHEAD && at < (end - first) * row_bytes; at += 64)
    __builtin_prefetch((const uint8_t *)weights + first * row_bytes + at);
  // Blocks of outputs small enough for their weights to stay in the second-level cache while all rows pass.
  int64_t block = (512 * 1024 / row_bytes) & ~(int64_t)7;
  if (block < 8) block = 8;
  for (int64_t start = first; start < end; start += block) {
    int64_t stop = start + block < end ? start + block : end;
    int64_t r = 0;
#define PASS(ROWS)                                                                                                     \
  {                                                                                                                    \
    int64_t n = start;                                                                                                 \
    for (; n + TILE_COLUMNS <= stop; n += TILE_COLUMNS) CALL(ROWS, TILE_COLUMNS);                                      \
    for (; n < stop; n++) CALL(ROWS, 1);                                                                               \
  }
    for (; r + TILE_ROWS <= rows; r += TILE_ROWS) PASS(TILE_ROWS)
    // Small batches, and drafts to check: what is left of the rows shares one pass over the weights.
    switch (rows - r) {
#if TILE_ROWS > 5
    case 5: PASS(5) break;
#endif
#if TILE_ROWS > 4
    case 4: PASS(4) break;
#endif
#if TILE_ROWS > 3
    case 3: PASS(3) break;
#endif
    case 2: PASS(2) break;
    case 1: {
      int64_t n = start;
      // Where weights become floats in an operation or two, memory bounds, and it is fastest for one row after the
      // other.
      if (type == NB_WEIGHT_FP8_E4M3 || type == NB_WEIGHT_NVFP4)
        for (; n + 4 <= stop; n += 4) CALL(1, 4);
      for (; n < stop; n++) CALL(1, 1);
      break;
    }
    default: break;
    }
#undef PASS
  }
#undef CALL
#undef CALL_TILE
}

static void NAME(linear)(nb_weight_type type, const void *weights, int64_t width, int64_t first, int64_t end,
                         const float *factors, const float *bias, const float *x, int64_t x_stride, int64_t rows,
                         float *y, int64_t y_stride, int accumulate) {
  // One instantiation a type: inside, the type is a constant and its branches are gone.
#define CASE(TYPE)                                                                                                     \
  case TYPE:                                                                                                           \
    NAME(linear_typed)(TYPE, weights, width, first, end, factors, bias, x, x_stride, rows, y, y_stride, accumulate);   \
    break;
  switch (type) {
    CASE(NB_WEIGHT_F32)
    CASE(NB_WEIGHT_BF16)
    CASE(NB_WEIGHT_F16)
    CASE(NB_WEIGHT_FP8_E4M3)
    CASE(NB_WEIGHT_NVFP4)
  }
#undef CASE
}

static void NAME(weight_row)(nb_weight_type type, const void *weights, int64_t width, int64_t index, float *out) {
  const uint8_t *row = (const uint8_t *)weights + index * nb_weight_row_bytes(type, width);
  const float factor = NAME(weight_factor)(type) * NAME(weight_factor)(type);
  int64_t k = 0;
  for (; k + 16 <= width; k += 16) {
    vf16 values = NAME(load_block)(type, row, width, k & ~127, k / 16 % 8) * factor;
    memcpy(out + k, &values, sizeof values);
  }
  if (k < width) {
    vf16 values = NAME(load_last_block)(type, row, width, k) * factor;
    memcpy(out + k, &values, (width - k) * sizeof(float));
  }
}

// What a row is multiplied by before its norm's weight.
static inline float NAME(rms_factor)(const float *x, int64_t width, float epsilon) {
  vf16 squares = {0};
  int64_t k = 0;
  for (; k + 16 <= width; k += 16) {
    vf16 v = NAME(load)(x + k);
    squares += v * v;
  }
  if (k < width) {
    vf16 v = NAME(load_tail)(x + k, width - k);
    squares += v * v;
  }
  return 1.0f / sqrtf(NAME(sum)(squares) / (float)width + epsilon);
}

static void NAME(rms_norm)(const float *x, const float *weight, int64_t width, float epsilon, float *out) {
  float factor = NAME(rms_factor)(x, width, epsilon);
  for (int64_t k = 0; k < width; k++) out[k] = x[k] * factor * weight[k];
}

// exp for x <= 0 within 2 units in the last place: 2^n times a polynomial of degree 6 in the remainder (Cephes expf).
static inline vf16 NAME(exp_nonpositive)(vf16 x) {
  x = __builtin_elementwise_max(x, (vf16){0} - 87.0f);
  vf16 n = x * 1.44269504088896341f - 0.5f;
  vi16 integer = __builtin_convertvector(n, vi16); // truncates towards zero: the nearest integer for x <= 0
  vf16 whole = __builtin_convertvector(integer, vf16);
  vf16 r = x - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  vf16 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  vi16 bits = (integer + 127) << 23;
  vf16 power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

// sigmoid(x) = 1 / (1 + e) for x >= 0 and e / (1 + e) below, with e = exp(-|x|): no overflow on either side.
static inline vf16 NAME(silu)(vf16 x) {
  vf16 e = NAME(exp_nonpositive)(-__builtin_elementwise_abs(x));
  vf16 one = (vf16){0} + 1.0f;
  vi16 negative = x < 0.0f;
  vi16 bits = (negative & (vi16)e) | (~negative & (vi16)one);
  return x * ((vf16)bits / (e + 1.0f));
}

static void NAME(silu_multiply)(const float *gate, const float *up, int64_t count, float *out) {
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    vf16 values = NAME(silu)(NAME(load)(gate + k)) * NAME(load)(up + k);
    memcpy(out + k, &values, sizeof values);
  }
  if (k < count) {
    vf16 values = NAME(silu)(NAME(load_tail)(gate + k, count - k)) * NAME(load_tail)(up + k, count - k);
    memcpy(out + k, &values, (count - k) * sizeof(float));
  }
}

static void NAME(rotate)(float *x, const float *cosines, const float *sines, int64_t pairs, int interleaved) {
  if (interleaved) {
    for (int64_t i = 0; i < pairs; i++) {
      float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cosines[i] - b * sines[i];
      x[2 * i + 1] = b * cosines[i] + a * sines[i];
    }
  } else {
    for (int64_t i = 0; i < pairs; i++) {
      float a = x[i], b = x[i + pairs];
      x[i] = a * cosines[i] - b * sines[i];
      x[i + pairs] = b * cosines[i] + a * sines[i];
    }
  }
}

static void NAME(norm_rotate_heads)(float *x, int64_t count, int64_t width, const float *weight, float epsilon,
                                    const float *cosines, const float *sines, int64_t pairs, int interleaved) {
  int whole = weight && !interleaved && width == 2 * pairs && pairs % 16 == 0;
  for (float *head = x; head < x + count * width; head += width) {
    if (!whole) {
      if (weight) NAME(rms_norm)(head, weight, width, epsilon, head);
      NAME(rotate)(head + width - 2 * pairs, cosines, sines, pairs, interleaved);
      continue;
    }
    float factor = NAME(rms_factor)(head, width, epsilon);
    for (int64_t i = 0; i < pairs; i += 16) {
      vf16 a = NAME(load)(head + i) * factor * NAME(load)(weight + i);
      vf16 b = NAME(load)(head + i + pairs) * factor * NAME(load)(weight + i + pairs);
      vf16 cosine = NAME(load)(cosines + i), sine = NAME(load)(sines + i);
      vf16 first = a * cosine - b * sine, second = b * cosine + a * sine;
      memcpy(head + i, &first, sizeof first);
      memcpy(head + i + pairs, &second, sizeof second);
    }
  }
}
