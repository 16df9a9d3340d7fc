// The contract between the CUDA kernels of latent attention (MLA, arXiv 2405.04434, section 2.1) and the host: see nibble_kernels.h.
//
//   file              definitions                                  kernels
//   latent_decode.cu  NB_RECIPE_LATENT, NB_RECIPE_ROPE             nb_latent_decode(nb_latent_decode_arguments)
//   latent_merge.cu   -                                            nb_latent_merge(nb_latent_decode_arguments)
//   latent_store.cu   the same, NB_ROW_TYPE (nb_kernel_type)       nb_latent_store(nb_latent_store_arguments)
#pragma once

#include "nibble_kernels.h"

/// Version of the byte order of latent records described below.
#define NB_LATENT_LAYOUT_VERSION 1

/// Values of a latent (kv_lora_rank), which is key and value, and of a rotary key (qk_rope_head_dim), the rest of the key.
#define NB_LATENT_DIM 512
#define NB_ROPE_DIM 64

/// Query rows that a block takes: heads, times the queries of a request.
#define NB_LATENT_ROWS 64

/// Query heads at most.
#define NB_LATENT_MAXIMUM_HEADS 128

/// Threads of a block of nb_latent_merge.
#define NB_LATENT_MERGE_THREADS 256

/// Decode attention in absorbed form: a query is (latent part, rotary part), a key (latent, rotary key), a value the latent.
///
/// The context of a request is cut into splits by nb_split_plan_of, a function of its length alone. A block takes one split and 64 query rows
/// at a time. nb_latent_merge, launched behind nb_latent_decode with the same arguments, merges the splits in their order; it has nothing
/// to do where no request can have two.
///
/// Launch of nb_latent_decode: grid = any number of blocks (best: as many as are resident at once), block = `threads` and dynamic shared
/// memory = `shared_bytes` of the module's global `nb_latent_decode_configuration`. Of nb_latent_merge: block =
/// NB_LATENT_MERGE_THREADS, grid = (rows, NB_LATENT_DIM / 128) for few rows (batch * query_length * heads), or (rows / 8 rounded up, 1).
typedef struct nb_latent_decode_arguments {
  uint64_t queries;          ///< [batch * query_length, heads, 512 + 64] of query_type, 16-byte aligned rows
  uint64_t output;           ///< [batch * query_length, heads, 512] of output_type, 16-byte aligned rows
  uint64_t log_sum_exp;      ///< float32 [batch * query_length, heads], natural logarithm; 0 = not wanted
  uint64_t cache;            ///< record of page 0 of this layer, 16-byte aligned
  uint64_t page_table;       ///< int32 [batch, page_table_stride], page numbers
  uint64_t context_lengths;  ///< int32 [batch], tokens that the LAST query of a request sees, itself included
  uint64_t partial_outputs;  ///< float32 [splits of all requests, row tiles, 64, 512], any content, 16-byte aligned
  uint64_t partial_sums;     ///< float32 [splits of all requests, row tiles, 64, 2]: greatest score (base 2) and sum, any content
  int64_t page_stride;       ///< bytes from one page's record of this layer to the next page's, a multiple of 16
  int64_t query_stride;      ///< elements from one token's queries to the next token's
  int64_t output_stride;     ///< elements from one token's output to the next token's
  int32_t page_table_stride;
  int32_t page_shift;        ///< log2 of the page size: 4 to 7
  int32_t batch;
  int32_t heads;             ///< query heads, 1 to 128
  int32_t query_length;      ///< 1 to 8; query i sees context_length - query_length + 1 + i tokens
  int32_t query_type;        ///< nb_kernel_type
  int32_t output_type;       ///< nb_kernel_type
  int32_t target_splits;     ///< see nb_split_plan_of
  int32_t minimum_split;     ///< see nb_split_plan_of
  float softmax_scale;
  float latent_scale;        ///< decode scale of latents; 1 for recipes without one
  float rope_scale;          ///< decode scale of rotary keys; 1 for recipes without one
} nb_latent_decode_arguments;

