#pragma once

#include "csimd_level.h"
#include <stddef.h>
#include <stdint.h>

// Dense kernels around attention: float32 activations, weights as stored in the checkpoint.
//
// Every kernel computes a row in an order that depends on the row's width alone, so a row's bits never depend on how
// many other rows are computed beside it, nor on which thread computes them.

typedef enum nb_weight_type {
  NB_WEIGHT_F32 = 0,
  NB_WEIGHT_BF16 = 1,
  NB_WEIGHT_F16 = 2,
  /// One E4M3 a value; one float32 factor an output.
  NB_WEIGHT_FP8_E4M3 = 3,
  /// NVFP4 along the inputs: E2M1 codes, an E4M3 scale per 16 inputs, one float32 factor an output. A row is cut into
  /// groups of 128 inputs; a group's codes are 16 little-endian 32-bit words, nibble j of word l being the code of
  /// input 16 j + l. The scales of the row follow its last group. `nb_weight_encode_row` writes this.
  NB_WEIGHT_NVFP4 = 4,
} nb_weight_type;

/// Bytes of one row of `width` weights.
int64_t nb_weight_row_bytes(nb_weight_type type, int64_t width);

/// Converts a float32 row to an NB_WEIGHT_FP8_E4M3, NB_WEIGHT_NVFP4, NB_WEIGHT_BF16 or NB_WEIGHT_F32 row and returns
/// the factor of this output (1 for the types without one): stored values times the factor are the weights.
float nb_weight_encode_row(nb_level level, nb_weight_type type, const float *row, int64_t width, void *out);

/// y[r][n] = (sum over k of x[r][k] * w[n][k]) * factors[n] + bias[n] (+ y[r][n] if accumulate), for `rows` rows and n
/// in first ..< end. `weights` is [outputs, width], row-major; `x` and `y` rows are `x_stride` and `y_stride` floats
/// apart; factors and bias may be null.
void nb_linear(nb_level level, nb_weight_type type, const void *weights, int64_t width, int64_t first, int64_t end,
               const float *factors, const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
               int64_t y_stride, int accumulate);

/// Row `index` of a [_, width] weight matrix as float32, its factor left out.
void nb_weight_row(nb_level level, nb_weight_type type, const void *weights, int64_t width, int64_t index, float *out);

/// out = x / sqrt(mean(x^2) + epsilon) * weight for one row; out may be x.
void nb_rms_norm(nb_level level, const float *x, const float *weight, int64_t width, float epsilon, float *out);

/// out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; out may be gate.
void nb_silu_multiply(nb_level level, const float *gate, const float *up, int64_t count, float *out);

/// Rotates one head in place. Pair i is (x[i], x[i + pairs]), or (x[2 i], x[2 i + 1]) if interleaved.
void nb_rotate(nb_level level, float *x, const float *cosines, const float *sines, int64_t pairs, int interleaved);

/// `nb_rms_norm` in place of `count` heads side by side, `width` wide (weight may be null: no norm), then `nb_rotate`
/// of the last 2 `pairs` values of each: the same bits, in one pass over a head that rotates as a whole.
void nb_norm_rotate_heads(nb_level level, float *x, int64_t count, int64_t width, const float *weight, float epsilon,
                          const float *cosines, const float *sines, int64_t pairs, int interleaved);
