// The contract between the CUDA kernels and the host: argument structures, limits and the byte order of a page record on the
// GPU. Plain C, read by Swift and by NVRTC alike.
//
// A kernel module is one .cu file compiled with -D definitions (below); its kernels are extern "C" and take one argument
// structure by value. Device addresses are integers (CUdeviceptr).
//
//   file           definitions                                      kernels
//   decode.cu      NB_RECIPE_K, NB_RECIPE_V, NB_DIM, NB_ROWS=8|16   nb_decode(nb_decode_arguments)
//   store.cu       NB_RECIPE_K, NB_RECIPE_V, NB_DIM, NB_ROW_TYPE    nb_store(nb_store_arguments)
//   dequantize.cu  NB_RECIPE_K, NB_RECIPE_V, NB_DIM                 nb_dequantize(nb_dequantize_arguments)
//
// NB_RECIPE_* are nb_kernel_recipe values, NB_ROW_TYPE is an nb_kernel_type. The sources include one another by plain file name
// ("ptx.cuh") and need no header of the CUDA toolkit, so NVRTC runs without an include path. Compile with --std=c++17
// --gpu-architecture=sm_NN and without fast-math.
#pragma once

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)
#define NB_FUNCTION static __host__ __device__ inline
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif
#else
#include <stdint.h>
#define NB_FUNCTION static inline
#endif

/// Version of the byte order described below.
#define NB_KERNEL_LAYOUT_VERSION 1

/// Tokens in a tile. Page sizes are 16, 32, 64 or 128.
#define NB_TILE_TOKENS 16

/// Requests in one launch.
#define NB_MAXIMUM_BATCH 256

/// The largest target_splits, and the most splits of a request.
#define NB_MAXIMUM_SPLITS 272

/// Storage recipes; the values equal nb_recipe of CSIMD and KVRecipe of Swift.
typedef enum nb_kernel_recipe {
  NB_KERNEL_BF16 = 1,
  NB_KERNEL_FP8_E4M3 = 2,
  NB_KERNEL_NVFP4 = 3,
  NB_KERNEL_NVFP4_4OVER6 = 4,
  NB_KERNEL_FP4_MX_BLOCK16 = 5,
  NB_KERNEL_MXFP4 = 6,
} nb_kernel_recipe;

/// Element types of activations.
typedef enum nb_kernel_type { NB_KERNEL_TYPE_F32 = 0, NB_KERNEL_TYPE_BF16 = 1, NB_KERNEL_TYPE_F16 = 2 } nb_kernel_type;

/// Decode attention: the queries of `query_length` (1 to 8) consecutive tokens of each request over its paged cache.
///
/// The context of a request is cut into splits (nb_gqa_split_plan_of), a function of its length alone. Thread blocks claim splits one after the
/// other; the results are merged in the order of the splits. So a request's output has the same bits in any batch, on whichever
/// blocks its splits ran. Lengths and page tables are read from device memory: a captured graph stays valid while they
/// change, as long as the workspace is large enough.
///
/// Launch: grid = any number of blocks (best: as many as are resident at once), block = `threads` and dynamic shared memory =
/// `shared_bytes` of the module's global `nb_decode_configuration` (cuModuleGetGlobal).
typedef struct nb_decode_arguments {
  uint64_t queries;          ///< [batch * query_length, group * kv_heads, dim] of query_type, 16-byte aligned rows
  uint64_t output;           ///< the same shape, of output_type, 16-byte aligned rows
  uint64_t log_sum_exp;      ///< float32 [batch * query_length, group * kv_heads], natural logarithm; 0 = not wanted
  uint64_t cache;            ///< record of page 0 of this layer, 16-byte aligned
  uint64_t page_table;       ///< int32 [batch, page_table_stride], page numbers
  uint64_t context_lengths;  ///< int32 [batch], tokens that the LAST query of a request sees, itself included
  uint64_t workspace;        ///< nb_decode_workspace_bytes(...) bytes, any content, 16-byte aligned
  uint64_t counters;         ///< uint32 [nb_decode_counter_count(...)], zero before the first launch, zero after every launch
  int64_t page_stride;       ///< bytes from one page's record of this layer to the next page's, a multiple of 16
  int64_t query_stride;      ///< elements from one token's queries to the next token's
  int64_t output_stride;     ///< elements from one token's output to the next token's
  int32_t page_table_stride;
  int32_t page_shift;        ///< log2 of the page size: 4 to 7
  int32_t batch;
  int32_t kv_heads;
  int32_t group;             ///< query heads a KV head, 1 to 16
  int32_t query_length;      ///< 1 to 8; query i sees context_length - query_length + 1 + i tokens
  int32_t query_type;        ///< nb_kernel_type
  int32_t output_type;       ///< nb_kernel_type
  int32_t target_splits;     ///< see nb_gqa_split_plan_of
  int32_t minimum_split;     ///< see nb_gqa_split_plan_of
  float softmax_scale;
  float key_scale;           ///< decode scale of keys; 1 for recipes without one
  float value_scale;         ///< decode scale of values; 1 for recipes without one
  int32_t reserved;
} nb_decode_arguments;

