// One decode step and one prefill piece of attention over 2,048 random tokens, for callgrind: Benchmarks/instruction-counts runs it.
// Usage: instruction-counts LEVEL RECIPE, as the numbers of nb_level and nb_recipe. Prints a checksum, so that the work is not for nothing.
#include <stdio.h>
#include <stdlib.h>

#include "csimd.h"

enum { DIMENSION = 128, PAGE = 64, CONTEXT = 2048, HEADS = 4, TOKENS = 4 };

static uint64_t state = 1;

static float next_value(void) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return (float)(state >> 40) / (1 << 23) - 1;
}

static float attend(const nb_attention_piece *piece, void *scratch) {
  nb_attention_run(piece, scratch);
  float sum = 0;
  for (int i = 0; i < piece->tokens * HEADS * DIMENSION; i++) sum += piece->output[i];
  return sum;
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  const nb_level level = (nb_level)atoi(arguments[1]);
  const nb_recipe recipe = (nb_recipe)atoi(arguments[2]);
  if (level > nb_level_supported()) return 3;
  const int block = nb_recipe_block(recipe), codes = PAGE * DIMENSION * nb_recipe_code_bits(recipe) / 8,
            scales = block ? PAGE * DIMENSION / block : 0, record = 2 * (codes + scales);
  uint8_t *records = aligned_alloc(64, (size_t)record * (CONTEXT / PAGE));
  int32_t pages[CONTEXT / PAGE];
  for (int page = 0; page < CONTEXT / PAGE; page++) {
    pages[page] = page;
    for (int kind = 0; kind < 2; kind++) {
      uint8_t *at = records + page * record + kind * (codes + scales);
      const nb_region region = {recipe, kind == 0 ? NB_REGION_KEY : NB_REGION_VALUE, DIMENSION, at, at + codes};
      for (int token = 0; token < PAGE; token++) {
        float row[DIMENSION];
        for (int d = 0; d < DIMENSION; d++) row[d] = next_value();
        nb_region_store(level, &region, token, row, 0.01f, NULL);
      }
    }
  }
  static float queries[TOKENS * HEADS * DIMENSION], output[TOKENS * HEADS * DIMENSION];
  for (int i = 0; i < TOKENS * HEADS * DIMENSION; i++) queries[i] = next_value();
  nb_attention_piece piece = {
      .level = level, .page_size = PAGE, .records = records, .record_stride = record, .pages = pages, .softmax_scale = 0.1f,
      .key = {recipe, DIMENSION, 0, codes, 0.01f}, .value = {recipe, DIMENSION, codes + scales, 2 * codes + scales, 0.01f},
      .queries = queries, .query_stride = HEADS * DIMENSION, .output = output, .output_stride = HEADS * DIMENSION,
      .tokens = 1, .heads = HEADS, .first_position = CONTEXT - 1, .last_chunk = CONTEXT / NB_ATTENTION_CHUNK};
  void *scratch = aligned_alloc(64, (nb_attention_scratch_bytes(&piece) + 63) / 64 * 64);
  float sum = attend(&piece, scratch);
  piece.tokens = TOKENS;
  piece.first_position = CONTEXT - TOKENS;
  sum += attend(&piece, scratch);
  printf("%g\n", sum);
  return 0;
}
