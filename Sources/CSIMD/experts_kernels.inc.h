// Kernels of experts and latent attention in vector extensions, compiled once per instruction-set level: the including
// file defines NAME(x).

static void NAME(add_scaled)(const float *x, float factor, int64_t count, float *out) {
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    vf16 sum = NAME(load)(out + k) + NAME(load)(x + k) * factor;
    memcpy(out + k, &sum, sizeof sum);
  }
  if (k < count) {
    vf16 sum = NAME(load_tail)(out + k, count - k) + NAME(load_tail)(x + k, count - k) * factor;
    memcpy(out + k, &sum, (count - k) * sizeof(float));
  }
}

// Two rows of x by 64 columns of the weight; `tail` > 0 is the number of columns in a last, partial 16.
#define TILE(ROWS)                                                                                                     \
  static inline __attribute__((always_inline)) void NAME(multiply_tile_##ROWS)(                                        \
      nb_weight_type type, const uint8_t *weights, int64_t row_bytes, int64_t count, int64_t k, int vectors,           \
      int64_t tail, const float *x, int64_t x_stride, float *y, int64_t y_stride, int accumulate) {                    \
    vf16 sums[ROWS][4];                                                                                                \
    for (int r = 0; r < ROWS; r++)                                                                                     \
      for (int c = 0; c < 4; c++) {                                                                                    \
        sums[r][c] = (vf16){0};                                                                                        \
        if (accumulate && c < vectors)                                                                                 \
          sums[r][c] = NAME(load_tail)(y + r * y_stride + k + 16 * c, tail > 0 && c == vectors - 1 ? tail : 16);       \
      }                                                                                                                \
    for (int64_t n = 0; n < count; n++) {                                                                              \
      const uint8_t *row = weights + n * row_bytes;                                                                    \
      _Pragma("unroll") for (int c = 0; c < 4; c++) {                                                                  \
        if (c >= vectors) break;                                                                                       \
        vf16 w = tail > 0 && c == vectors - 1 ? NAME(load_weights_tail)(type, row, k + 16 * c, tail)                   \
                                              : NAME(load_weights)(type, row, k + 16 * c);                             \
        for (int r = 0; r < ROWS; r++) sums[r][c] += w * x[r * x_stride + n];                                          \
      }                                                                                                                \
    }                                                                                                                  \
    for (int r = 0; r < ROWS; r++)                                                                                     \
      for (int c = 0; c < vectors; c++)                                                                                \
        memcpy(y + r * y_stride + k + 16 * c, &sums[r][c],                                                             \
               (tail > 0 && c == vectors - 1 ? (size_t)tail : 16) * sizeof(float));                                    \
  }
TILE(1)
TILE(2)
#undef TILE

static inline __attribute__((always_inline)) void NAME(multiply_rows_typed)(
    nb_weight_type type, const void *weights, int64_t width, int64_t first, int64_t end, const float *x,
    int64_t x_stride, int64_t rows, float *y, int64_t y_stride, int accumulate) {
  int64_t row_bytes = width * (type == NB_WEIGHT_F32 ? 4 : 2);
  const uint8_t *start = (const uint8_t *)weights + first * row_bytes;
  int64_t count = end - first;
  int64_t r = 0;
#define COLUMNS(ROWS)                                                                                                  \
  int64_t k = 0;                                                                                                       \
  for (; k + 64 <= width; k += 64)                                                                                     \
    NAME(multiply_tile_##ROWS)(type, start, row_bytes, count, k, 4, 0, x + r * x_stride, x_stride, y + r * y_stride,   \
                               y_stride, accumulate);                                                                  \
  if (k < width)                                                                                                       \
    NAME(multiply_tile_##ROWS)(type, start, row_bytes, count, k, (int)((width - k + 15) / 16), (width - k) % 16,       \
                               x + r * x_stride, x_stride, y + r * y_stride, y_stride,          \
                               accumulate);
  for (; r + 2 <= rows; r += 2) {
    COLUMNS(2)
  }
  for (; r < rows; r++) {
    COLUMNS(1)
  }
#undef COLUMNS
}

static void NAME(multiply_rows)(nb_weight_type type, const void *weights, int64_t width, int64_t first, int64_t end,
                                const float *x, int64_t x_stride, int64_t rows, float *y, int64_t y_stride,
                                int accumulate) {
  switch (type) {
  case NB_WEIGHT_F32:
    NAME(multiply_rows_typed)(NB_WEIGHT_F32, weights, width, first, end, x, x_stride, rows, y, y_stride, accumulate);
    break;
  case NB_WEIGHT_BF16:
    NAME(multiply_rows_typed)(NB_WEIGHT_BF16, weights, width, first, end, x, x_stride, rows, y, y_stride, accumulate);
    break;
  case NB_WEIGHT_F16:
    NAME(multiply_rows_typed)(NB_WEIGHT_F16, weights, width, first, end, x, x_stride, rows, y, y_stride, accumulate);
    break;
  case NB_WEIGHT_FP8_E4M3:
  case NB_WEIGHT_NVFP4: break; // made by loading for nb_linear alone
  }
}

// Moves sign, exponent and mantissa into a float32, whose exponent is then 120 too small; the product is exact, for
// subnormal codes too.
static inline float NAME(e4m3)(uint8_t code) {
  uint32_t bits = (uint32_t)(code & 0x80) << 24 | (uint32_t)(code & 0x7f) << 20;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value * 0x1p120f;
}

static void NAME(e4m3_rows)(const nb_e4m3_weights *weights, int64_t first, int64_t end, float *out) {
  int64_t width = weights->width, blocks = (width + 127) / 128;
  for (int64_t n = first; n < end; n++) {
    const uint8_t *row = weights->codes + n * width;
    const float *factors = weights->factors + n / 128 * blocks;
    for (int64_t block = 0; block < blocks; block++) {
      int64_t stop = block * 128 + 128 < width ? block * 128 + 128 : width;
      for (int64_t k = block * 128; k < stop; k++) *out++ = NAME(e4m3)(row[k]) * factors[block];
    }
  }
}