/// What the host needs to launch nb_decode: the value of the global nb_decode_configuration in its module.
typedef struct nb_decode_information {
  int32_t threads;
  int32_t shared_bytes;  ///< dynamic; above 48 KB the function attribute must be raised
  int32_t rows;          ///< query rows of a row tile, NB_ROWS
  int32_t warps;
  int32_t stages;
  int32_t step_tokens;
  int32_t layout_version;
  int32_t teams;         ///< of warps, each with items of its own
} nb_decode_information;

/// How a request is cut: `count` splits of `tokens`; the last may be shorter.
typedef struct nb_split_plan {
  int32_t tokens, count;
} nb_split_plan;

/// Multiples of 128 tokens. A request gets `target_splits` equal splits (the teams of warps that one KV head can have for itself), none
/// below `minimum_split`. One that could not fill half the GPU by itself comes in a batch, if in numbers: it is cut into pieces of twice
/// `minimum_split`.
NB_FUNCTION nb_split_plan nb_split_plan_of(int32_t context_length, int32_t target_splits, int32_t minimum_split) {
  int32_t even = context_length / target_splits + (context_length % target_splits != 0);
  int32_t least = even <= minimum_split / 2 ? 2 * minimum_split : minimum_split;
  nb_split_plan plan;
  plan.tokens = ((even > least ? even : least) + 127) / 128 * 128;
  plan.count = (context_length + plan.tokens - 1) / plan.tokens;
  if (plan.count == 0) plan.count = 1;
  return plan;
}

/// Splits of a request, at least one.
NB_FUNCTION int32_t nb_split_count(int32_t context_length, int32_t target_splits, int32_t minimum_split) {
  return nb_split_plan_of(context_length, target_splits, minimum_split).count;
}

/// No request of up to `context_length` tokens has more splits.
NB_FUNCTION int32_t nb_maximum_split_count(int32_t context_length, int32_t target_splits, int32_t minimum_split) {
  int32_t count = context_length / ((minimum_split + 127) / 128 * 128) + 1;
  return count < target_splits ? count : target_splits;
}

/// The cut of grouped-query attention, in multiples of 128 tokens. A request gets `target_splits` equal splits (the teams of warps that one
/// KV head can have for itself) if it is long enough. Else its splits are shorter, for a request that comes alone, but not as short as
/// would be best then, since each costs a team time in a batch: a sixth of the request, within `minimum_split` / 4 and
/// `minimum_split`. Up to `minimum_split` / 2 tokens are one split, whose result needs no merge.
NB_FUNCTION nb_split_plan nb_gqa_split_plan_of(int32_t context_length, int32_t target_splits, int32_t minimum_split) {
  int32_t even = context_length / target_splits + (context_length % target_splits != 0);
  int32_t least = (minimum_split + 3) / 4, sixth = context_length / 6 + (context_length % 6 != 0);
  if (sixth > minimum_split) sixth = minimum_split;
  if (sixth > least) least = sixth;
  if (context_length <= minimum_split / 2) least = (minimum_split + 1) / 2;
  nb_split_plan plan;
  plan.tokens = ((even > least ? even : least) + 127) / 128 * 128;
  plan.count = (context_length + plan.tokens - 1) / plan.tokens;
  if (plan.count == 0) plan.count = 1;
  return plan;
}

