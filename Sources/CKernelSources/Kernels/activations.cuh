// Sixteen neighbouring values of a row of activations, as they lie in memory and as FP32. Rows are 16-byte aligned.
#pragma once

#include "ptx.cuh"

// As bits NaN is larger than infinity.
NB_DEVICE float nb_largest_magnitude(const float (&x)[16]) {
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < 16; i++) most = max(most, __float_as_uint(x[i]) & 0x7FFFFFFFu);
  return __uint_as_float(most);
}

// NaN becomes 0, infinities and what is above them the largest number that the recipe has a code for, or takes; returns how many
// were not finite. Rarely called.
template <int RECIPE>
NB_DEVICE int nb_make_finite(float (&x)[16]) {
  constexpr float largest = RECIPE == NB_KERNEL_BF16             ? 0x1.FEp127f
                            : RECIPE == NB_KERNEL_FP4_MX_BLOCK16 ? 0x1.8p127f
                                                                 : 0x1.FFFFFEp127f;
  int replaced = 0;
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const uint32_t magnitude = __float_as_uint(x[i]) & 0x7FFFFFFFu;
    replaced += magnitude > 0x7F7FFFFFu;
    x[i] = magnitude > 0x7F800000u ? 0.0f : fminf(fmaxf(x[i], -largest), largest);
  }
  return replaced;
}

// The larger magnitude of either half; NaN counts as larger than infinity.
template <int TYPE>
NB_DEVICE uint32_t nb_larger_magnitudes(uint32_t a, uint32_t b) {
  uint32_t r;
  if constexpr (TYPE == NB_KERNEL_TYPE_BF16) {
    asm("max.NaN.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  } else {
    asm("max.NaN.xorsign.abs.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  }
  return r;
}

template <int TYPE>
struct nb_values {
  static constexpr int wide = TYPE == NB_KERNEL_TYPE_F32, bytes = wide ? 4 : 2, count = bytes;
  uint4 raw[count];

  NB_DEVICE_MEMBER void load(uint64_t address) {
    const uint4 *p = (const uint4 *)address;
#pragma unroll
    for (int i = 0; i < count; i++) raw[i] = __ldcs(p + i);
  }

  NB_DEVICE_MEMBER uint32_t word(int i) const {
    const uint4 &r = raw[i / 4];
    return i % 4 == 0 ? r.x : i % 4 == 1 ? r.y : i % 4 == 2 ? r.z : r.w;
  }

  NB_DEVICE_MEMBER void convert(float (&x)[16]) const {
#pragma unroll
    for (int i = 0; i < 16; i++) {
      if constexpr (wide) {
        x[i] = __uint_as_float(word(i));
      } else if constexpr (TYPE == NB_KERNEL_TYPE_BF16) {
        x[i] = __uint_as_float(i % 2 == 0 ? word(i / 2) << 16 : word(i / 2) & 0xFFFF0000u);
      } else {
        x[i] = nb_f16_to_f32((uint16_t)(word(i / 2) >> (16 * (i % 2))));
      }
    }
  }

  // The largest magnitude; NaN if a value is.
  NB_DEVICE_MEMBER float most(const float (&x)[16]) const {
#if __CUDA_ARCH__ >= 860
    if constexpr (!wide) {  // in pairs
      uint32_t both = nb_larger_magnitudes<TYPE>(word(0), word(1));
#pragma unroll
      for (int i = 2; i < 8; i++) both = nb_larger_magnitudes<TYPE>(both, word(i));
      both &= 0x7FFF7FFFu;
      const uint32_t half = max(both & 0xFFFF, both >> 16);
      return TYPE == NB_KERNEL_TYPE_BF16 ? nb_bf16_to_f32((uint16_t)half) : nb_f16_to_f32((uint16_t)half);
    }
#endif
    return nb_largest_magnitude(x);
  }

  // As finite numbers, with their largest magnitude; returns how many were not finite.
  template <int RECIPE>
  NB_DEVICE_MEMBER int finite(float (&x)[16], float &largest) const {
    convert(x);
    largest = most(x);
    if (__float_as_uint(largest) < 0x7F000000u) return 0;
    const int replaced = nb_make_finite<RECIPE>(x);
    largest = nb_largest_magnitude(x);
    return replaced;
  }
};
