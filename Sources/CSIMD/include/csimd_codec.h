// Row codecs: one row of keys or values, head_dim floats, to and from the bytes of a recipe. The Swift module
// BlockFormats states the same arithmetic as readable scalar code; every level here gives the same bytes.
#pragma once

#include <stdint.h>
#include <string.h>

#include "csimd_level.h"
#include "csimd_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Encodes one row.
///
/// - dimension: values in the row, a multiple of the recipe's block (16 or 32), even for the other recipes; values past
///   the last whole block are not encoded.
/// - decode_scale: the factor that multiplies on decode ("g", k_scale, v_scale), in 2^-126 ... 2^116, which keeps every
///   step and every decoded value finite; ignored by recipes without a second level.
/// - codes: the packed codes, dimension * bits / 8 bytes: element 2i in the low nibble of byte i, element 2i + 1 in the
///   high one.
/// - scales: one byte a block (E4M3, or a power of two biased by 127); untouched by recipes without blocks.
/// - statistics: counts are added to it; may be NULL.
///
/// NaN is encoded as if it were 0 and an infinity as if it were the largest finite float, in the block maximum too, so
/// what comes out is always finite. Pointers need no alignment; the four buffers must not overlap.
void nb_encode_row(nb_level level, nb_recipe recipe, const float *row, int dimension, float decode_scale,
                   uint8_t *codes, uint8_t *scales, nb_encode_statistics *statistics);

/// Decodes one row: (element * block scale) * decode_scale, the first product being exact. Arguments as in
/// `nb_encode_row`.
void nb_decode_row(nb_level level, nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension,
                   float decode_scale, float *row);

/// Values that share a block scale: 16, 32, or 0 for recipes without block scales.
static inline int nb_recipe_block(nb_recipe recipe) {
  return recipe == NB_MXFP4 ? 32 : recipe >= NB_NVFP4 && recipe <= NB_FP4_MX_BLOCK16 ? 16 : 0;
}

/// Bits of one code.
static inline int nb_recipe_code_bits(nb_recipe recipe) {
  return recipe == NB_F32 ? 32 : recipe == NB_BF16 ? 16 : recipe == NB_FP8_E4M3 ? 8 : 4;
}

/// The sixteen E2M1 values by code.
static const float nb_e2m1_values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                         -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

static inline float nb_float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t nb_bits_from_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

/// The value of an E4M3 (FN) byte; 0x7F and 0xFF are NaN.
static inline float nb_e4m3_decode(uint8_t byte) {
  const uint32_t magnitude = byte & 0x7F, sign = (uint32_t)(byte & 0x80) << 24;
  if (magnitude == 0x7F) return nb_float_from_bits(sign | 0x7FC00000);
  // The magnitude's fields shifted into place are the value times 2^-120, subnormals included.
  return nb_float_from_bits(nb_bits_from_float(nb_float_from_bits(magnitude << 20) * 0x1p120f) | sign);
}

/// The value of an E8M0 byte, 2^(byte - 127); 255 is NaN.
static inline float nb_e8m0_decode(uint8_t byte) {
  return nb_float_from_bits(byte == 255 ? 0x7FC00000 : byte == 0 ? 0x00400000 : (uint32_t)byte << 23);
}

/// The value of a recipe's block scale byte, `decode_scale` left out; 1 for recipes without block scales.
static inline float nb_block_scale(nb_recipe recipe, uint8_t byte) {
  switch (recipe) {
    case NB_NVFP4:
    case NB_NVFP4_4OVER6: return nb_e4m3_decode(byte);
    case NB_FP4_MX_BLOCK16:
    case NB_MXFP4: return nb_e8m0_decode(byte);
    default: return 1.0f;
  }
}

#ifdef __cplusplus
}
#endif
