// The byte order inside a page record (record layout version 2), and rows in and out of it.
//
// A region holds the rows of one page: `codes`, then `scales`. Rows are grouped by 16 tokens; group g's codes are the
// bytes [16 g R, 16 (g + 1) R) with R the code bytes of a row, so a region has no padding. Inside a group:
//
// - key, latent, rope, and value with four-bit codes: the canonical row is cut into 4-byte words; word w of token t
//   lies at (16 w + t) * 4. A 64-byte load holds the same dimensions of 16 tokens. Bytes past the last whole word
//   (R % 4, only in odd fp8 rows) follow, token after token.
// - value, other recipes: canonical rows, one after the other.
// - block scales of every kind: [block][16 tokens], one byte each.
//
// Every byte belongs to one token: writing a token never touches another's bytes.
#pragma once

#include <stdint.h>

#include "csimd_codec.h"
#include "csimd_level.h"
#include "csimd_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// What a region holds; the values equal CacheRegionKind's raw values in Swift.
enum { NB_REGION_KEY = 0, NB_REGION_VALUE = 1, NB_REGION_LATENT = 2, NB_REGION_ROPE = 3 };

/// One region of a page record.
typedef struct nb_region {
  nb_recipe recipe;
  int32_t kind;      ///< NB_REGION_...
  int32_t dimension; ///< values in a row, as the recipe's `validate` allows
  uint8_t *codes;
  uint8_t *scales;   ///< not used by recipes without block scales
} nb_region;

/// Writes a canonical row (`nb_encode_row`'s bytes) to slot `token` of the region.
void nb_region_scatter_row(const nb_region *region, int token, const uint8_t *codes, const uint8_t *scales);

/// Reads slot `token` of the region as a canonical row; the inverse of `nb_region_scatter_row`.
void nb_region_gather_row(const nb_region *region, int token, uint8_t *codes, uint8_t *scales);

/// Encodes a float32 row into slot `token`: `nb_encode_row` and `nb_region_scatter_row` in one. `statistics` may be
/// NULL.
void nb_region_store(nb_level level, const nb_region *region, int token, const float *row, float decode_scale,
                     nb_encode_statistics *statistics);

/// Encodes `count` rows, `row_stride` floats apart, into the slots `token`, `token` + 1, ...; the same bytes as
/// `nb_region_store` of each, faster for whole groups of 16 tokens.
void nb_region_store_rows(nb_level level, const nb_region *region, int token, int count, const float *rows,
                          int64_t row_stride, float decode_scale, nb_encode_statistics *statistics);

#ifdef __cplusplus
}
#endif
