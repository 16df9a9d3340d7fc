// What the two ways of storing rows share; not part of the module's interface.
#pragma once

#include "csimd_record.h"

/// Tokens that are interleaved, and what lies between the words and between the block scales of one of them.
enum { NB_TOKENS = 16, NB_WORD_STRIDE = 4 * NB_TOKENS, NB_SCALE_STRIDE = NB_TOKENS };

/// Whether codes lie in words of 16 tokens, and not in canonical rows.
static inline int nb_region_has_words(const nb_region *region) {
  return region->kind != NB_REGION_VALUE || nb_recipe_code_bits(region->recipe) == 4;
}

#if defined(__x86_64__)
/// Encodes a row of a four-bit recipe into a token's words and block scales. They go there from registers: read back
/// from memory as words, a row that was just written takes as long again. Returns 0, and writes nothing, if
/// `nb_encode_row` would go the portable way.
int nb_encode_words_avx512(nb_recipe recipe, const float *row, int dimension, float decode_scale, uint8_t *words,
                           uint8_t *scales, nb_encode_statistics *statistics);
#endif
