// Blocks of 16 values to FP4: the scale's byte, the codes, and the words of a tile that hold them.
#pragma once

#include "rows.cuh"

// Steps 2 and 3 of nvfp4 as the specification has them, with the block maximum mapped to `top`: eight magnitudes a word, which leaves
// registers free.
NB_DEVICE uint32_t nb_nvfp4_exact(const float (&x)[16], float most, float top, float g, uint32_t (&packed)[2]) {
  const uint32_t byte = nb_e4m3x2_encode(__fdiv_rn(most, __fmul_rn(top, g)), 0.0f);
  const float divisor = __fmul_rn(nb_e4m3_decode(byte), g);
  packed[0] = packed[1] = 0;
  if (byte != 0) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
      packed[i / 8] |= (nb_e2m1_even(fminf(__fdiv_rn(fabsf(x[i]), divisor), 6.0f)) & 7) << (4 * (i % 8));
    }
  }
  return byte;
}

// In the order of the specification: the upper half of the block is added to the lower, then neighbours.
NB_DEVICE float nb_squared_error(const float (&x)[16], const uint32_t (&packed)[2], uint32_t byte, float g) {
  const float s = nb_e4m3_decode(byte);
  auto error = [&](int i) {
    const float value = __fmul_rn(__fmul_rn(nb_e2m1_decode(packed[i / 8] >> (4 * (i % 8)) & 7), s), g);
    const float difference = __fsub_rn(fabsf(x[i]), value);
    return __fmul_rn(difference, difference);
  };
  float e[8];
#pragma unroll
  for (int i = 0; i < 8; i++) e[i] = __fadd_rn(error(i), error(i + 8));
#pragma unroll
  for (int n = 8; n > 1; n /= 2)
#pragma unroll
    for (int i = 0; i < n / 2; i++) e[i] = __fadd_rn(e[2 * i], e[2 * i + 1]);
  return e[0];
}

// nvfp4 and four-over-six, whatever the numbers; zero blocks have positive zeros.
template <bool TWICE>
NB_DEVICE uint32_t nb_encode_exactly(float (&x)[16], float most, float g, uint32_t (&codes)[16]) {
  uint32_t packed[2], byte = nb_nvfp4_exact(x, most, 6.0f, g, packed);
  if constexpr (TWICE) {
    uint32_t four[2], other = nb_nvfp4_exact(x, most, 4.0f, g, four);
    if (nb_squared_error(x, four, other, g) < nb_squared_error(x, packed, byte, g)) {
      byte = other;
      packed[0] = four[0];
      packed[1] = four[1];
    }
  }
#pragma unroll
  for (int i = 0; i < 16; i++) {
    codes[i] = packed[i / 8] >> (4 * (i % 8)) & 7;
    if (byte == 0) x[i] = 0.0f;
  }
  return byte;
}

// A scale that is a normal number, or rounded to 448 from at most 464: no quotient exceeds 6 (1 + 1/16), so nothing saturates. It is
// asked of the scale for 6; quotients by the scale for 4 are smaller, even where that one saturates.
NB_DEVICE bool nb_is_ordinary(float scale) { return scale >= 0x1p-6f && scale <= 464.0f; }

// The scale of a block whose maximum is mapped to 6, from that maximum and six times g.
NB_DEVICE uint32_t nb_encode_nvfp4(float (&x)[16], float most, float g, const nb_divisor &six, uint32_t (&codes)[16]) {
  const float wanted = six.quotient(most);
  const uint32_t byte = nb_e4m3x2_encode(wanted, 0.0f);
  const nb_divisor scale(__fmul_rn(nb_e4m3_decode(byte), g));
  if (!(six.serves(most) && scale.serves(most) && nb_is_ordinary(wanted))) return nb_encode_exactly<false>(x, most, g, codes);
#pragma unroll
  for (int i = 0; i < 16; i++) codes[i] = nb_e2m1_even(scale.quotient(fabsf(x[i])));
  return byte;
}

// Both encodings are rounded and their errors summed up roughly, in the unit of each. Only where the sums are so close that the
// rounding of the specification's own sums could decide, it is done step by step.
NB_DEVICE uint32_t nb_encode_4over6(float (&x)[16], float most, float g, const nb_divisor &six, uint32_t (&codes)[16]) {
  const float top = __fmul_rn(4.0f, g), wanted = six.quotient(most);
  const uint32_t byteOfSix = nb_e4m3x2_encode(wanted, 0.0f);
  const uint32_t byteOfFour = nb_e4m3x2_encode(nb_divisor(top).quotient(most), 0.0f);
  const nb_divisor scaleOfSix(__fmul_rn(nb_e4m3_decode(byteOfSix), g)), scaleOfFour(__fmul_rn(nb_e4m3_decode(byteOfFour), g));
  float ofSix[16], ofFour[16], errorOfSix = 0.0f, errorOfFour = 0.0f;
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const float m = fabsf(x[i]), q = scaleOfSix.quotient(m), p = scaleOfFour.quotient(m);
    ofSix[i] = nb_e2m1_round(q);
    ofFour[i] = nb_e2m1_round(p);
    errorOfSix = __fmaf_rn(ofSix[i] - q, ofSix[i] - q, errorOfSix);
    errorOfFour = __fmaf_rn(ofFour[i] - p, ofFour[i] - p, errorOfFour);
  }
  errorOfSix *= scaleOfSix.value * scaleOfSix.value;
  errorOfFour *= scaleOfFour.value * scaleOfFour.value;
  // A value is off by 2^-24 of `most` or so in either sum, and a sum's rounding is relative to it.
  const bool decided = fabsf(errorOfFour - errorOfSix) > 0x1p-15f * (errorOfFour + errorOfSix) + 0x1p-23f * most * most;
  const bool ordinary = six.serves(most) && nb_divisor(top).serves(most) && scaleOfSix.serves(most) && scaleOfFour.serves(most) &&
                        most >= 0x1p-40f && nb_is_ordinary(wanted);
  if (!(decided && ordinary)) return nb_encode_exactly<true>(x, most, g, codes);
  const bool four = errorOfFour < errorOfSix;
