// Encodes rows of keys and values and scatters them to their slots.
//
// A block takes 16 rows of one head, keys and values; a thread takes 16 values of one row, so rows are read with coalesced loads and
// a block scale needs at most one shuffle. Where the 16 slots are one whole tile, as in prefill, the tile is put together in shared
// memory and written as one piece; else each thread writes its own few bytes.
//
// The bytes are memory's work, so instructions are what a recipe is judged by: some 22 a value for nvfp4, 38 for nvfp4_4over6.
#include "fp4_rows.cuh"

namespace {

constexpr int D = NB_DIM, PARTS = D / 16, SIDE = NB_TILE_TOKENS * PARTS, THREADS = 2 * SIDE;  // nb_row_threads
// Trying two block maxima takes more registers.
constexpr bool TRIES_TWICE = NB_RECIPE_K == NB_KERNEL_NVFP4_4OVER6 || NB_RECIPE_V == NB_KERNEL_NVFP4_4OVER6;
constexpr int BLOCKS = TRIES_TWICE ? (D % 96 == 0 ? 576 : 768) / THREADS : D == 96 ? 4 : 1024 / THREADS;

// 16 values as they lie in memory: eight words of halves, or sixteen floats.
NB_DEVICE void load(uint64_t rows, int64_t element, int type, uint4 (&raw)[4]) {
  const int words = type == NB_KERNEL_TYPE_F32 ? 4 : 2;
  const uint4 *p = (const uint4 *)(rows + element * (type == NB_KERNEL_TYPE_F32 ? 4 : 2));
#pragma unroll
  for (int i = 0; i < 4; i++) raw[i] = i < words ? __ldcs(p + i) : make_uint4(0, 0, 0, 0);
}

NB_DEVICE void convert(const uint4 (&raw)[4], int type, float (&x)[16]) {
  uint32_t w[16];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    w[4 * i] = raw[i].x;
    w[4 * i + 1] = raw[i].y;
    w[4 * i + 2] = raw[i].z;
    w[4 * i + 3] = raw[i].w;
  }
  if (type == NB_KERNEL_TYPE_BF16) {
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = __uint_as_float(i % 2 == 0 ? w[i / 2] << 16 : w[i / 2] & 0xFFFF0000u);
  } else if (type == NB_KERNEL_TYPE_F16) {
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = nb_f16_to_f32((uint16_t)(w[i / 2] >> (16 * (i % 2))));
  } else {
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = __uint_as_float(w[i]);
  }
}

// The largest magnitude as bits, where NaN is larger than infinity.
NB_DEVICE uint32_t largestBits(const float (&x)[16]) {
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < 16; i++) most = max(most, __float_as_uint(x[i]) & 0x7FFFFFFFu);
  return most;
}

// NaN becomes 0, infinities and what is above them the largest number; returns how many were not finite. Rarely called.
NB_DEVICE int makeFinite(float (&x)[16], float largest) {
  int replaced = 0;
#pragma unroll
  for (int i = 0; i < 16; i++) {
    uint32_t magnitude = __float_as_uint(x[i]) & 0x7FFFFFFFu;
    replaced += magnitude > 0x7F7FFFFFu;
    x[i] = magnitude > 0x7F800000u ? 0.0f : fminf(fmaxf(x[i], -largest), largest);
  }
  return replaced;
}

