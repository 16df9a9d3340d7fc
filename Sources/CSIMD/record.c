#include "record_internal.h"

enum { GROUP = NB_TOKENS, PIECE = 256 };

static int code_bytes(const nb_region *region, int dimension) {
  return dimension * nb_recipe_code_bits(region->recipe) / 8;
}

// Scatters dimensions first ..< first + count; `first` is a multiple of PIECE, and so is `count` but for the row's end.
static void scatter(const nb_region *region, int token, int first, int count, const uint8_t *codes,
                    const uint8_t *scales) {
  const int row = code_bytes(region, region->dimension), bytes = code_bytes(region, count);
  const long group = token / GROUP;
  const int inside = token % GROUP, offset = code_bytes(region, first);
  uint8_t *base = region->codes + group * GROUP * row;
  if (!nb_region_has_words(region)) {
    memcpy(base + inside * row + offset, codes, (size_t)bytes);
  } else {
    const int words = bytes / 4, rest = bytes % 4;
    uint8_t *slot = base + offset * GROUP + inside * 4;
    for (int w = 0; w < words; w++) memcpy(slot + w * NB_WORD_STRIDE, codes + 4 * w, 4);
    if (rest != 0) memcpy(base + row / 4 * NB_WORD_STRIDE + inside * rest, codes + 4 * words, (size_t)rest);
  }
  const int block = nb_recipe_block(region->recipe);
  if (block == 0) return;
  uint8_t *to = region->scales + group * GROUP * (region->dimension / block) + first / block * GROUP + inside;
  const int blocks = count / block;
  for (int b = 0; b < blocks; b++) to[b * NB_SCALE_STRIDE] = scales[b];
}

void nb_region_scatter_row(const nb_region *region, int token, const uint8_t *codes, const uint8_t *scales) {
  scatter(region, token, 0, region->dimension, codes, scales);
}

void nb_region_gather_row(const nb_region *region, int token, uint8_t *codes, uint8_t *scales) {
  const int dimension = region->dimension, row = code_bytes(region, dimension), inside = token % GROUP;
  const long group = token / GROUP;
  const uint8_t *base = region->codes + group * GROUP * row;
  if (!nb_region_has_words(region)) {
    memcpy(codes, base + inside * row, (size_t)row);
  } else {
    const int words = row / 4, rest = row % 4;
    for (int w = 0; w < words; w++) memcpy(codes + 4 * w, base + w * NB_WORD_STRIDE + inside * 4, 4);
    if (rest != 0) memcpy(codes + 4 * words, base + words * NB_WORD_STRIDE + inside * rest, (size_t)rest);
  }
  const int block = nb_recipe_block(region->recipe);
  if (block == 0) return;
  const uint8_t *from = region->scales + group * GROUP * (dimension / block) + inside;
  for (int b = 0; b < dimension / block; b++) scales[b] = from[b * NB_SCALE_STRIDE];
}

void nb_region_store(nb_level level, const nb_region *region, int token, const float *row, float decode_scale,
                     nb_encode_statistics *statistics) {
  if (!nb_region_has_words(region)) { // no block scales either
    uint8_t *codes = region->codes + (int64_t)token * code_bytes(region, region->dimension);
    nb_encode_row(level, region->recipe, row, region->dimension, decode_scale, codes, NULL, statistics);
    return;
  }
#if defined(__x86_64__)
  const int block = nb_recipe_block(region->recipe);
  if (level == NB_LEVEL_AVX512 && block != 0) {
    const int64_t first = token / GROUP * GROUP, inside = token % GROUP;
    if (nb_encode_words_avx512(region->recipe, row, region->dimension, decode_scale,
                               region->codes + first * code_bytes(region, region->dimension) + 4 * inside,
                               region->scales + first * (region->dimension / block) + inside, statistics))
      return;
  }
#endif
  // Blocks are independent, so a long row is encoded in pieces through a small buffer that stays in the first-level
  // cache.
  uint8_t codes[PIECE * 4], scales[PIECE / 16];
  for (int first = 0; first < region->dimension; first += PIECE) {
    const int count = region->dimension - first < PIECE ? region->dimension - first : PIECE;
    nb_encode_row(level, region->recipe, row + first, count, decode_scale, codes, scales, statistics);
    scatter(region, token, first, count, codes, scales);
  }
}