/// No request of up to `context_length` tokens has more splits.
NB_FUNCTION int32_t nb_gqa_maximum_split_count(int32_t context_length, int32_t target_splits, int32_t minimum_split) {
  int32_t count = context_length / ((minimum_split + 127) / 128 * 128) + 1;
  if (count < 6) count = 6;
  return count < target_splits ? count : target_splits;
}

/// Words of nb_decode_arguments.counters.
NB_FUNCTION int32_t nb_decode_counter_count(int32_t batch, int32_t kv_heads, int32_t row_tiles) {
  return 2 + batch * kv_heads * row_tiles;
}

/// Row tiles of a request and KV head.
NB_FUNCTION int32_t nb_row_tiles(int32_t group, int32_t query_length, int32_t rows) {
  return (group * query_length + rows - 1) / rows;
}

/// Bytes of the workspace for `splits` splits, the sum of nb_split_count over the batch (or an upper bound of it).
NB_FUNCTION int64_t nb_decode_workspace_bytes(int64_t splits, int32_t kv_heads, int32_t row_tiles, int32_t rows, int32_t dim) {
  return splits * kv_heads * row_tiles * (int64_t)rows * (dim + 2) * 4;
}

/// Stores rows of keys and values: encodes them (formats: "Recipes", byte for byte the CPU's encoders) and scatters them to slots.
/// Launch: grid = any number of blocks x kv_heads (a block takes 16 rows of one head at a time), block = nb_row_threads(dim).
typedef struct nb_store_arguments {
  uint64_t keys;        ///< [rows, kv_heads, dim] of NB_ROW_TYPE, 16-byte aligned rows
  uint64_t values;      ///< the same
  uint64_t slots;       ///< int32 [rows]: page * page size + token in page; negative = skip the row
  uint64_t cache;       ///< record of page 0 of this layer
  uint64_t replaced;    ///< uint64: count of NaN and infinities met, added to; 0 = not wanted
  int64_t page_stride;  ///< bytes
  int64_t key_stride;   ///< elements from one row to the next
  int64_t value_stride;
  int32_t page_shift;
  int32_t rows;
  int32_t kv_heads;
  int32_t dim;          ///< NB_DIM
  float key_scale;
  float value_scale;
} nb_store_arguments;

/// Decodes tokens [first_token, first_token + tokens) of ONE request into dense BF16 (or F32) rows.
/// Launch: grid = any number of blocks x kv_heads (a block takes a tile of one head at a time), block = nb_row_threads(dim).
typedef struct nb_dequantize_arguments {
  uint64_t keys;        ///< [tokens, kv_heads, dim] of output_type, written; 0 = skip
  uint64_t values;      ///< the same
  uint64_t cache;       ///< record of page 0 of this layer
  uint64_t page_table;  ///< int32, the request's pages
  int64_t page_stride;  ///< bytes
  int32_t page_shift;
  int32_t first_token;
  int32_t tokens;
  int32_t kv_heads;
  int32_t dim;          ///< NB_DIM
  int32_t output_type;  ///< NB_KERNEL_TYPE_BF16 or NB_KERNEL_TYPE_F32
  float key_scale;
  float value_scale;
} nb_dequantize_arguments;

/// Threads of a block of nb_store and nb_dequantize: one for eight values of a tile.
NB_FUNCTION int32_t nb_row_threads(int32_t dim) { return NB_TILE_TOKENS * dim / 8; }