// 16 E4M3 codes, four a word. Zero keeps its sign.
NB_DEVICE void encodeFP8(const float (&x)[16], float most, const nb_divisor &scale, uint32_t (&words)[4]) {
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

// Writes 16 values of a row to their places: `at` is the side's part of the tile, codes first, scales behind them. All lanes of a
// warp come here; what invalid ones have is not written. `scale` divides: by the decode scale, for nvfp4 by six times that.
template <int RECIPE, bool KEYS>
NB_DEVICE int storePart(const uint4 (&raw)[4], int type, float g, const nb_divisor &scale, uint8_t *at, int token, int part,
                        bool valid) {
  using Row = nb_row<RECIPE>;
  float x[16];
  convert(raw, type, x);
  uint32_t bits = largestBits(x);
  int replaced = 0;
  if (bits >= 0x7F000000u) {
    // The largest number that each recipe has a code for, or takes.
    replaced = makeFinite(x, RECIPE == NB_KERNEL_BF16             ? 0x1.FEp127f
                             : RECIPE == NB_KERNEL_FP4_MX_BLOCK16 ? 0x1.8p127f
                                                                  : 0x1.FFFFFEp127f);
    bits = largestBits(x);
  }
  const float most = __uint_as_float(bits);
  if constexpr (Row::isFP4) {
    constexpr int lanes = Row::block / 16;
    uint32_t codes[16];
    const uint32_t byte = nb_encode_block<RECIPE>(x, most, g, scale, codes);
    if (valid && part % lanes == 0) {
      const int block = part / lanes;
      int place = KEYS ? nb_key_scale_byte(RECIPE, D, token, block) : nb_value_scale_byte(RECIPE, D, token, block);
      at[nb_tile_code_bytes(RECIPE, D) + place] = (uint8_t)byte;
    }
    if constexpr (KEYS) {
      uint32_t w[2];
#pragma unroll
      for (int i = 0; i < 2; i++) w[i] = nb_key_word<RECIPE>(codes, x, 8 * i);
      if (valid) {
#pragma unroll
        for (int i = 0; i < 2; i++) *(uint32_t *)(at + nb_key_position(RECIPE, D, token, 16 * part + 8 * i).byte) = w[i];
      }
    } else {
      // Eight units have dims u, u + 8, u + 16, u + 24 of 32: this lane has two of their slots, its neighbour the others. Each
      // leaves with four whole units.
      const bool odd = part & 1;
      uint32_t w[4];
#pragma unroll
      for (int k = 0; k < 4; k++) w[k] = nb_value_word<RECIPE>(codes, x, 2 * k, odd);
      const uint32_t first = (odd ? w[2] : w[0]) | __shfl_xor_sync(0xFFFFFFFFu, odd ? w[0] : w[2], 1);
      const uint32_t second = (odd ? w[3] : w[1]) | __shfl_xor_sync(0xFFFFFFFFu, odd ? w[1] : w[3], 1);
      if (valid) {
        const int unit = odd ? 4 : 0;
        *(uint16_t *)(at + nb_unit_byte(false, D, token, part / 2, unit)) = (uint16_t)first;
        *(uint16_t *)(at + nb_unit_byte(false, D, token, part / 2, unit + 1)) = (uint16_t)(first >> 16);
        *(uint16_t *)(at + nb_unit_byte(false, D, token, part / 2, unit + 2)) = (uint16_t)second;
        *(uint16_t *)(at + nb_unit_byte(false, D, token, part / 2, unit + 3)) = (uint16_t)(second >> 16);
      }
    }
  } else if constexpr (RECIPE == NB_KERNEL_BF16) {
    if (!valid) return 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float *y = x + 8 * h;
      const uint32_t w[4] = {nb_pack_bf16(y[0], y[1]), nb_pack_bf16(y[2], y[3]), nb_pack_bf16(y[4], y[5]), nb_pack_bf16(y[6], y[7])};
      if constexpr (KEYS) {
        *(uint4 *)(at + nb_key_position(RECIPE, D, token, 16 * part + 8 * h).byte) = make_uint4(w[0], w[1], w[2], w[3]);
      } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
          *(uint16_t *)(at + nb_value_position(RECIPE, D, token, 16 * part + 8 * h + i).byte) = (uint16_t)(w[i / 2] >> (16 * (i % 2)));
        }
      }
    }
  } else {
    uint32_t w[4];
    encodeFP8(x, most, scale, w);
    if (!valid) return 0;
    if constexpr (KEYS) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        *(uint2 *)(at + nb_key_position(RECIPE, D, token, 16 * part + 8 * h).byte) = make_uint2(w[2 * h], w[2 * h + 1]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 16; i++) {
        at[nb_value_position(RECIPE, D, token, 16 * part + i).byte] = (uint8_t)(w[i / 4] >> (8 * (i % 4)));
      }
    }
  }
  return valid ? replaced : 0;
}

template <int RECIPE>
NB_DEVICE float scaleDivisor(float g) {
  return nb_row<RECIPE>::isNVFP4 ? __fmul_rn(6.0f, g) : g;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) nb_store(const __grid_constant__ nb_store_arguments a) {
  __shared__ uint4 image[4 * D];  // 16 rows of BF16 keys and values
  const nb_tile tile = nb_tile_of(NB_RECIPE_K, NB_RECIPE_V, D);
  const int32_t *slots = (const int32_t *)a.slots;
  const bool keys = threadIdx.x < SIDE;  // the same for a warp
  const int inside = threadIdx.x % SIDE / PARTS, part = threadIdx.x % PARTS, head = blockIdx.y;
  const uint64_t rows = keys ? a.keys : a.values;
  const int64_t stride = keys ? a.key_stride : a.value_stride;
  const nb_divisor scale(keys ? scaleDivisor<NB_RECIPE_K>(a.key_scale) : scaleDivisor<NB_RECIPE_V>(a.value_scale));
  int replaced = 0;
  const int tiles = (a.rows - 1) / NB_TILE_TOKENS + 1;
  for (int i = blockIdx.x; i < tiles; i += gridDim.x) {
    const int firstRow = i * NB_TILE_TOKENS, row = firstRow + inside;
    // Rows are on their way before it is known where they go.
    uint4 raw[4];
    load(rows, min((uint32_t)row, (uint32_t)a.rows - 1) * stride + head * D + 16 * part, a.row_type, raw);
    const int slot = row < a.rows ? __ldg(slots + row) : -1, first = __ldg(slots + firstRow);
    // Also the barrier between the last tile's readers and this one's writers.
    const bool whole = __syncthreads_and(slot == first + inside && first % NB_TILE_TOKENS == 0 && slot >= 0);
    const int used = slot < 0 ? 0 : slot, token = used & ((1 << a.page_shift) - 1);
    uint8_t *place = (uint8_t *)a.cache + (used >> a.page_shift) * a.page_stride +
                     nb_tile_offset(tile.bytes, a.page_shift, head, token);
    uint8_t *at = whole ? (uint8_t *)image : place;
    replaced += keys ? storePart<NB_RECIPE_K, true>(raw, a.row_type, a.key_scale, scale, at + tile.key_codes,
                                                    token % NB_TILE_TOKENS, part, slot >= 0)
                     : storePart<NB_RECIPE_V, false>(raw, a.row_type, a.value_scale, scale, at + tile.value_codes,
                                                     token % NB_TILE_TOKENS, part, slot >= 0);
    if (whole) {
      __syncthreads();
      for (int w = threadIdx.x; w < tile.bytes / 16; w += THREADS) ((uint4 *)place)[w] = image[w];
    }
  }
  if (replaced > 0 && a.replaced != 0) atomicAdd((unsigned long long *)a.replaced, (unsigned long long)replaced);
}
