// Rows of consecutive tokens into a region. A whole group of 16 tokens is encoded first and then written in full
// 64-byte lines, which saves the scattered stores of one row at a time: see csimd_record.h for where each byte goes.
#include "record_internal.h"

enum { GROUP = NB_TOKENS, PIECE = 128 };

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi")))
#define INLINE AVX512 static inline __attribute__((always_inline))

/// Transposes 16 x 16 words: word w of line t goes to word t of line w.
INLINE void transpose_words(__m512i v[16]) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  // b[4 i + j] holds, in quarter q, word 4 q + j of the lines 4 i ... 4 i + 3.
  for (int j = 0; j < 4; j++) {
    const __m512i x = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x44), y = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xEE);
    const __m512i z = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x44),
                  w = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xEE);
    v[j] = _mm512_shuffle_i32x4(x, z, 0x88);
    v[4 + j] = _mm512_shuffle_i32x4(x, z, 0xDD);
    v[8 + j] = _mm512_shuffle_i32x4(y, w, 0x88);
    v[12 + j] = _mm512_shuffle_i32x4(y, w, 0xDD);
  }
}

/// Writes `words` words of 16 canonical rows, `stride` bytes apart, as lines of one word of 16 tokens.
AVX512 static void write_words(const uint8_t *rows, int stride, int words, uint8_t *lines) {
  for (int first = 0; first < words; first += 16) {
    const int count = words - first < 16 ? words - first : 16;
    const __mmask16 mask = (__mmask16)((1u << count) - 1);
    __m512i v[16];
    for (int t = 0; t < 16; t++) v[t] = _mm512_maskz_loadu_epi32(mask, rows + t * stride + 4 * first);
    transpose_words(v);
    for (int w = 0; w < count; w++) _mm512_storeu_si512(lines + 64 * (first + w), v[w]);
  }
}

/// Writes the scales of up to eight blocks, rows 8 bytes apart, as lines of one block of 16 tokens.
AVX512 static void write_scales(const uint8_t rows[128], int blocks, uint8_t *lines) {
  __m512i order = _mm512_setzero_si512();
  for (int i = 0; i < 4; i++) // byte 16 b + t comes from byte 8 t + b
    order = _mm512_mask_add_epi8(order, (__mmask64)0xFFFF << 16 * i, order, _mm512_set1_epi8((char)i));
  const __m512i tokens = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120));
  order = _mm512_add_epi8(order, tokens);
  const __m512i low = _mm512_loadu_si512(rows), high = _mm512_loadu_si512(rows + 64);
  for (int b = 0; b < blocks; b += 4) {
    const __m512i out = _mm512_permutex2var_epi8(low, order, high);
    const int left = blocks - b;
    if (left >= 4)
      _mm512_storeu_si512(lines + 16 * b, out);
    else
      _mm512_mask_storeu_epi32(lines + 16 * b, (__mmask16)((1u << 4 * left) - 1), out);
    order = _mm512_add_epi8(order, _mm512_set1_epi8(4));
  }
}

/// Encodes a whole group of 16 tokens.
AVX512 static void store_group(const nb_region *region, int token, const float *rows, int64_t row_stride,
                               float decode_scale, nb_encode_statistics *statistics) {
  uint8_t codes[GROUP * PIECE * 4], scales[GROUP * 8] = {0};
  const int bits = nb_recipe_code_bits(region->recipe), block = nb_recipe_block(region->recipe);
  const int stride = PIECE * bits / 8;
  uint8_t *code_lines = region->codes + (int64_t)token * (region->dimension * bits / 8);
  uint8_t *scale_lines = block == 0 ? NULL : region->scales + (int64_t)token * (region->dimension / block);
  for (int first = 0; first < region->dimension; first += PIECE) {
    const int count = region->dimension - first < PIECE ? region->dimension - first : PIECE;
    for (int t = 0; t < GROUP; t++)
      nb_encode_row(NB_LEVEL_AVX512, region->recipe, rows + t * row_stride + first, count, decode_scale,
                    codes + t * stride, scales + 8 * t, statistics);
    uint8_t *lines = code_lines + (int64_t)first * bits / 8 * GROUP;
    write_words(codes, stride, count * bits / 32, lines);
    if (block != 0) write_scales(scales, count / block, scale_lines + first / block * GROUP);
  }
}

/// Regions that `store_group` knows: whole words of 16 tokens.
static int has_group_path(const nb_region *region) {
  return nb_region_has_words(region) && region->dimension * nb_recipe_code_bits(region->recipe) % 32 == 0;
}

#endif

void nb_region_store_rows(nb_level level, const nb_region *region, int token, int count, const float *rows,
                          int64_t row_stride, float decode_scale, nb_encode_statistics *statistics) {
  int t = 0;
#if defined(__x86_64__)
  if (level == NB_LEVEL_AVX512 && has_group_path(region)) {
    for (; t < count && (token + t) % GROUP != 0; t++)
      nb_region_store(level, region, token + t, rows + t * row_stride, decode_scale, statistics);
    for (; t + GROUP <= count; t += GROUP)
      store_group(region, token + t, rows + t * row_stride, row_stride, decode_scale, statistics);
  }
#endif
  for (; t < count; t++)
    nb_region_store(level, region, token + t, rows + t * row_stride, decode_scale, statistics);
}
