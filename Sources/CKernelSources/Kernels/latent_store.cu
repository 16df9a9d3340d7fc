// Encodes rows of latents and rotary keys and scatters them to their slots.
//
// A warp takes 32 values of 16 rows at a time, a lane 16 of one row: what a warp reads of a row is two sectors, and what it writes to a tile
// of consecutive slots is contiguous.
#include "activations.cuh"
#include "fp4_rows.cuh"
#include "nibble_latent.h"

namespace {

constexpr int THREADS = NB_LATENT_STORE_THREADS;
// What takes more registers, as in store.cu.
constexpr bool FEWER = NB_RECIPE_LATENT == NB_KERNEL_NVFP4_4OVER6 || NB_RECIPE_ROPE != NB_KERNEL_BF16 ||
                       NB_ROW_TYPE == NB_KERNEL_TYPE_F32 || __CUDA_ARCH__ != 900;
using Values = nb_values<NB_ROW_TYPE>;

// Writes the 16 values `part` of a row into its tile: `at` is the region's part of it, codes first, scales behind them. All lanes of a warp
// come here; what invalid ones have is not written. Returns how many values were not finite.
template <int RECIPE, int VALUES>
NB_DEVICE int storePart(const Values &values, const nb_row_scale<RECIPE> &scale, uint8_t *at, int token, int part, bool valid) {
  using Row = nb_row<RECIPE>;
  float x[16], most;
  const int replaced = values.template finite<RECIPE>(x, most);
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

// One column of 32 values of every `step`-th tile: rows of `VALUES` values, whose region begins at `region` in a tile of the cache.
template <int RECIPE, int VALUES>
NB_DEVICE void storeColumn(const nb_latent_store_arguments &a, uint64_t rows, int64_t stride, float g, int region, int tileBytes,
                           int column, uint32_t tile, uint32_t step) {
  const int lane = threadIdx.x % 32, inside = lane / 2, part = column * 2 + lane % 2;
  const nb_row_scale<RECIPE> scale(g);
  const uint32_t tiles = ((uint32_t)a.rows + NB_TILE_TOKENS - 1) / NB_TILE_TOKENS;
  Values values{};
  int slot = -1;
  const auto load = [&]() {
    const int64_t row = (int64_t)tile * NB_TILE_TOKENS + inside;
    slot = -1;
    if (row < a.rows) {
      values.load(rows + (row * stride + 16 * part) * Values::bytes);
      slot = __ldg((const int32_t *)a.slots + row);
    }
  };
  load();
  while (tile < tiles) {
    const Values mine = values;
    const int to = slot, place = max(to, 0), token = place & ((1 << a.page_shift) - 1);
    // The next tile's rows are on their way while this one's are encoded.
    tile += step;
    load();
    uint8_t *const at = (uint8_t *)a.cache + (place >> a.page_shift) * a.page_stride + token / NB_TILE_TOKENS * tileBytes + region;
    const int replaced = storePart<RECIPE, VALUES>(mine, scale, at, token % NB_TILE_TOKENS, part, to >= 0);
    if (replaced > 0 && a.replaced != 0) atomicAdd((unsigned long long *)a.replaced, (unsigned long long)replaced);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, (FEWER ? 768 : 1024) / THREADS)
nb_latent_store(const __grid_constant__ nb_latent_store_arguments a) {
  constexpr int latentColumns = NB_LATENT_DIM / 32, columns = latentColumns + NB_ROPE_DIM / 32;
  const nb_latent_tile tile = nb_latent_tile_of(NB_RECIPE_LATENT, NB_RECIPE_ROPE);
  // A warp keeps its column; the warps of all columns of a tile are neighbours.
  const uint32_t warp = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, step = gridDim.x * (THREADS / 32) / columns;
  const int column = warp % columns;
  if (warp / columns >= step) return;
  if (column < latentColumns) {
    storeColumn<NB_RECIPE_LATENT, NB_LATENT_DIM>(a, a.latents, a.latent_stride, a.latent_scale, tile.latent_codes, tile.bytes, column,
                                                 warp / columns, step);
  } else {
    storeColumn<NB_RECIPE_ROPE, NB_ROPE_DIM>(a, a.ropes, a.rope_stride, a.rope_scale, tile.rope_codes, tile.bytes,
                                             column - latentColumns, warp / columns, step);
  }
}
