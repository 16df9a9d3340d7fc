// Encodes rows of keys and values and scatters them to their slots.
//
// A block takes 16 rows of one head, keys and values; a thread takes 16 values of one row, so rows are read with coalesced loads and
// a block scale needs at most one shuffle. Where the 16 slots are one whole tile, as in prefill, the tile is put together in shared
// memory and written as one piece; else each thread writes its own few bytes.
//
// The bytes are memory's work, so instructions are what a recipe is judged by: some 32 a value for four-over-six.
#include "activations.cuh"
#include "fp4_rows.cuh"

namespace {

constexpr int D = NB_DIM, PARTS = D / 16, SIDE = NB_TILE_TOKENS * PARTS, THREADS = 2 * SIDE;  // nb_row_threads
constexpr bool ALIKE = NB_RECIPE_K == NB_RECIPE_V;
// What takes more registers: four-over-six, FP32 rows, recipes that differ, a head dimension that is not a power of two. For other
// architectures than sm_90, where nothing was tuned, there are enough for all.
constexpr bool FEWER = !ALIKE || NB_RECIPE_K == NB_KERNEL_NVFP4_4OVER6 || NB_ROW_TYPE == NB_KERNEL_TYPE_F32 || D == 96;
constexpr int BLOCKS = (__CUDA_ARCH__ != 900 ? 512 : FEWER ? 768 : 1024) / THREADS;

using Values = nb_values<NB_ROW_TYPE>;

// 16 values of a row in a recipe's codes, in the words that a tile of keys or of values has.
template <int RECIPE>
struct Encoded {
  using Row = nb_row<RECIPE>;
  static constexpr int count = Row::bits / 2;
  uint32_t words[count < 4 ? 2 : count], byte;

  // Returns how many values were not finite. All lanes of a warp come here.
  NB_DEVICE_MEMBER int encode(const Values &values, const nb_row_scale<RECIPE> &scale, int part, bool keys) {
    float x[16], most;
    const int replaced = values.template finite<RECIPE>(x, most);
    if constexpr (Row::isFP4) {
      uint32_t codes[16];
      byte = nb_encode_block<RECIPE, THREADS>(x, most, scale, codes);
      if (keys) {
#pragma unroll
        for (int i = 0; i < 2; i++) words[i] = nb_key_word<RECIPE>(codes, x, 8 * i);
      } else {
        // Eight units have dims u, u + 8, u + 16, u + 24 of 32: this lane has two of their slots, its neighbour the others. Each
        // leaves with four whole units.
        const bool odd = part & 1;
        uint32_t w[4];
#pragma unroll
        for (int k = 0; k < 4; k++) w[k] = nb_value_word<RECIPE>(codes, x, 2 * k, odd);
        words[0] = (odd ? w[2] : w[0]) | __shfl_xor_sync(0xFFFFFFFFu, odd ? w[0] : w[2], 1);
        words[1] = (odd ? w[3] : w[1]) | __shfl_xor_sync(0xFFFFFFFFu, odd ? w[1] : w[3], 1);
      }
    } else if constexpr (RECIPE == NB_KERNEL_BF16) {
#pragma unroll
      for (int i = 0; i < 8; i++) words[i] = nb_pack_bf16(x[2 * i], x[2 * i + 1]);
    } else {
      nb_encode_fp8(x, most, scale, words);
    }
    return replaced;
  }

  // Where this row's values `16 part` and up lie in the side's part of a tile, and their scale.
  NB_DEVICE_MEMBER static int codePlace(int token, int part, bool keys) {
    if (keys) return nb_key_position(RECIPE, D, token, 16 * part).byte;
    return Row::isFP4 ? nb_unit_byte(false, D, token, part / 2, part % 2 * 4) : nb_value_position(RECIPE, D, token, 16 * part).byte;
  }
  NB_DEVICE_MEMBER static int scalePlace(int token, int part, bool keys) {
    if (!Row::isFP4) return 0;
    const int block = part * 16 / Row::block;
    return nb_tile_code_bytes(RECIPE, D) +
           (keys ? nb_key_scale_byte(RECIPE, D, token, block) : nb_value_scale_byte(RECIPE, D, token, block));
  }

