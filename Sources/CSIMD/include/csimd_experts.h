#pragma once

#include "csimd_dense.h"

// Kernels of mixture-of-experts and latent-attention layers, and weights in E4M3 with one factor per block.
// As for the dense kernels, a row's bits never depend on the other rows.

/// out[i] += x[i] * factor.
void nb_add_scaled(nb_level level, const float *x, float factor, int64_t count, float *out);

/// y[r][k] = sum over n in first ..< end of x[r][n - first] * w[n][k] (+ y[r][k] if accumulate), for `rows` rows and k
/// in 0 ..< width: a product with rows `first ..< end` of the weight as it lies, not transposed. Accumulating goes on
/// with the sum: two calls give the bits of one.
void nb_multiply_rows(nb_level level, nb_weight_type type, const void *weights, int64_t width, int64_t first,
                      int64_t end, const float *x, int64_t x_stride, int64_t rows, float *y, int64_t y_stride,
                      int accumulate);

/// E4M3 weights [outputs, width] with a factor per block of 128 outputs and 128 inputs (DeepSeek-V3's
/// `weight_scale_inv`).
typedef struct nb_e4m3_weights {
  const uint8_t *codes;
  /// [ceil(outputs / 128), ceil(width / 128)]
  const float *factors;
  int64_t width;
} nb_e4m3_weights;

/// Rows first ..< end as float32, `width` apart.
void nb_e4m3_rows(nb_level level, const nb_e4m3_weights *weights, int64_t first, int64_t end, float *out);
