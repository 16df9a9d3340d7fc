// What the row codecs' levels share; not part of the module's interface.
#pragma once

#include "csimd.h"

void nb_encode_row_portable(nb_recipe, const float *, int, float, uint8_t *, uint8_t *, nb_encode_statistics *);
void nb_decode_row_portable(nb_recipe, const uint8_t *, const uint8_t *, int, float, float *);

#if defined(__x86_64__)
void nb_encode_row_avx2(nb_recipe, const float *, int, float, uint8_t *, uint8_t *, nb_encode_statistics *);
void nb_decode_row_avx2(nb_recipe, const uint8_t *, const uint8_t *, int, float, float *);
void nb_encode_row_avx512(nb_recipe, const float *, int, float, uint8_t *, uint8_t *, nb_encode_statistics *);
void nb_decode_row_avx512(nb_recipe, const uint8_t *, const uint8_t *, int, float, float *);
#endif

/// The largest finite float and the largest finite bfloat16: what infinities are stored as.
#define NB_LARGEST 0x1.fffffep127f
#define NB_LARGEST_BF16 0x1.fep127f
/// The least block maximum that fp4_mx_block16 tells from zero.
#define NB_MX16_FLOOR 6e-10f

static inline uint32_t nb_sign_bit(float x) { return nb_bits_from_float(x) >> 31; }
static inline float nb_magnitude(float x) { return nb_float_from_bits(nb_bits_from_float(x) & 0x7FFFFFFF); }

/// E4M3 of a finite or infinite number, to nearest even, saturating at 448.
static inline uint8_t nb_e4m3_encode(float y) {
  float m = nb_magnitude(y);
  m = m < 448.0f ? m : 448.0f;
  // Adding 2^(exponent + 20) leaves a last place of 2^(exponent - 3): the addition does the rounding.
  const float at_least_normal = m < 0x1p-6f ? 0x1p-6f : m;
  const uint32_t magic = (nb_bits_from_float(at_least_normal) & 0x7F800000) + (20u << 23);
  const uint32_t steps = nb_bits_from_float(m + nb_float_from_bits(magic)) - magic;
  return (uint8_t)((steps + (magic >> 20) - ((127u + 20 - 6) << 3)) | nb_sign_bit(y) << 7);
}

/// The scale byte of an fp4_mx_block16 block: the least e with m <= 6 * 2^e = 1.5 * 2^(e + 2), which is the exponent,
/// plus one where the mantissa is above 1.5; at most 125, so that every code decodes to a finite number.
static inline uint32_t nb_mx_block16_scale(float largest) {
  const float m = largest < NB_MX16_FLOOR ? NB_MX16_FLOOR : largest;
  const uint32_t byte = ((nb_bits_from_float(m) + 0x3FFFFF) >> 23) - 2;
  return byte > 252 ? 252 : byte;
}

/// The scale byte of an mxfp4 block: the exponent less 2, at least 2^-127; a subnormal maximum has exponent bits 0.
static inline uint32_t nb_mxfp4_scale(float largest) {
  const uint32_t exponent = nb_bits_from_float(largest) >> 23;
  return exponent > 2 ? exponent - 2 : 0;
}
