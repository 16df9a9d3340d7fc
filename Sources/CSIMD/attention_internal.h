// What the attention kernels' files share; not part of the module's interface.
#pragma once

#include <math.h>
#include <string.h>

#include "csimd_attention.h"
#include "csimd_codec.h"

enum { GROUP = 16, TILE = 128, GROUPS = TILE / GROUP, STRIP = 4 };

#define INLINE static inline __attribute__((always_inline))

/// Has a line fetched to be read once: it takes no room in the second-level cache from what is read again.
INLINE void fetch_line(const uint8_t *address) { __builtin_prefetch(address, 0, 0); }

typedef float vf16 __attribute__((vector_size(64)));
typedef uint32_t vu16 __attribute__((vector_size(64)));
typedef int32_t vi16 __attribute__((vector_size(64)));
typedef uint16_t vh16 __attribute__((vector_size(32)));
typedef int8_t vb16 __attribute__((vector_size(16)));

/// Where the groups of a tile lie: the record of their page and the token's place in it. Groups past the context's end
/// are copies of an earlier one, so that a whole tile can always be read.
typedef struct place {
  const uint8_t *record[GROUPS];
  int token[GROUPS];
} place;

/// One region's bytes of a tile, per group of 16 tokens.
typedef struct tile {
  const uint8_t *codes[GROUPS], *scales[GROUPS];
  const struct tile *next; ///< to prefetch
} tile;

/// A tile of every region; latent attention has no values, their keys are the values.
typedef struct tiles {
  tile keys, values, ropes;
} tiles;

/// How a region enters the arithmetic. Queries are multiplied by `pre`, scores by `post`, probabilities by
/// `probability` and outputs by `output`: powers of two that make up for codes read as floats with a wrong exponent
/// bias.
typedef struct operand {
  nb_recipe recipe;
  int dimension;
  int row_bytes;  ///< code bytes of a row
  int row_scales; ///< scale bytes of a row
  int digits;     ///< of eight bits that queries and probabilities are rounded to beside its codes; 0: not rounded
  float pre, post, probability, output;
} operand;

/// What the rows of a piece make of a tile: scores, then probabilities.
typedef struct weights {
  float *scores; // [rows][TILE]
  float *alpha;  // [rows] factor on what came before the tile
  float *unit;   // [rows] what a probability of 1 stands for: a power of two
  int *digits;   // [rows] of eight bits that probabilities are rounded to
  int *visible;  // [rows] tokens of the tile that the row sees
} weights;

/// A tile whose values are to be multiplied.
typedef struct step {
  const tile *values;
  int groups, first; // groups that exist; the first row that sees any of them
  weights *weights;
} step;

/// A worker's memory. Rows' strides: key.dimension + rope.dimension (queries), TILE (scores), value.dimension
/// (outputs).
typedef struct scratch {
  float *queries;        // [rows][key + rope], scaled
  uint32_t *query_pairs; // [rows][packed_query_stride] queries as the level's four-bit kernels want them
  weights tiles[2];      // of this tile and the one before
  float *out;            // [rows][value]: the chunk's sum
  float *merged;         // [rows][partial stride]: chunks merged so far
  float *maximum;        // [rows] running maximum of the chunk
  float *greatest;       // [rows] greatest score of this tile
  float *sums;           // [rows][16] lanes of the chunk's sum of probabilities
  float *keys;           // [GROUPS][widest][16] a decoded tile of keys
  float *values;         // [TILE][value] a decoded tile of values
  float *grids;          // [blocks][TILE] factors of probabilities; AVX2: [STRIP x blocks][TILE] the products
  float *units;          // [blocks] what 1 stands for, where probabilities are integers
} scratch;

/// 32-bit words of a row's packed query, at most.
static inline int64_t packed_query_stride(int dimension) { return dimension + 1; }
