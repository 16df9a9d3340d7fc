// Encodes rows of latents and rotary keys and scatters them to their slots.
//
// A warp takes 32 values of 16 rows at a time, a lane 16 of one row: what a warp reads of a row is two sectors, and what it writes to a tile
// of consecutive slots is contiguous.
#include "activations.cuh"
#include "fp4_rows.cuh"
#include "nibble_latent.h"

namespace {

constexpr int THREADS = NB_LATENT_STORE_THREADS;
using Values = nb_values<NB_ROW_TYPE>;

// Writes the 16 values `part` of a row into its tile: `at` is the region's part of it, codes first, scales behind them. All lanes of a warp
// come here; what invalid ones have is not written. Returns how many values were not finite.
template <int RECIPE, int VALUES>
NB_DEVICE int storePart(const Values &values, const nb_row_scale<RECIPE> &scale, uint8_t *at, int token, int part, bool valid) {
  using Row = nb_row<RECIPE>;
  float x[16];
  values.convert(x);
  float most = values.most(x);
  int replaced = 0;
  if (__float_as_uint(most) >= 0x7F000000u) {
    replaced = nb_make_finite<RECIPE>(x);
    most = nb_largest_magnitude(x);
  }
  uint8_t *const to = at + nb_latent_position(RECIPE, VALUES, token, 16 * part).byte;
  if constexpr (Row::isFP4) {
    uint32_t codes[16];
    const uint32_t byte = nb_encode_block<RECIPE, THREADS>(x, most, scale, codes);
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
    uint32_t w[4];
    nb_encode_fp8(x, most, scale, w);
    *(uint4 *)to = make_uint4(w[0], w[1], w[2], w[3]);
  }
  return valid ? replaced : 0;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 768 / THREADS)
nb_latent_store(const __grid_constant__ nb_latent_store_arguments a) {
  constexpr int latentWarps = NB_LATENT_DIM / 32, warps = latentWarps + NB_ROPE_DIM / 32;  // of a tile
  const nb_latent_tile tile = nb_latent_tile_of(NB_RECIPE_LATENT, NB_RECIPE_ROPE);
  const int lane = threadIdx.x % 32, inside = lane / 2;
  const nb_row_scale<NB_RECIPE_LATENT> latentScale(a.latent_scale);
  const nb_row_scale<NB_RECIPE_ROPE> ropeScale(a.rope_scale);
  const uint32_t tiles = ((uint32_t)a.rows + NB_TILE_TOKENS - 1) / NB_TILE_TOKENS;
  const int64_t works = (int64_t)tiles * warps, step = (int64_t)gridDim.x * (THREADS / 32);
  for (int64_t work = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32; work < works; work += step) {
    const int column = work % warps;
    const int64_t row = work / warps * NB_TILE_TOKENS + inside, used = min(row, (int64_t)a.rows - 1);
    const bool isLatent = column < latentWarps;
    const int part = (isLatent ? column : column - latentWarps) * 2 + lane % 2;
    Values values;
    const uint64_t rows = isLatent ? a.latents : a.ropes;
    values.load(rows + (used * (isLatent ? a.latent_stride : a.rope_stride) + 16 * part) * Values::bytes);
    const int slot = row < a.rows ? __ldg((const int32_t *)a.slots + used) : -1;
    const int place = max(slot, 0), token = place & ((1 << a.page_shift) - 1);
    uint8_t *const at = (uint8_t *)a.cache + (place >> a.page_shift) * a.page_stride + token / NB_TILE_TOKENS * tile.bytes;
    const int replaced = isLatent ? storePart<NB_RECIPE_LATENT, NB_LATENT_DIM>(values, latentScale, at + tile.latent_codes,
                                                                               token % NB_TILE_TOKENS, part, slot >= 0)
                                  : storePart<NB_RECIPE_ROPE, NB_ROPE_DIM>(values, ropeScale, at + tile.rope_codes,
                                                                           token % NB_TILE_TOKENS, part, slot >= 0);
    if (replaced > 0 && a.replaced != 0) atomicAdd((unsigned long long *)a.replaced, (unsigned long long)replaced);
  }
}
