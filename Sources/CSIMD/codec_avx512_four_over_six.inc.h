// The four-over-six encoding of codec_avx512.c.
//
// It rounds eight blocks in both ways at once, element by element: lanes are blocks, in quarters 0 ... 3, 0 ... 3, 4
// ... 7, 4 ... 7, of which the first and the third map the block's maximum to 6, the others to 4. So scales need no
// broadcast, and errors are sums of whole vectors.

/// Eight times the E2M1 values of magnitudes that are given eightfold, ties to even; the same rounding as in `e4m3`,
/// with one mantissa bit.
INLINE __m512 e2m1_round_eighths(__m512 m) {
  m = _mm512_min_ps(m, floats(48.0f));
  const __m512i exponent = _mm512_and_si512(bits(_mm512_max_ps(m, floats(8.0f))), integers(0x7F800000));
  const __m512 magic = from_bits(_mm512_add_epi32(exponent, integers(22 << 23)));
  return _mm512_sub_ps(_mm512_add_ps(m, magic), magic);
}

/// Lanes of elements[j] = element j of the blocks, in quarters as above.
INLINE void transpose_blocks(const __m512 blocks[8], __m512 elements[16]) {
  for (int r = 0; r < 4; r++) {
    __m512d half[2]; // in quarter q element 4 q + r of four blocks
    for (int i = 0; i < 2; i++) {
      const __m512 *v = blocks + 4 * i;
      const __m512d a = _mm512_castps_pd(r < 2 ? _mm512_unpacklo_ps(v[0], v[1]) : _mm512_unpackhi_ps(v[0], v[1]));
      const __m512d b = _mm512_castps_pd(r < 2 ? _mm512_unpacklo_ps(v[2], v[3]) : _mm512_unpackhi_ps(v[2], v[3]));
      half[i] = r % 2 == 0 ? _mm512_unpacklo_pd(a, b) : _mm512_unpackhi_pd(a, b);
    }
    const __m512 low = _mm512_castpd_ps(half[0]), high = _mm512_castpd_ps(half[1]);
    elements[r] = _mm512_shuffle_f32x4(low, high, 0x00);
    elements[4 + r] = _mm512_shuffle_f32x4(low, high, 0x55);
    elements[8 + r] = _mm512_shuffle_f32x4(low, high, 0xAA);
    elements[12 + r] = _mm512_shuffle_f32x4(low, high, 0xFF);
  }
}

/// Of every second element, from `first` on, the bytes of eight blocks, chosen by `is_four`: quarters of 4 elements x 4
/// blocks.
INLINE __m512i chosen_bytes(const __m512i index[16], int first, __mmask64 is_four) {
  __m512i halves[2];
  for (int i = 0; i < 2; i++) {
    const __m512i *v = index + 8 * i + first;
    halves[i] = _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[2]), _mm512_packus_epi32(v[4], v[6]));
  }
  return _mm512_mask_mov_epi8(_mm512_shuffle_i32x4(halves[0], halves[1], 0x88), is_four,
                              _mm512_shuffle_i32x4(halves[0], halves[1], 0xDD));
}

#define FOUR(first, step) first, first + step, first + 2 * step, first + 3 * step
#define CODES_OF(b) FOUR(b / 4 * 16 + b % 4, 4), FOUR(b / 4 * 16 + b % 4 + 32, 4)
#define TWO(first) first, first + 2
#define SIGNS_FROM(first) TWO(first), TWO(first + 16), TWO(first + 32), TWO(first + 48)
#define SIGNS_OF(b) SIGNS_FROM(b / 4 * 64 + b % 4 * 4)

/// Where a block's eight bytes lie in `chosen_bytes`.
static const uint8_t code_order[64] __attribute__((aligned(64))) = {CODES_OF(0), CODES_OF(1), CODES_OF(2), CODES_OF(3),
                                                                    CODES_OF(4), CODES_OF(5), CODES_OF(6), CODES_OF(7)};

/// Where the signs of a block's even elements lie in `values`.
static const uint8_t sign_order[64] __attribute__((aligned(64))) = {SIGNS_OF(0), SIGNS_OF(1), SIGNS_OF(2), SIGNS_OF(3),
                                                                    SIGNS_OF(4), SIGNS_OF(5), SIGNS_OF(6), SIGNS_OF(7)};