  // Writes them there. The bytes of a key row's 16 values are one piece but for D = 96, whose pieces are eight values; those of a value
  // row lie equally far apart.
  NB_DEVICE_MEMBER void write(uint8_t *codes, uint8_t *scale, int part, bool keys) const {
    if (Row::isFP4 && (Row::block == 16 || part % 2 == 0)) *scale = (uint8_t)byte;
    if (keys) {
      const int from = D == 96 ? 16 * part : 0;  // where each half may be in another quarter
      const int half = nb_key_position(RECIPE, D, 0, from + 8).byte - nb_key_position(RECIPE, D, 0, from).byte;
      if constexpr (Row::bits == 4 && D != 96) {
        *(uint2 *)codes = make_uint2(words[0], words[1]);
      } else {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          uint8_t *const to = codes + h * half;
          if constexpr (Row::bits == 4) *(uint32_t *)to = words[h];
          if constexpr (Row::bits == 8) *(uint2 *)to = make_uint2(words[2 * h], words[2 * h + 1]);
          if constexpr (Row::bits == 16) {
            *(uint4 *)to = make_uint4(words[4 * h], words[4 * h + 1], words[4 * h + 2], words[4 * h + 3]);
          }
        }
      }
    } else if constexpr (Row::isFP4) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        *(uint16_t *)(codes + nb_unit_byte(false, D, 0, 0, i)) = (uint16_t)(words[i / 2] >> (16 * (i % 2)));
      }
    } else {
#pragma unroll
      for (int i = 0; i < 16; i++) {
        uint8_t *const to = codes + nb_value_position(RECIPE, D, 0, i).byte;
        if constexpr (Row::bits == 8) *to = (uint8_t)(words[i / 4] >> (8 * (i % 4)));
        if constexpr (Row::bits == 16) *(uint16_t *)to = (uint16_t)(words[i / 2] >> (16 * (i % 2)));
      }
    }
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) nb_store(const __grid_constant__ nb_store_arguments a) {
  __shared__ uint4 image[4 * D];  // 16 rows of BF16 keys and values
  const nb_tile tile = nb_tile_of(NB_RECIPE_K, NB_RECIPE_V, D);
  const bool keys = threadIdx.x < SIDE;  // the same for a warp
  const int inside = threadIdx.x % SIDE / PARTS, part = threadIdx.x % PARTS, head = blockIdx.y;
  const nb_row_scale<NB_RECIPE_K> keyScale(ALIKE && !keys ? a.value_scale : a.key_scale);
  const nb_row_scale<NB_RECIPE_V> valueScale(a.value_scale);
  const auto codePlace = [&](int token) {
    return keys ? tile.key_codes + Encoded<NB_RECIPE_K>::codePlace(token, part, true)
                : tile.value_codes + Encoded<NB_RECIPE_V>::codePlace(token, part, false);
  };
  const auto scalePlace = [&](int token) {
    return keys ? tile.key_codes + Encoded<NB_RECIPE_K>::scalePlace(token, part, true)
                : tile.value_codes + Encoded<NB_RECIPE_V>::scalePlace(token, part, false);
  };
  // Kept: the compiler would rather work them out for each tile.
  uint32_t imageCodes = nb_shared_address(image) + codePlace(inside);
  uint32_t imageScale = nb_shared_address(image) + scalePlace(inside);
  asm volatile("" : "+r"(imageCodes), "+r"(imageScale));

  // This thread's row of a tile, and its slot; that of the tile's first row. Past the end a row is what the last one was, without slot.
  const uint32_t stepRows = gridDim.x * NB_TILE_TOKENS, rows = a.rows;
  uint32_t firstRow = blockIdx.x * NB_TILE_TOKENS;
  const int64_t stride = (keys ? a.key_stride : a.value_stride) * Values::bytes;
  uint64_t row = (keys ? a.keys : a.values) + (firstRow + inside) * stride + (head * D + 16 * part) * Values::bytes;
  Values values{};
  int slot = -1, first = 0;
  const auto load = [&]() {
    if (firstRow >= rows) return;
    const int32_t *slots = (const int32_t *)a.slots + firstRow;
    first = __ldg(slots);
    slot = -1;
    if (firstRow + inside < rows) {
      values.load(row);
      slot = __ldg(slots + inside);
    }
  };
  load();
  while (firstRow < rows) {
    Encoded<NB_RECIPE_K> key;
    Encoded<NB_RECIPE_V> value;
    const Values mine = values;
    const int to = slot, start = first;
    // The next tile's rows are on their way while this one's are encoded.
    firstRow += stepRows;
    row += stepRows * stride;
    load();
    const int replaced = ALIKE || keys ? key.encode(mine, keyScale, part, keys) : value.encode(mine, valueScale, part, false);
    if (replaced > 0 && to >= 0 && a.replaced != 0) atomicAdd((unsigned long long *)a.replaced, (unsigned long long)replaced);
    const auto write = [&](uint8_t *codes, uint8_t *scale) {
      if (ALIKE || keys) {
        key.write(codes, scale, part, keys);
      } else {
        value.write(codes, scale, part, false);
      }
    };
    const auto place = [&](int slot) {
      const uint32_t page = slot >> a.page_shift, token = slot & ((1 << a.page_shift) - 1);
      const uint32_t tiles = ((uint32_t)head << (a.page_shift - 4)) + token / NB_TILE_TOKENS;
      return (uint8_t *)a.cache + page * a.page_stride + (uint64_t)tiles * (uint32_t)tile.bytes;
    };
    // Also the barrier between the last tile's readers and this one's writers.
    if (__syncthreads_and(to == start + inside && start % NB_TILE_TOKENS == 0 && to >= 0)) {
      write((uint8_t *)__cvta_shared_to_generic(imageCodes), (uint8_t *)__cvta_shared_to_generic(imageScale));
      __syncthreads();
      uint4 *const target = (uint4 *)place(start);
#pragma unroll
      for (int w = 0; w < tile.bytes / 16; w += THREADS) {
        if (w + threadIdx.x < tile.bytes / 16) target[w + threadIdx.x] = image[w + threadIdx.x];
      }
    } else if (to >= 0) {
      uint8_t *const target = place(to);
      write(target + codePlace(to % NB_TILE_TOKENS), target + scalePlace(to % NB_TILE_TOKENS));
    }
  }
}
