// The row codecs in plain C: what arm64 runs, and what the vector levels are compared with.
#pragma STDC FP_CONTRACT OFF

#include "codec_internal.h"

/// The number that is encoded in place of `x`: 0 for NaN, +-`largest` for infinities.
static inline float finite(float x, float largest) {
  if (x != x) return 0.0f;
  return x > largest ? largest : x < -largest ? -largest : x;
}


/// Copies a block with its NaN and infinities replaced, and returns the largest magnitude.
static inline float sanitize(const float *row, int count, float *block, nb_encode_statistics *statistics) {
  uint32_t largest = 0, replaced = 0;
  for (int i = 0; i < count; i++) {
    replaced += (nb_bits_from_float(row[i]) & 0x7F800000) == 0x7F800000;
    block[i] = finite(row[i], NB_LARGEST);
    const uint32_t bits = nb_bits_from_float(block[i]) & 0x7FFFFFFF; // magnitudes order as their bits do
    largest = bits > largest ? bits : largest;
  }
  statistics->replaced_nonfinite += replaced;
  return nb_float_from_bits(largest);
}

/// E2M1 of `y`, to nearest, ties to the even code, saturating.
static inline uint8_t e2m1_even(float y) {
  const float m = nb_magnitude(y);
  const int code = (m > 0.25f) + (m >= 0.75f) + (m > 1.25f) + (m >= 1.75f) + (m > 2.5f) + (m >= 3.5f) + (m > 5.0f);
  return (uint8_t)(code | nb_sign_bit(y) << 3);
}

/// E2M1 of `y`, to nearest, ties away from zero, saturating; -0 gives code 0, as in the engines this format comes from.
static inline uint8_t e2m1_away(float y) {
  const float m = nb_magnitude(y);
  const int code = (m >= 0.25f) + (m >= 0.75f) + (m >= 1.25f) + (m >= 1.75f) + (m >= 2.5f) + (m >= 3.5f) + (m >= 5.0f);
  return (uint8_t)(code | (y < 0.0f) << 3);
}

static inline void pack(const uint8_t *elements, int count, uint8_t *codes) {
  for (int i = 0; i < count / 2; i++) codes[i] = (uint8_t)(elements[2 * i] | elements[2 * i + 1] << 4);
}

/// Steps 2 and 3 of nvfp4: the scale byte with the block maximum mapped to `top` (6 or 4), and the codes.
static inline uint8_t nvfp4_block(const float *block, float largest, float top, float g, uint8_t *elements) {
  const uint8_t byte = nb_e4m3_encode(largest / (top * g));
  const float divisor = nb_e4m3_decode(byte) * g;
  for (int i = 0; i < 16; i++) elements[i] = byte == 0 ? 0 : e2m1_even(block[i] / divisor);
  return byte;
}

/// Squared error of a block; the sum halves the block three times so that vector levels can follow it: i + (i + 8),
/// then neighbours.
static inline float squared_error(const float *block, const uint8_t *elements, uint8_t byte, float g) {
  float e[16];
  for (int i = 0; i < 16; i++) {
    const float error = block[i] - nb_e2m1_values[elements[i]] * nb_e4m3_decode(byte) * g;
    e[i] = error * error;
  }
  for (int i = 0; i < 8; i++) e[i] += e[i + 8];
  return ((e[0] + e[1]) + (e[2] + e[3])) + ((e[4] + e[5]) + (e[6] + e[7]));
}

static void encode_nvfp4(const float *row, int dimension, float g, int four_over_six, uint8_t *codes, uint8_t *scales,
                         nb_encode_statistics *statistics) {
  for (int b = 0; b < dimension / 16; b++) {
    float block[16];
    uint8_t elements[16], four[16];
    const float largest = sanitize(row + 16 * b, 16, block, statistics);
    uint8_t byte = nvfp4_block(block, largest, 6.0f, g, elements);
    if (four_over_six) {
      const uint8_t byte_of_four = nvfp4_block(block, largest, 4.0f, g, four);
      if (squared_error(block, four, byte_of_four, g) < squared_error(block, elements, byte, g)) {
        byte = byte_of_four;
        memcpy(elements, four, 16);
      }
    }
    pack(elements, 16, codes + 8 * b);
    scales[b] = byte;
    statistics->subnormal_scales += byte >= 1 && byte <= 7;
    statistics->zero_scales += byte == 0 && largest > 0;
  }
}