// Page records, version 1
// -----------------------
// A page's record of one layer is, for each KV head, a run of tiles of 16 tokens; a tile is
//     K codes | K scales | V codes | V scales
// so a record has exactly as many bytes as the CPU's, every byte belongs to one token, and a tile is one bulk copy. The order
// within a tile is that of the fragments of mma.m16n8k16: thread 4 g + j of a warp (g = 0..7, j = 0..3) reads its codes
// with 16-byte loads, and a warp's load is contiguous.
//
// Codes. FP4: four codes share a 16-bit unit, bit by bit where FP16 (nvfp4) or BF16 (the MX recipes) wants them, so that one
// mask (after a multiply as shift) makes the number: see nb_unit_bit. Position of a value = (byte of its unit, slot 0..3).
//   K: thread (g, j) holds tokens g and g + 8, dims [j D/4, (j+1) D/4) in order. Its bytes are cut into chunks of
//      gcd(bytes, 16); a chunk of all (token, j) is contiguous.
//   V: thread (g, j) holds tokens 2j, 2j+1, 2j+8, 2j+9 and dims 16 b + 8 h + g. A 32-bit word pairs tokens 2j and 2j+1 (halves
//      for FP4 and BF16, alternate bytes for FP8). FP4: word (u, p) = blocks 2u, 2u+1, token pair p, slot 2 (b & 1) + h;
//      FP8: word (b, p), byte 2 h + token; BF16: word (b, p, h). Chunks as for K, a chunk of all threads is contiguous.
// Scales, one byte a block.
//   K: [block / P][g][block % P][token / 8], P = 2 where a thread's blocks come in pairs, else 1.
//   V: [j][block][p][token & 1].

NB_FUNCTION int32_t nb_code_bits(int32_t recipe) {
  return recipe == NB_KERNEL_BF16 ? 16 : recipe == NB_KERNEL_FP8_E4M3 ? 8 : 4;
}

/// Values a block scale covers; 0 = no block scales.
NB_FUNCTION int32_t nb_block_size(int32_t recipe) {
  return recipe == NB_KERNEL_BF16 || recipe == NB_KERNEL_FP8_E4M3 ? 0 : recipe == NB_KERNEL_MXFP4 ? 32 : 16;
}

NB_FUNCTION int32_t nb_tile_code_bytes(int32_t recipe, int32_t dim) { return NB_TILE_TOKENS * dim * nb_code_bits(recipe) / 8; }

NB_FUNCTION int32_t nb_tile_scale_bytes(int32_t recipe, int32_t dim) {
  int32_t block = nb_block_size(recipe);
  return block == 0 ? 0 : NB_TILE_TOKENS * dim / block;
}

/// Byte offsets of the parts of a tile; bytes is the tile's size.
typedef struct nb_tile {
  int32_t key_codes, key_scales, value_codes, value_scales, bytes;
} nb_tile;

NB_FUNCTION nb_tile nb_tile_of(int32_t recipe_k, int32_t recipe_v, int32_t dim) {
  nb_tile tile;
  tile.key_codes = 0;
  tile.key_scales = nb_tile_code_bytes(recipe_k, dim);
  tile.value_codes = tile.key_scales + nb_tile_scale_bytes(recipe_k, dim);
  tile.value_scales = tile.value_codes + nb_tile_code_bytes(recipe_v, dim);
  tile.bytes = tile.value_scales + nb_tile_scale_bytes(recipe_v, dim);
  return tile;
}

/// Chunk of a thread's bytes: the largest power of two up to 16 that divides them.
NB_FUNCTION int32_t nb_chunk_bytes(int32_t bytes) { return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : 4; }

/// Where a value lies within its part of the tile: a byte, and for FP4 the slot in the 16-bit unit that starts there.
typedef struct nb_position {
  int32_t byte, slot;
} nb_position;

NB_FUNCTION nb_position nb_key_position(int32_t recipe, int32_t dim, int32_t token, int32_t d) {
  int32_t bits = nb_code_bits(recipe), part = dim / 4, j = d / part, e = d % part;
  int32_t chunk = nb_chunk_bytes(part * bits / 8);
  int32_t byte = bits == 4 ? e / 4 * 2 : e * bits / 8;
  nb_position position;
  position.byte = byte / chunk * (64 * chunk) + (token * 4 + j) * chunk + byte % chunk;
  position.slot = bits == 4 ? e % 4 : 0;
  return position;
}

