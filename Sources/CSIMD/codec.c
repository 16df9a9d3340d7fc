#include "codec_internal.h"

void nb_encode_row(nb_level level, nb_recipe recipe, const float *row, int dimension, float decode_scale,
                   uint8_t *codes, uint8_t *scales, nb_encode_statistics *statistics) {
  nb_encode_statistics ignored = {0};
  if (statistics == NULL) statistics = &ignored;
#if defined(__x86_64__)
  if (level == NB_LEVEL_AVX512)
    return nb_encode_row_avx512(recipe, row, dimension, decode_scale, codes, scales, statistics);
  if (level == NB_LEVEL_AVX2)
    return nb_encode_row_avx2(recipe, row, dimension, decode_scale, codes, scales, statistics);
#endif
  nb_encode_row_portable(recipe, row, dimension, decode_scale, codes, scales, statistics);
}

void nb_decode_row(nb_level level, nb_recipe recipe, const uint8_t *codes, const uint8_t *scales, int dimension,
                   float decode_scale, float *row) {
#if defined(__x86_64__)
  if (level == NB_LEVEL_AVX512) return nb_decode_row_avx512(recipe, codes, scales, dimension, decode_scale, row);
  if (level == NB_LEVEL_AVX2) return nb_decode_row_avx2(recipe, codes, scales, dimension, decode_scale, row);
#endif
  nb_decode_row_portable(recipe, codes, scales, dimension, decode_scale, row);
}
