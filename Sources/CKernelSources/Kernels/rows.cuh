// Rows of keys and values: element formats in FP32 arithmetic, exactly as the CPU does it (one rounding a step, IEEE division, no
// contraction), and where their codes lie in a tile.
#pragma once

#include "ptx.cuh"

template <int RECIPE>
struct nb_row {
  static constexpr bool isNVFP4 = RECIPE == NB_KERNEL_NVFP4 || RECIPE == NB_KERNEL_NVFP4_4OVER6;
  static constexpr bool isFP4 = isNVFP4 || RECIPE == NB_KERNEL_FP4_MX_BLOCK16 || RECIPE == NB_KERNEL_MXFP4;
  static constexpr int block = isFP4 ? (RECIPE == NB_KERNEL_MXFP4 ? 32 : 16) : 32;  // 32 where there are none
  static constexpr int bits = RECIPE == NB_KERNEL_BF16 ? 16 : RECIPE == NB_KERNEL_FP8_E4M3 ? 8 : 4;
};

// E4M3 of two finite numbers, to nearest even, saturating at 448; the first in the low byte.
NB_DEVICE uint32_t nb_e4m3x2_encode(float low, float high) {
#if __CUDA_ARCH__ >= 890
  uint32_t r;
  asm("{.reg .b16 p; cvt.rn.satfinite.e4m3x2.f32 p, %1, %2; cvt.u32.u16 %0, p;}" : "=r"(r) : "f"(high), "f"(low));
  return r;
#else
  auto encode = [](float y) {  // adding 2^(exponent + 20) rounds at 2^(exponent - 3)
    const float m = fminf(fabsf(y), 448.0f);
    const uint32_t magic = (__float_as_uint(fmaxf(m, 0x1p-6f)) & 0x7F800000u) + (20u << 23);
    const uint32_t steps = __float_as_uint(__fadd_rn(m, __uint_as_float(magic))) - magic;
    return (steps + (magic >> 20) - ((127u + 20 - 6) << 3)) | (__float_as_uint(y) >> 31 << 7);
  };
  return encode(low) | encode(high) << 8;
#endif
}

NB_DEVICE float nb_e4m3_decode(uint32_t byte) { return nb_f16_to_f32((uint16_t)nb_e4m3x2_to_f16x2(byte, 0)); }

// Magnitude of the E2M1 code of m >= 0, ties to the even code, in the low bits of a word, 7 at most for m < 7. Its steps are 1/2
// below 2, 1 below 4 and 2 from there, so the code is the least of 2 m, m + 2 and m / 2 + 4, rounded: which is what adding 2^23 does.
NB_DEVICE uint32_t nb_e2m1_even(float m) {
  const uint32_t halves = __float_as_uint(__fmaf_rn(m, 2.0f, 0x1p23f)), ones = __float_as_uint(__fadd_rn(m, 0x1p23f + 2));
  return min(min(halves, ones), __float_as_uint(__fmaf_rn(m, 0.5f, 0x1p23f + 4)));
}

// Magnitude of the code of |y| < 7, ties away from zero. Times 2^-126, the bits of an FP32 are the code and 22 bits of fraction.
NB_DEVICE uint32_t nb_e2m1_away(float y) { return (__float_as_uint(__fmul_rz(fabsf(y), 0x1p-126f)) + 0x200000u) >> 22; }

NB_DEVICE float nb_reciprocal(float x) {  // about
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Quotients by one divisor: 1 / value = high + low. A quotient lies on the same side of every number with four bits of mantissa
// behind the point, and hits it in the same cases, as the IEEE quotient; so it rounds to the same E2M1 or E4M3 code. That was tried
// for each of the 2^23 mantissas of the divisor, and one, all ones, is not served.
struct nb_divisor {
  float value, high, low;

  NB_DEVICE_MEMBER explicit nb_divisor(float divisor) : nb_divisor(divisor, nb_reciprocal(divisor)) {}
  NB_DEVICE_MEMBER nb_divisor(float divisor, float guess) : value(divisor) {
    high = __fmaf_rn(guess, __fmaf_rn(-divisor, guess, 1.0f), guess);
    low = __fmul_rn(__fmaf_rn(-divisor, high, 1.0f), high);
  }
  NB_DEVICE_MEMBER float quotient(float x) const { return __fmaf_rn(x, high, __fmul_rn(x, low)); }
  // Whether it may be asked for quotients, of numbers far from the ends of FP32.
  NB_DEVICE_MEMBER bool hasCommonMantissa() const { return (__float_as_uint(value) & 0x7FFFFFu) != 0x7FFFFFu; }
  // Whether it may be asked for quotients of numbers up to `most`.
  NB_DEVICE_MEMBER bool serves(float most) const {
    return value >= 0x1p-60f && value <= 0x1p60f && hasCommonMantissa() && most <= 0x1p60f;
  }
};

template <int RECIPE>
NB_DEVICE uint32_t nb_unit_code(int slot, uint32_t unit) {
  if constexpr (nb_row<RECIPE>::isNVFP4) {
    return (unit >> (9 - 3 * slot) & 7) | (unit >> (slot == 0 ? 15 : slot == 1 ? 12 : slot == 2 ? 14 : 13) & 1) << 3;
  } else {
    if (slot == 3) return (unit >> 13 & 1) | (unit >> 9 & 6) | (unit >> 11 & 8);
    return (unit >> (6 - 3 * slot) & 7) | (unit >> (15 - 3 * slot) & 1) << 3;
  }
}

NB_DEVICE float nb_e2m1_decode(uint32_t code) {
  uint32_t m = code & 7;
  float value = m < 2 ? 0.5f * m : __uint_as_float((m << 22) + (126u << 23));
  return code & 8 ? -value : value;
}

NB_DEVICE float nb_power_of_two(int exponent) {  // -127 ... 127
  return exponent < -126 ? 0x1p-127f : __uint_as_float((uint32_t)(exponent + 127) << 23);
}

// Byte of the 16-bit unit with a thread's values in the codes of a tile; the unit's slots are the dims first, first + step, ...
// K: unit u of a group of 32 dims has dims 4 u ... 4 u + 3. V: dims u, u + 8, u + 16, u + 24.
NB_DEVICE int nb_unit_byte(bool keys, int dim, int token, int group, int u) {
  return keys ? nb_key_position(NB_KERNEL_NVFP4, dim, token, 32 * group + 4 * u).byte
              : nb_value_position(NB_KERNEL_NVFP4, dim, token, 32 * group + u).byte;
}
