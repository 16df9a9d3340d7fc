// 16 values to codes: the scale's byte, the codes, and for FP4 the words of a tile that hold them.
#pragma once

#include "rows.cuh"

// Magnitudes of a thread's 16 values, for loops that are not unrolled: [value][thread].
template <int THREADS>
struct nb_magnitudes {
  const float *own;
  NB_DEVICE_MEMBER float operator[](int i) const { return own[i * THREADS]; }
};

// Steps 2 and 3 of nvfp4 as the specification has them, with the block maximum mapped to `top`: sixteen codes of four bits.
template <int THREADS>
NB_DEVICE uint32_t nb_nvfp4_exact(nb_magnitudes<THREADS> x, float most, float top, float g, uint64_t &packed) {
  const uint32_t byte = nb_e4m3x2_encode(__fdiv_rn(most, __fmul_rn(top, g)), 0.0f) & 0xFF;
  const float divisor = __fmul_rn(nb_e4m3_decode(byte), g);
  packed = 0;
  if (byte != 0) {
#pragma unroll 1
    for (int i = 15; i >= 0; i--) packed = packed << 4 | (nb_e2m1_even(fminf(__fdiv_rn(x[i], divisor), 6.0f)) & 7);
  }
  return byte;
}

// In the order of the specification: the upper half of the block is added to the lower, then neighbours.
template <int THREADS>
NB_DEVICE float nb_squared_error(nb_magnitudes<THREADS> x, uint64_t packed, uint32_t byte, float g) {
  const float s = nb_e4m3_decode(byte);
  auto error = [&](int i) {
    const float value = __fmul_rn(__fmul_rn(nb_e2m1_decode((uint32_t)(packed >> (4 * i)) & 7), s), g);
    const float difference = __fsub_rn(x[i], value);
    return __fmul_rn(difference, difference);
  };
  float sums[2] = {0.0f, 0.0f};
#pragma unroll 1
  for (int half = 0; half < 2; half++) {
    float e[4];
#pragma unroll
    for (int i = 0; i < 4; i++) e[i] = __fadd_rn(error(4 * half + i), error(4 * half + i + 8));
    sums[0] = sums[1];
    sums[1] = __fadd_rn(__fadd_rn(e[0], e[1]), __fadd_rn(e[2], e[3]));
  }
  return __fadd_rn(sums[0], sums[1]);
}

// nvfp4 and four-over-six, whatever the numbers; zero blocks have positive zeros. Seldom called, so it is kept short, in code and in
// registers.
template <bool TWICE, int THREADS>
NB_DEVICE uint32_t nb_encode_exactly(float (&x)[16], float most, float g, uint32_t (&codes)[16]) {
  __shared__ float staged[16 * THREADS];
#pragma unroll
  for (int i = 0; i < 16; i++) staged[i * THREADS + threadIdx.x] = fabsf(x[i]);
  const nb_magnitudes<THREADS> magnitudes{staged + threadIdx.x};
  uint64_t packed;
  uint32_t byte = nb_nvfp4_exact(magnitudes, most, 6.0f, g, packed);
  if constexpr (TWICE) {
    uint64_t four;
    const uint32_t other = nb_nvfp4_exact(magnitudes, most, 4.0f, g, four);
    if (nb_squared_error(magnitudes, four, other, g) < nb_squared_error(magnitudes, packed, byte, g)) {
      byte = other;
      packed = four;
    }
  }
#pragma unroll
  for (int i = 0; i < 16; i++) {
    codes[i] = (uint32_t)(packed >> (4 * i)) & 7;
    if (byte == 0) x[i] = 0.0f;
  }
  return byte;
}

// What the encoders of nvfp4 and four-over-six want to know of the decode scale g: the divisors 6 g and 4 g.
struct nb_nvfp4_scale {
  float g;
  nb_divisor six, four;

  NB_DEVICE_MEMBER explicit nb_nvfp4_scale(float g) : g(g), six(__fmul_rn(6.0f, g)), four(__fmul_rn(4.0f, g)) {
    const bool serves = g >= 0x1p-30f && g <= 0x1p30f && six.hasCommonMantissa() && four.hasCommonMantissa();
    if (!serves) six.high = __uint_as_float(0x7FC00000u);  // no block is ordinary by a quotient that is NaN
  }

  // Whether the scale is a normal number, or rounded to 448 from at most 464: then no quotient exceeds 6 (1 + 1/16), so nothing
  // saturates, and all numbers are far from the ends of FP32. `wanted` is the scale for 6; quotients by the scale for 4 are smaller,
  // even where that one saturates.
  NB_DEVICE_MEMBER static bool isOrdinary(float wanted) { return wanted >= 0x1p-6f && wanted <= 464.0f; }
};

// The scale of a block whose maximum is mapped to 6.
template <int THREADS>
NB_DEVICE uint32_t nb_encode_nvfp4(float (&x)[16], float most, const nb_nvfp4_scale &scale, uint32_t (&codes)[16]) {
  const float wanted = scale.six.quotient(most);
  const uint32_t byte = nb_e4m3x2_encode(wanted, 0.0f);
  const nb_divisor divisor(__fmul_rn(nb_e4m3_decode(byte), scale.g));
  if (!(scale.isOrdinary(wanted) && divisor.hasCommonMantissa())) return nb_encode_exactly<false, THREADS>(x, most, scale.g, codes);
#pragma unroll
  for (int i = 0; i < 16; i++) codes[i] = nb_e2m1_even(divisor.quotient(fabsf(x[i])));
  return byte;
}

