// Encodes rows of latents and rotary keys and scatters them to their slots.
//
// A block takes 16 rows; a warp 32 values of each, a lane 16 of one row: what a warp reads of a row is one sector, and what it
// writes to a tile of consecutive slots is contiguous.
#include "fp4_rows.cuh"
#include "nibble_latent.h"

namespace {

// 16 values of a row as floats.
NB_DEVICE void load(uint64_t rows, int64_t element, int type, float (&x)[16]) {
  if (type == NB_KERNEL_TYPE_F32) {
    const float4 *p = (const float4 *)((const float *)rows + element);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float4 y = __ldcs(p + i);
      x[4 * i] = y.x; x[4 * i + 1] = y.y; x[4 * i + 2] = y.z; x[4 * i + 3] = y.w;
    }
  } else {
    const uint4 *p = (const uint4 *)((const uint16_t *)rows + element);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const uint4 y = __ldcs(p + i);
      const uint32_t w[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int h = 0; h < 8; h++) {
        const uint32_t half = w[h / 2] >> (16 * (h % 2)) & 0xFFFF;
        x[8 * i + h] = type == NB_KERNEL_TYPE_BF16 ? __uint_as_float(half << 16) : nb_f16_to_f32((uint16_t)half);
      }
    }
  }
}

// NaN becomes 0, infinities and what is above them the largest number; returns how many were not finite.
NB_DEVICE int makeFinite(float (&x)[16], float largest) {
  int replaced = 0;
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const uint32_t magnitude = __float_as_uint(x[i]) & 0x7FFFFFFFu;
    replaced += magnitude > 0x7F7FFFFFu;
    x[i] = magnitude > 0x7F800000u ? 0.0f : fminf(fmaxf(x[i], -largest), largest);
  }
  return replaced;
}

NB_DEVICE float largestMagnitude(const float (&x)[16]) {
  uint32_t most = 0;  // as bits: NaN is larger than infinity
#pragma unroll
  for (int i = 0; i < 16; i++) most = max(most, __float_as_uint(x[i]) & 0x7FFFFFFFu);
  return __uint_as_float(most);
}

// Writes the 16 values `part` of a row into its tile: `at` is the region's part of it, codes first, scales behind them. All lanes of a warp
// come here; what invalid ones have is not written.
template <int RECIPE, int VALUES>
NB_DEVICE int storePart(float (&x)[16], float g, uint8_t *at, int token, int part, bool valid) {
  using Row = nb_row<RECIPE>;
  float most = largestMagnitude(x);
  int replaced = 0;
  if (__float_as_uint(most) >= 0x7F000000u) {
    replaced = makeFinite(x, RECIPE == NB_KERNEL_BF16             ? 0x1.FEp127f
                             : RECIPE == NB_KERNEL_FP4_MX_BLOCK16 ? 0x1.8p127f
                                                                  : 0x1.FFFFFEp127f);
    most = largestMagnitude(x);
  }
  uint8_t *const to = at + nb_latent_position(RECIPE, VALUES, token, 16 * part).byte;
  if constexpr (Row::isFP4) {
    const nb_divisor six(Row::isNVFP4 ? __fmul_rn(6.0f, g) : g);
    uint32_t codes[16];
    const uint32_t byte = nb_encode_block<RECIPE>(x, most, g, six, codes);
    if (!valid) return 0;
    if (Row::block == 16 || part % 2 == 0) {
      at[nb_tile_code_bytes(RECIPE, VALUES) + nb_latent_scale_byte(RECIPE, VALUES, token, part * 16 / Row::block)] = (uint8_t)byte;
    }
    // A word's lower unit has the even values of eight, its upper unit the odd ones.
    uint32_t sorted[16], w[2];
    float y[16];
#pragma unroll
    for (int i = 0; i < 16; i++) {
      const int from = i / 8 * 8 + i % 4 * 2 + i / 4 % 2;
      sorted[i] = codes[from];
      y[i] = x[from];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) w[i] = nb_key_word<RECIPE>(sorted, y, 8 * i);
    *(uint2 *)to = make_uint2(w[0], w[1]);
  } else if constexpr (RECIPE == NB_KERNEL_BF16) {
    if (!valid) return 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float *y = x + 8 * h;
      *(uint4 *)(to + h * (NB_TILE_TOKENS * 16)) =
          make_uint4(nb_pack_bf16(y[0], y[1]), nb_pack_bf16(y[2], y[3]), nb_pack_bf16(y[4], y[5]), nb_pack_bf16(y[6], y[7]));
    }
  } else {
    if (!valid) return 0;
    const nb_divisor scale(g);
    if (scale.serves(most)) {
#pragma unroll
      for (int i = 0; i < 16; i++) x[i] = copysignf(scale.quotient(x[i]), x[i]);  // zero keeps its sign
    } else {
#pragma unroll
      for (int i = 0; i < 16; i++) x[i] = __fdiv_rn(x[i], g);
    }
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float *y = x + 4 * i;
      w[i] = __byte_perm(nb_e4m3x2_encode(y[0], y[1]), nb_e4m3x2_encode(y[2], y[3]), 0x5410);
    }
    *(uint4 *)to = make_uint4(w[0], w[1], w[2], w[3]);
  }
  return valid ? replaced : 0;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(NB_LATENT_STORE_THREADS, 1) nb_latent_store(const __grid_constant__ nb_latent_store_arguments a) {
  const nb_latent_tile tile = nb_latent_tile_of(NB_RECIPE_LATENT, NB_RECIPE_ROPE);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, inside = lane / 2;
  const bool isLatent = warp < NB_LATENT_DIM / 32;
  const int part = (isLatent ? warp : warp - NB_LATENT_DIM / 32) * 2 + lane % 2;
  int replaced = 0;
  for (int64_t first = (int64_t)blockIdx.x * NB_TILE_TOKENS; first < a.rows; first += (int64_t)gridDim.x * NB_TILE_TOKENS) {
    const int64_t row = min(first + inside, (int64_t)a.rows - 1);
    const int slot = first + inside < a.rows ? __ldg((const int32_t *)a.slots + row) : -1;
    const int used = max(slot, 0), token = used & ((1 << a.page_shift) - 1);
    uint8_t *const at = (uint8_t *)a.cache + (used >> a.page_shift) * a.page_stride + token / NB_TILE_TOKENS * tile.bytes;
    float x[16];
    load(isLatent ? a.latents : a.ropes, row * (isLatent ? a.latent_stride : a.rope_stride) + 16 * part, a.row_type, x);
    replaced += isLatent ? storePart<NB_RECIPE_LATENT, NB_LATENT_DIM>(x, a.latent_scale, at + tile.latent_codes, token % NB_TILE_TOKENS,
                                                                      part, slot >= 0)
                         : storePart<NB_RECIPE_ROPE, NB_ROPE_DIM>(x, a.rope_scale, at + tile.rope_codes, token % NB_TILE_TOKENS, part,
                                                                  slot >= 0);
  }
  if (replaced > 0 && a.replaced != 0) atomicAdd((unsigned long long *)a.replaced, (unsigned long long)replaced);
}