#pragma unroll
  for (int i = 0; i < 16; i++) codes[i] = __float_as_uint(__fmul_rn(four ? ofFour[i] : ofSix[i], 0x1p-126f)) >> 22;
  return four ? byteOfFour : byteOfSix;
}

// The block scale's byte, and the magnitudes of 16 codes in the low 24 bits of `codes`; their signs are x's afterwards. `six` is six
// times g, for nvfp4. The lanes of a block of 32 agree on the byte.
template <int RECIPE>
NB_DEVICE uint32_t nb_encode_block(float (&x)[16], float most, float g, const nb_divisor &six, uint32_t (&codes)[16]) {
  if constexpr (RECIPE == NB_KERNEL_NVFP4) {
    return nb_encode_nvfp4(x, most, g, six, codes);
  } else if constexpr (RECIPE == NB_KERNEL_NVFP4_4OVER6) {
    return nb_encode_4over6(x, most, g, six, codes);
  } else if constexpr (RECIPE == NB_KERNEL_FP4_MX_BLOCK16) {
    const uint32_t byte = min(((__float_as_uint(fmaxf(most, 6e-10f)) + 0x3FFFFFu) >> 23) - 2, 252u);
    const float inverse = __uint_as_float((254 - byte) << 23);
#pragma unroll
    for (int i = 0; i < 16; i++) {
      x[i] = __fadd_rn(__fmul_rn(x[i], inverse), 0.0f);  // -0 has code 0
      codes[i] = nb_e2m1_away(x[i]);
    }
    return byte;
  } else {
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    const uint32_t exponent = __float_as_uint(most) >> 23, byte = exponent > 2 ? exponent - 2 : 0;
    const float inverse = __uint_as_float((254 - byte) << 23);
#pragma unroll
    for (int i = 0; i < 16; i++) codes[i] = nb_e2m1_even(fminf(fabsf(__fmul_rn(x[i], inverse)), 6.0f));
    return byte;
  }
}

NB_DEVICE uint32_t nb_append_sign(uint32_t word, float x, int bits) { return __funnelshift_l(__float_as_uint(x), word, bits); }

// Two units of a key row (nb_unit_bit): the dims `first` to `first` + 7.
template <int RECIPE>
NB_DEVICE uint32_t nb_key_word(const uint32_t (&codes)[16], const float (&x)[16], int first) {
  uint32_t units[2];
#pragma unroll
  for (int u = 0; u < 2; u++) {
    const uint32_t *c = codes + first + 4 * u;
    const float *y = x + first + 4 * u;
    uint32_t w = __float_as_uint(y[0]) >> 31;
    if constexpr (nb_row<RECIPE>::isNVFP4) {
      w = nb_append_sign(nb_append_sign(nb_append_sign(w, y[2], 1), y[3], 1), y[1], 1);
#pragma unroll
      for (int i = 0; i < 4; i++) w = w * 8 + c[i];
    } else {
      w = nb_append_sign(nb_append_sign(nb_append_sign(w, y[3], 2), y[1], 3), y[2], 1) << 9 & 0xD200u;
      w |= (c[3] * 0x2200u & 0x2C00u) | (((c[0] * 8 + c[1]) * 8 + c[2]) & 0x1FFu);
    }
    units[u] = w;
  }
  return __byte_perm(units[0], units[1], 0x5410);
}

// A lane's two slots of the units u and u + 1 of a value row: dims u and u + 8 of 16, slots 0 and 1, or 2 and 3 in the odd lane.
template <int RECIPE>
NB_DEVICE uint32_t nb_value_word(const uint32_t (&codes)[16], const float (&x)[16], int u, bool odd) {
  const uint32_t sign = 0x80008000u;
  const uint32_t low = __byte_perm(codes[u], codes[u + 1], 0x5410), high = __byte_perm(codes[u + 8], codes[u + 9], 0x5410);
  const uint32_t signs = __byte_perm(__float_as_uint(x[u]), __float_as_uint(x[u + 1]), 0x7632) & sign;
  const uint32_t others = __byte_perm(__float_as_uint(x[u + 8]), __float_as_uint(x[u + 9]), 0x7632) & sign;
  if constexpr (nb_row<RECIPE>::isNVFP4) {
    return (low * 8 + high) << (odd ? 0 : 6) | signs >> (odd ? 1 : 0) | others >> (odd ? 2 : 3);
  } else {
    return low << (odd ? 0 : 6) | ((high * (odd ? 0x2200u : 8u)) & (odd ? 0x2C002C00u : 0x00380038u)) | signs >> (odd ? 6 : 0) |
           others >> (odd ? 1 : 3);
  }
}