// About the squared error of a block's codes, in the unit of its divisor, from about the divisor's inverse. A quotient times 2^-126 has
// its code's bits on top and 22 bits of fraction, so that adding a half there rounds to E2M1; which way a tie goes makes no difference.
NB_DEVICE float nb_rough_error(const float (&x)[16], float inverse) {
  float error = 0.0f;
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const float q = fabsf(x[i]) * inverse;
    const uint32_t rounded = (__float_as_uint(q * 0x1p-126f) + 0x200000u) & 0xFFC00000u;
    const float difference = __fmaf_rn(__uint_as_float(rounded), -0x1p126f, q);
    error = __fmaf_rn(difference, difference, error);
  }
  return error;
}

// The errors of both encodings are summed up roughly, then the better one is made. Only where the sums are so close that rounding
// could decide, the specification's own are taken.
template <int THREADS>
NB_DEVICE uint32_t nb_encode_4over6(float (&x)[16], float most, const nb_nvfp4_scale &scale, uint32_t (&codes)[16]) {
  const float wanted = scale.six.quotient(most);
  const uint32_t bytes = nb_e4m3x2_encode(wanted, scale.four.quotient(most)), decoded = nb_e4m3x2_to_f16x2(bytes, 0);
  const float ofSix = __fmul_rn(nb_f16_to_f32((uint16_t)decoded), scale.g);
  const float ofFour = __fmul_rn(nb_f16_to_f32((uint16_t)(decoded >> 16)), scale.g);
  const float guessOfSix = nb_reciprocal(ofSix), guessOfFour = nb_reciprocal(ofFour);
  const float errorOfSix = nb_rough_error(x, guessOfSix) * (ofSix * ofSix);
  const float errorOfFour = nb_rough_error(x, guessOfFour) * (ofFour * ofFour);
  const bool four = errorOfFour < errorOfSix;
  const nb_divisor divisor(four ? ofFour : ofSix, four ? guessOfFour : guessOfSix);
  // A value is off by 2^-24 of `most` or so in either sum, and a sum's rounding is relative to it.
  const bool decided = fabsf(errorOfFour - errorOfSix) > 0x1p-15f * (errorOfFour + errorOfSix) + 0x1p-23f * most * most;
  if (!(decided && scale.isOrdinary(wanted) && divisor.hasCommonMantissa())) {
    return nb_encode_exactly<true, THREADS>(x, most, scale.g, codes);
  }
#pragma unroll
  for (int i = 0; i < 16; i++) codes[i] = nb_e2m1_even(divisor.quotient(fabsf(x[i])));
  return four ? bytes >> 8 & 0xFF : bytes & 0xFF;
}

// What a recipe's encoder wants to know of the decode scale.
struct nb_no_scale {
  NB_DEVICE_MEMBER explicit nb_no_scale(float) {}
};
template <int RECIPE> struct nb_row_scale_of { using type = nb_no_scale; };
template <> struct nb_row_scale_of<NB_KERNEL_NVFP4> { using type = nb_nvfp4_scale; };
template <> struct nb_row_scale_of<NB_KERNEL_NVFP4_4OVER6> { using type = nb_nvfp4_scale; };
template <> struct nb_row_scale_of<NB_KERNEL_FP8_E4M3> { using type = nb_divisor; };
template <int RECIPE>
using nb_row_scale = typename nb_row_scale_of<RECIPE>::type;

// 16 E4M3 codes, four a word. Zero keeps its sign.
NB_DEVICE void nb_encode_fp8(const float (&x)[16], float most, const nb_divisor &scale, uint32_t (&words)[4]) {
  float y[16];
  if (scale.serves(most)) {
#pragma unroll
    for (int i = 0; i < 16; i++) y[i] = copysignf(scale.quotient(x[i]), x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 16; i++) y[i] = __fdiv_rn(x[i], scale.value);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    words[i] = __byte_perm(nb_e4m3x2_encode(y[4 * i], y[4 * i + 1]), nb_e4m3x2_encode(y[4 * i + 2], y[4 * i + 3]), 0x5410);
  }
}

// The block scale's byte, and the magnitudes of 16 codes in the low 24 bits of `codes`; their signs are x's afterwards. The lanes of a
// block of 32 agree on the byte.
template <int RECIPE, int THREADS>
NB_DEVICE uint32_t nb_encode_block(float (&x)[16], float most, const nb_row_scale<RECIPE> &scale, uint32_t (&codes)[16]) {
  if constexpr (RECIPE == NB_KERNEL_NVFP4) {
    return nb_encode_nvfp4<THREADS>(x, most, scale, codes);
  } else if constexpr (RECIPE == NB_KERNEL_NVFP4_4OVER6) {
    return nb_encode_4over6<THREADS>(x, most, scale, codes);
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