static void encode_power_of_two(nb_recipe recipe, const float *row, int dimension, uint8_t *codes, uint8_t *scales,
                                nb_encode_statistics *statistics) {
  const int size = nb_recipe_block(recipe);
  for (int b = 0; b < dimension / size; b++) {
    float block[32];
    uint8_t elements[32];
    const float largest = sanitize(row + size * b, size, block, statistics);
    const uint32_t byte = recipe == NB_FP4_MX_BLOCK16 ? nb_mx_block16_scale(largest) : nb_mxfp4_scale(largest);
    const float inverse = nb_float_from_bits((254 - byte) << 23);
    for (int i = 0; i < size; i++)
      elements[i] = recipe == NB_FP4_MX_BLOCK16 ? e2m1_away(block[i] * inverse) : e2m1_even(block[i] * inverse);
    pack(elements, size, codes + size / 2 * b);
    scales[b] = (uint8_t)byte;
  }
}

static uint16_t bf16(float x) {
  const uint32_t bits = nb_bits_from_float(finite(x, NB_LARGEST_BF16));
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint64_t count_nonfinite(const float *row, int dimension) {
  uint64_t count = 0;
  for (int i = 0; i < dimension; i++) count += (nb_bits_from_float(row[i]) & 0x7F800000) == 0x7F800000;
  return count;
}

void nb_encode_row_portable(nb_recipe recipe, const float *row, int dimension, float decode_scale, uint8_t *codes,
                            uint8_t *scales, nb_encode_statistics *statistics) {
  const int size = nb_recipe_block(recipe);
  statistics->values += (uint64_t)(size > 0 ? dimension / size * size : dimension);
  statistics->blocks += (uint64_t)(size > 0 ? dimension / size : 0);
  switch (recipe) {
    case NB_F32:
      statistics->replaced_nonfinite += count_nonfinite(row, dimension);
      for (int i = 0; i < dimension; i++) {
        const float x = finite(row[i], NB_LARGEST);
        memcpy(codes + 4 * i, &x, 4);
      }
      break;
    case NB_BF16:
      statistics->replaced_nonfinite += count_nonfinite(row, dimension);
      for (int i = 0; i < dimension; i++) {
        const uint16_t x = bf16(row[i]);
        memcpy(codes + 2 * i, &x, 2);
      }
      break;
    case NB_FP8_E4M3:
      statistics->replaced_nonfinite += count_nonfinite(row, dimension);
      for (int i = 0; i < dimension; i++) codes[i] = nb_e4m3_encode(finite(row[i], NB_LARGEST) / decode_scale);
      break;
    case NB_NVFP4:
    case NB_NVFP4_4OVER6:
      encode_nvfp4(row, dimension, decode_scale, recipe == NB_NVFP4_4OVER6, codes, scales, statistics);
      break;
    case NB_FP4_MX_BLOCK16:
    case NB_MXFP4: encode_power_of_two(recipe, row, dimension, codes, scales, statistics); break;
  }
}

void nb_decode_row_portable(nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension,
                            float decode_scale, float *row) {
  switch (recipe) {
    case NB_F32: memcpy(row, codes, 4 * (size_t)dimension); break;
    case NB_BF16:
      for (int i = 0; i < dimension; i++) {
        uint16_t x;
        memcpy(&x, codes + 2 * i, 2);
        row[i] = nb_float_from_bits((uint32_t)x << 16);
      }
      break;
    case NB_FP8_E4M3:
      for (int i = 0; i < dimension; i++) row[i] = nb_e4m3_decode(codes[i]) * decode_scale;
      break;
    case NB_NVFP4:
    case NB_NVFP4_4OVER6:
    case NB_FP4_MX_BLOCK16:
    case NB_MXFP4: {
      const int size = nb_recipe_block(recipe);
      const float g = recipe == NB_NVFP4 || recipe == NB_NVFP4_4OVER6 ? decode_scale : 1.0f;
      for (int b = 0; b < dimension / size; b++) {
        const float scale = nb_block_scale(recipe, scales[b]);
        for (int i = size * b; i < size * (b + 1); i++)
          row[i] = nb_e2m1_values[codes[i / 2] >> (i % 2 * 4) & 15] * scale * g;
      }
      break;
    }
  }
}