INLINE group encode_four_over_six(const values *v, __m512 largest, float g) {
  __m512 elements[16], squares[16], scale;
  __m512i index[16];
  transpose_blocks(v->magnitudes, elements);
  largest = _mm512_shuffle_f32x4(largest, largest, 0x50); // blocks 0 ... 3 twice, then 4 ... 7 twice
  const __m512i scales =
      e4m3(_mm512_div_ps(largest, _mm512_mask_blend_ps(0xF0F0, floats(6.0f * g), floats(4.0f * g))), &scale);
  // In eighths, E2M1 values are whole numbers.
  const __m512 eighth = _mm512_mul_ps(_mm512_mul_ps(scale, floats(g)), floats(0.125f));
  const __m512 scale_eighth = _mm512_mul_ps(scale, floats(0.125f));
  _Pragma("unroll") for (int j = 0; j < 16; j++) {
    // Quotients that are too large, and 0 / 0, become 6; where the scale is 0, so is `decoded`.
    const __m512 rounded = e2m1_round_eighths(_mm512_div_ps(elements[j], eighth));
    const __m512 decoded = _mm512_mul_ps(_mm512_mul_ps(rounded, scale_eighth), floats(g));
    const __m512 difference = _mm512_sub_ps(elements[j], decoded);
    squares[j] = _mm512_mul_ps(difference, difference);
    index[j] = _mm512_cvtps_epi32(rounded);
  }
  // In the order of the specification: i + (i + 8), then neighbours.
  for (int j = 0; j < 8; j++) squares[j] = _mm512_add_ps(squares[j], squares[j + 8]);
  for (int count = 4; count > 0; count /= 2)
    for (int j = 0; j < count; j++) squares[j] = _mm512_add_ps(squares[2 * j], squares[2 * j + 1]);
  const __m512 error = squares[0];
  const __mmask16 is_four = _mm512_cmp_ps_mask(_mm512_shuffle_f32x4(error, error, 0xDD),
                                               _mm512_shuffle_f32x4(error, error, 0x88), _CMP_LT_OQ);
  group result;
  result.scales = _mm512_mask_mov_epi32(_mm512_shuffle_i32x4(scales, scales, 0x88), is_four,
                                        _mm512_shuffle_i32x4(scales, scales, 0xDD));
  const __m512i lanes = _mm512_movm_epi32(is_four), words = _mm512_packs_epi32(lanes, lanes);
  const __mmask64 four_bytes = _mm512_movepi8_mask(_mm512_packs_epi16(words, words));
  const __m512i table = _mm512_load_si512(codes_ties_even);
  const __m512i even = _mm512_permutexvar_epi8(chosen_bytes(index, 0, four_bytes), table);
  const __m512i odd = _mm512_permutexvar_epi8(chosen_bytes(index, 1, four_bytes), table);
  const __m512i order = _mm512_load_si512(code_order);
  __m512i codes = _mm512_permutexvar_epi8(order, _mm512_or_si512(even, _mm512_slli_epi16(odd, 4)));
  // Signs: bit 3 of a byte for even elements, bit 7 for odd ones.
  const __m512i places = _mm512_load_si512(sign_order), next = _mm512_add_epi8(places, _mm512_set1_epi8(1));
  const __m512i even_signs = _mm512_permutex2var_epi8(v->signs[0], places, v->signs[1]);
  const __m512i odd_signs = _mm512_permutex2var_epi8(v->signs[0], next, v->signs[1]);
  codes =
      _mm512_ternarylogic_epi32(_mm512_srli_epi16(even_signs, 4), _mm512_set1_epi8(0x08), codes, 0xEA); // (a & b) | c
  codes = _mm512_ternarylogic_epi32(odd_signs, _mm512_set1_epi8((char)0x80), codes, 0xEA);
  result.codes = _mm512_maskz_mov_epi64((__mmask8)_mm512_test_epi32_mask(result.scales, result.scales), codes);
  return result;
}