/// What the host needs to launch nb_latent_decode.
typedef struct nb_latent_decode_information {
  int32_t threads;
  int32_t shared_bytes;  ///< dynamic; above 48 KB the function attribute must be raised
  int32_t rows;          ///< NB_LATENT_ROWS
  int32_t layout_version;
} nb_latent_decode_information;

/// Stores rows of latents and rotary keys: encodes them, byte for byte as the CPU, and scatters them to slots.
/// Launch: grid = three blocks or more (a warp takes 32 of the 576 values of 16 rows at a time), block = NB_LATENT_STORE_THREADS.
typedef struct nb_latent_store_arguments {
  uint64_t latents;      ///< [rows, 512] of NB_ROW_TYPE, 16-byte aligned rows
  uint64_t ropes;        ///< [rows, 64] of NB_ROW_TYPE, 16-byte aligned rows
  uint64_t slots;        ///< int32 [rows]: page * page size + token in page; negative = skip the row
  uint64_t cache;        ///< record of page 0 of this layer
  uint64_t replaced;     ///< uint64: count of NaN and infinities met, added to; 0 = not wanted
  int64_t page_stride;   ///< bytes
  int64_t latent_stride; ///< elements from one row to the next
  int64_t rope_stride;
  int32_t page_shift;
  int32_t rows;
  float latent_scale;
  float rope_scale;
} nb_latent_store_arguments;

#define NB_LATENT_STORE_THREADS 256

// Latent page records, version 1
// ------------------------------
// A page's record of one layer is a run of tiles of 16 tokens; a tile is
//     latent codes | latent scales | rope codes | rope scales
// with exactly the bytes of the CPU's record, every byte one token's. The kernel decodes a tile once, into rows of halves in shared
// memory, for all heads; so the order is that of its loads: a lane takes 16 bytes of one token at a time, a warp 512 in a row.
//
// Codes: [chunk][token][16 bytes], a chunk being the 32, 16 or 8 consecutive values of a token that 16 bytes hold, in order. FP4: each
// 32-bit word has eight values; its lower unit (nb_unit_bit) the even ones, its upper unit the odd ones, so that a slot of both is a
// pair of neighbours.
// Scales, one byte a block: [chunk & 1][token][chunk / 2][block in the chunk].

/// Byte offsets of the parts of a latent tile; bytes is the tile's size.
typedef struct nb_latent_tile {
  int32_t latent_codes, latent_scales, rope_codes, rope_scales, bytes;
} nb_latent_tile;

NB_FUNCTION nb_latent_tile nb_latent_tile_of(int32_t recipe_latent, int32_t recipe_rope) {
  nb_latent_tile tile;
  tile.latent_codes = 0;
  tile.latent_scales = nb_tile_code_bytes(recipe_latent, NB_LATENT_DIM);
  tile.rope_codes = tile.latent_scales + nb_tile_scale_bytes(recipe_latent, NB_LATENT_DIM);
  tile.rope_scales = tile.rope_codes + nb_tile_code_bytes(recipe_rope, NB_ROPE_DIM);
  tile.bytes = tile.rope_scales + nb_tile_scale_bytes(recipe_rope, NB_ROPE_DIM);
  return tile;
}

/// Values in a chunk of 16 bytes.
NB_FUNCTION int32_t nb_latent_chunk(int32_t recipe) { return 128 / nb_code_bits(recipe); }

NB_FUNCTION nb_position nb_latent_position(int32_t recipe, int32_t dim, int32_t token, int32_t d) {
  int32_t bits = nb_code_bits(recipe), values = nb_latent_chunk(recipe), inside = d % values;
  nb_position position;
  (void)dim;
  position.byte = (d / values * NB_TILE_TOKENS + token) * 16;
  position.byte += bits == 4 ? inside / 8 * 4 + inside % 2 * 2 : inside * bits / 8;
  position.slot = bits == 4 ? inside % 8 / 2 : 0;
  return position;
}

NB_FUNCTION int32_t nb_latent_scale_byte(int32_t recipe, int32_t dim, int32_t token, int32_t block) {
  int32_t values = nb_latent_chunk(recipe), blocks = values / nb_block_size(recipe), chunk = block / blocks;
  return ((chunk % 2 * NB_TILE_TOKENS + token) * (dim / values / 2) + chunk / 2) * blocks + block % blocks;
}
