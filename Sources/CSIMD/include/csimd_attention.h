// Attention from page records: softmax(q k^T) v over a paged, quantised context, for decode and prefill alike.
//
// One arithmetic for all schedules. The context is cut at multiples of `NB_ATTENTION_CHUNK` tokens; a chunk is worked
// off in tiles of 128 tokens with an online softmax; the chunks' results are merged in ascending order. All of it is a
// function of a row's query and position and of the stored bytes alone, so a row gets the same bits whatever shares its
// piece.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "csimd_level.h"
#include "csimd_types.h"
#include "csimd_workers.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Most query rows (tokens x heads) of a piece, and the tokens of a chunk.
enum { NB_ATTENTION_ROWS = 64, NB_ATTENTION_CHUNK = 1024 };

/// To how many bits queries and probabilities are rounded where they meet four-bit codes in integers (AVX-512 alone).
typedef enum nb_attention_precision {
  NB_PRECISION_FULL = 0, ///< 23: float32's error
  NB_PRECISION_FAST = 1, ///< 16: two thirds of the multiplications
} nb_attention_precision;

/// One region of a page record as attention reads it.
typedef struct nb_attention_region {
  nb_recipe recipe;
  int32_t dimension;    ///< a multiple of 16; 0 for a region that does not exist
  int64_t code_offset;  ///< from the start of a record
  int64_t scale_offset; ///< from the start of a record
  float decode_scale;   ///< 1 for recipes without a second level
} nb_attention_region;

/// The rows of one piece of work and the cache they attend to.
typedef struct nb_attention_piece {
  nb_level level;
  nb_attention_precision precision;
  nb_attention_region key;   ///< keys, or MLA's latent
  nb_attention_region value; ///< values; with `is_latent` the latent again
  nb_attention_region rope;  ///< MLA's rotary keys, or dimension 0
  int32_t is_latent;         ///< nonzero: values are read from the latent region, which has the keys' byte order
  int32_t page_size;         ///< a multiple of 16
  const uint8_t *records;    ///< record of page 0 of the layer
  int64_t record_stride;     ///< bytes between the records of neighbouring pages
  const int32_t *pages;      ///< page of tokens [i page_size, (i + 1) page_size)
  float softmax_scale;
  const float *queries;      ///< [tokens, heads, key.dimension + rope.dimension]
  int64_t query_stride;      ///< floats between tokens
  float *output;             ///< [tokens, heads, value.dimension]
  int64_t output_stride;     ///< floats between tokens
  int32_t tokens, heads;     ///< tokens * heads <= NB_ATTENTION_ROWS
  int32_t first_position;    ///< token i sees positions 0 ... first_position + i
  int32_t first_chunk, last_chunk; ///< half-open range of chunks to attend to
  /// NULL: the range is the whole context, `output` is written. Otherwise the chunks' unmerged results go to
  /// partials[(chunk * tokens * heads + row) * nb_attention_partial_stride], for `nb_attention_merge`.
  float *partials;
} nb_attention_piece;

/// Floats of one row's unmerged result of one chunk.
static inline int64_t nb_attention_partial_stride(int value_dimension) { return value_dimension + 16; }

/// Bytes of scratch memory, 64-byte aligned, that a worker needs for such pieces.
size_t nb_attention_scratch_bytes(const nb_attention_piece *piece);

/// Where scratch memory holds decoded tiles, in bytes from its start: keys, latent and rotary keys in the first, values
/// in the second. What is read as it lies leaves them untouched, which is how tests tell.
typedef struct nb_attention_tiles {
  size_t keys, keys_bytes, values, values_bytes;
} nb_attention_tiles;

nb_attention_tiles nb_attention_scratch_tiles(const nb_attention_piece *piece);

/// Attends. Bytes of records past a row's position are read but do not matter as long as they decode to finite values.
void nb_attention_run(const nb_attention_piece *piece, void *scratch);

/// Merges `piece->partials` of rows [first_row, last_row) over all chunks of each row and writes `output`.
void nb_attention_merge(const nb_attention_piece *piece, int first_row, int last_row);

/// A part of a piece that one worker does at a time: chunks (when attending) or rows (when merging) [first, last).
typedef struct nb_attention_item {
  int32_t piece, first, last;
} nb_attention_item;

/// A step's attention in one layer.
typedef struct nb_attention_plan {
  const nb_attention_piece *pieces;
  const nb_attention_item *items;  ///< `run_count` to attend, then `merge_count` to merge
  int32_t run_count, merge_count;
  uint8_t *scratch;                ///< one worker's memory after the other
  int64_t scratch_stride;
} nb_attention_plan;

/// Does the plan's items, then its merges, on the workers. Allocates nothing.
void nb_attention_execute(const nb_attention_plan *plan, nb_workers *workers);

#ifdef __cplusplus
}
#endif