NB_FUNCTION nb_position nb_value_position(int32_t recipe, int32_t dim, int32_t token, int32_t d) {
  int32_t bits = nb_code_bits(recipe), chunk = nb_chunk_bytes(dim * bits / 16);
  int32_t j = token % 8 / 2, p = token / 8, low = token & 1, b = d / 16, h = d / 8 % 2, g = d % 8;
  int32_t byte;
  nb_position position;
  position.slot = 0;
  if (bits == 4) {
    byte = (b / 2 * 2 + p) * 4 + low * 2;
    position.slot = (b & 1) * 2 + h;
  } else if (bits == 8) {
    byte = (b * 2 + p) * 4 + h * 2 + low;
  } else {
    byte = ((b * 2 + p) * 2 + h) * 4 + low * 2;
  }
  position.byte = byte / chunk * (32 * chunk) + (g * 4 + j) * chunk + byte % chunk;
  return position;
}

/// 2 where the blocks of a thread's quarter of a key row come in pairs, else 1.
NB_FUNCTION int32_t nb_key_scale_pairing(int32_t recipe, int32_t dim) {
  return dim % (8 * nb_block_size(recipe)) == 0 ? 2 : 1;
}

NB_FUNCTION int32_t nb_key_scale_byte(int32_t recipe, int32_t dim, int32_t token, int32_t block) {
  int32_t pairing = nb_key_scale_pairing(recipe, dim);
  return ((block / pairing * 8 + token % 8) * pairing + block % pairing) * 2 + token / 8;
}

NB_FUNCTION int32_t nb_value_scale_byte(int32_t recipe, int32_t dim, int32_t token, int32_t block) {
  int32_t blocks = dim / nb_block_size(recipe);
  return ((token % 8 / 2 * blocks + block) * 2 + token / 8) * 2 + (token & 1);
}

/// Bit of a 16-bit unit that holds bit `bit` (3 = sign) of the E2M1 code in `slot`.
/// nvfp4: FP16 has the sign at 15 and the lowest exponent bits and mantissa at 11..9; slot 1 lies 3 bits lower, slots 2 and 3 in
/// what is left. MX: BF16, 15 and 8..6; slots 1 and 2 lie 3 and 6 bits lower, slot 3 in what is left.
NB_FUNCTION int32_t nb_unit_bit(int32_t recipe, int32_t slot, int32_t bit) {
  if (recipe == NB_KERNEL_NVFP4 || recipe == NB_KERNEL_NVFP4_4OVER6) {
    if (bit == 3) return slot == 0 ? 15 : slot == 1 ? 12 : slot == 2 ? 14 : 13;
    return 9 - 3 * slot + bit;
  }
  if (slot < 3) return bit == 3 ? 15 - 3 * slot : 6 - 3 * slot + bit;
  return bit == 3 ? 14 : bit == 0 ? 13 : 9 + bit;
}

/// The unit's bits of one code.
NB_FUNCTION uint16_t nb_unit_pack(int32_t recipe, int32_t slot, int32_t code) {
  uint32_t unit = 0;
  for (int32_t bit = 0; bit < 4; bit++) unit |= (uint32_t)(code >> bit & 1) << nb_unit_bit(recipe, slot, bit);
  return (uint16_t)unit;
}

/// The code in one slot of a unit.
NB_FUNCTION int32_t nb_unit_unpack(int32_t recipe, int32_t slot, uint16_t unit) {
  int32_t code = 0;
  for (int32_t bit = 0; bit < 4; bit++) code |= (unit >> nb_unit_bit(recipe, slot, bit) & 1) << bit;
  return code;
}

/// Byte offset of a token's tile from the start of its page's record.
NB_FUNCTION int64_t nb_tile_offset(int32_t tile_bytes, int32_t page_shift, int32_t head, int32_t token_in_page) {
  return ((int64_t)head << (page_shift - 4)) * tile_bytes + (int64_t)(token_in_page / NB_TILE_TOKENS) * tile_bytes;
}
