// Thin names for the PTX instructions that the kernels use. No header of the CUDA toolkit is needed.
#pragma once

#include "nibble_kernels.h"

#define NB_DEVICE static __device__ __forceinline__
#define NB_DEVICE_MEMBER __device__ __forceinline__

NB_DEVICE float nb_infinity() { return __uint_as_float(0x7F800000u); }

NB_DEVICE float nb_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// a & b and (a | b) & c, one instruction each: left to itself the compiler moves the masks about and needs more of them.
NB_DEVICE uint32_t nb_and(uint32_t a, uint32_t b) {
  uint32_t r;
  asm("and.b32 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
NB_DEVICE uint32_t nb_or_and(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xA8;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

// Two FP32 to a pair of halves; the first argument becomes the low half.
NB_DEVICE uint32_t nb_pack_f16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
NB_DEVICE uint32_t nb_pack_bf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
NB_DEVICE float nb_f16_to_f32(uint16_t h) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(h));
  return y;
}
NB_DEVICE float nb_bf16_to_f32(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }

NB_DEVICE uint32_t nb_mul_f16x2(uint32_t a, uint32_t b) {
  uint32_t r;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
// Subnormals count here (a code times 2^-126), so this is an fma with -0: mul.bf16x2 needs sm_90.
NB_DEVICE uint32_t nb_mul_bf16x2(uint32_t a, uint32_t b) {
  uint32_t r;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(0x80008000u));
  return r;
}
// One half in both halves.
NB_DEVICE uint32_t nb_low2(uint32_t x) {
  uint32_t r;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {l, l};}" : "=r"(r) : "r"(x));
  return r;
}
NB_DEVICE uint32_t nb_high2(uint32_t x) {
  uint32_t r;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h};}" : "=r"(r) : "r"(x));
  return r;
}

// Two E4M3 bytes to two FP16, exactly.
NB_DEVICE uint32_t nb_e4m3x2_to_f16x2(uint32_t word, int upper) {
#if __CUDA_ARCH__ >= 890
  uint32_t r;
  if (upper) {
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, h;}" : "=r"(r) : "r"(word));
  } else {
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, l;}" : "=r"(r) : "r"(word));
  }
  return r;
#else
  uint32_t x = __byte_perm(word, 0, upper ? 0x3727 : 0x1707);  // bytes to the top of the halves, table byte 7 = 0
  uint32_t bits = (x & 0x80008000u) | ((x >> 1) & 0x3F803F80u);
  return nb_mul_f16x2(bits, 0x5C005C00u);  // times 2^8, the difference of the biases
#endif
}

// D += A B, 16 x 8 x 16.
NB_DEVICE void nb_mma_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
NB_DEVICE void nb_mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

NB_DEVICE uint32_t nb_shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// N words (1, 2 or 4) from shared memory.
template <int N>
NB_DEVICE void nb_load_shared(uint32_t (&r)[N], uint32_t address) {
  if (N == 4) {
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1 % N]), "=r"(r[2 % N]), "=r"(r[3 % N]) : "r"(address) : "memory");
  } else if (N == 2) {
    asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1 % N]) : "r"(address) : "memory");
  } else {
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r[0]) : "r"(address) : "memory");
  }
}
NB_DEVICE uint32_t nb_load_shared_u16(uint32_t address) {
  uint16_t r;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(r) : "r"(address) : "memory");
  return r;
}
NB_DEVICE uint32_t nb_load_shared_u32(uint32_t address) {
  uint32_t r;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r) : "r"(address) : "memory");
  return r;
}
NB_DEVICE void nb_store_shared_u32(uint32_t address, uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// A barrier of `threads` threads of the block.
NB_DEVICE void nb_synchronize(int barrier, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }

// Programmatic dependent launch: the kernel behind this one may be set up as soon as multiprocessors have room; it waits for this
// one's results before it touches memory.
NB_DEVICE void nb_launch_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
NB_DEVICE void nb_wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Raises (above 0) or lowers (below 0) the registers of a thread, for all warps of a group of four.
template <int REGISTERS>
NB_DEVICE void nb_registers() {
#if __CUDA_ARCH__ >= 900
  if constexpr (REGISTERS > 0) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
  if constexpr (REGISTERS < 0) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(-REGISTERS));
#endif
}
