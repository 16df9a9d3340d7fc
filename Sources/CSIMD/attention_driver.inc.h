// The order of work in a piece: chunks, tiles, softmax, merge. Compiled once per level; the including file defines
// NAME(x), HAS_FP4 and HAS_SCALEF.

// 2^x for x <= 0 (below -126: 0 or a subnormal number), relative error below 2e-7; 1 for 0.
#if HAS_SCALEF
INLINE vf16 NAME(exp2)(vf16 x) {
  const __m512 f = _mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF); // x minus the integer below
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(1.867130291e-3f), _mm512_set1_ps(9.017029848e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.579991345e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.401644501e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931513118e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return (vf16)_mm512_scalef_ps(p, (__m512)x);
}
#else
INLINE vf16 NAME(exp2)(vf16 x) {
  const vf16 magic = (vf16){0} + 0x1.8p23f;
  const vf16 shifted = x + magic, f = x - (shifted - magic);
  vf16 p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  vu16 power, bits;
  memcpy(&power, &shifted, sizeof power);
  memcpy(&bits, &p, sizeof bits);
  return NAME(as_float)((bits + (power << 23)) & (vu16)(x >= -126.0f));
}
#endif

INLINE vf16 NAME(select)(vi16 condition, vf16 a, vf16 b) {
  vi16 x, y;
  memcpy(&x, &a, sizeof x);
  memcpy(&y, &b, sizeof y);
  x = (x & condition) | (y & ~condition);
  memcpy(&a, &x, sizeof a);
  return a;
}

INLINE vf16 NAME(greater)(vf16 a, vf16 b) { return NAME(select)(a > b, a, b); }

INLINE float NAME(exp2_scalar)(float x) { return NAME(exp2)((vf16){0} + x)[0]; }

INLINE float NAME(sum_lanes)(vf16 v) {
  float sums[16];
  memcpy(sums, &v, sizeof sums);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) sums[i] += sums[i + width];
  return sums[0];
}

INLINE float NAME(greatest_lane)(vf16 v) {
  v = NAME(greater)(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = NAME(greater)(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = NAME(greater)(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  v = NAME(greater)(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  return v[0];
}

// The greatest score of a row's tile, of which `visible` tokens exist; the others' scores become -inf.
INLINE float NAME(greatest_score)(float *scores, int visible) {
  const vi16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const vf16 nothing = (vf16){0} - INFINITY;
  if (visible < TILE)
    for (int g = 0; g < GROUPS; g++)
      NAME(store)(scores + g * GROUP,
                  NAME(select)(lane < visible - g * GROUP, NAME(load)(scores + g * GROUP), nothing));
  vf16 a = NAME(load)(scores), b = NAME(load)(scores + GROUP);
  for (int g = 2; g < GROUPS; g += 2) {
    a = NAME(greater)(a, NAME(load)(scores + g * GROUP));
    b = NAME(greater)(b, NAME(load)(scores + (g + 1) * GROUP));
  }
  return NAME(greatest_lane)(NAME(greater)(a, b));
}

// Takes the tile's greatest probability to between 1/2 and 1, by a power of two, so that integers keep as much of a
// tile far below the maximum as of any other. For 16 rows: what is subtracted from scores, and what a probability of 1
// then stands for.
INLINE void NAME(lift_tile)(vf16 greatest, vf16 *reference, vf16 *unit) {
  const vf16 below = *reference - greatest, most = (vf16){0} + 100.0f;
  const vi16 shift = __builtin_convertvector(NAME(select)(below < most, below, most), vi16);
  *reference -= __builtin_convertvector(shift, vf16);
  *unit = NAME(as_float)((vu16)(127 - shift) << 23);
}

// Gives a row 7 bits more where one token of a tile towers over the others, and the tile isn't negligible itself: a sum
// of less than 1.5 means others of 0.4% on average, which 16 bits would round by 1e-3 and more. It shows where that one
// has a value near zero.
INLINE void NAME(widen_peaked)(int r, vf16 sums, weights *to) {
  to->digits[r] = 2;
  if (NAME(sum_lanes)(sums) >= 1.5f || to->unit[r] < 0x1p-8f) return;
  to->digits[r] = 3;
  to->unit[r] *= 0x1p-7f;
  for (int t = 0; t < TILE; t += 16)
    NAME(store)(to->scores + r * TILE + t, NAME(load)(to->scores + r * TILE + t) * 0x1p7f);
}

// The rows' running maxima, and their factors on what came before; `hidden` of the piece's tokens come before the tile.
// Without branches on data, so that rows overlap.
INLINE void NAME(follow_maxima)(const nb_attention_piece *piece, const operand *value, int hidden, int first, int rows,
                                weights *to, scratch *s) {
  const vf16 nothing = (vf16){0} - INFINITY;
  for (int r = first; r < rows; r++) {
    const int visible = r / piece->heads + 1 - hidden;
    to->visible[r] = visible < TILE ? visible : TILE;
    s->greatest[r] = NAME(greatest_score)(to->scores + r * TILE, to->visible[r]);
  }
  for (int r = first; r < rows; r += 16) { // the arrays go on for a vector past the last row
    const vf16 before = NAME(load)(s->maximum + r), greatest = NAME(load)(s->greatest + r);
    const vf16 now = NAME(greater)(greatest, before);
    vf16 reference = NAME(select)(now > nothing, now, (vf16){0}), unit = (vf16){0} + 1.0f;
    NAME(store)(s->maximum + r, now);
    NAME(store)(to->alpha + r, NAME(exp2)(before - reference));
    if (value->digits > 0) NAME(lift_tile)(greatest, &reference, &unit);
    NAME(store)(s->greatest + r, reference);
    NAME(store)(to->unit + r, unit);
  }
}

// Scores of rows first ..< rows to probabilities, added to the rows' running sums.
INLINE void NAME(softmax)(const operand *value, int first, int rows, weights *to, scratch *s) {
  for (int r = first; r < rows; r++) {
    float *scores = to->scores + r * TILE;
    vf16 even = {0}, odd = {0};
    for (int g = 0; g < GROUPS; g += 2) {
      const vf16 first = NAME(exp2)(NAME(load)(scores + g * GROUP) - s->greatest[r]);
      const vf16 second = NAME(exp2)(NAME(load)(scores + (g + 1) * GROUP) - s->greatest[r]);
      NAME(store)(scores + g * GROUP, first * value->probability);
      NAME(store)(scores + (g + 1) * GROUP, second * value->probability);
      even += first;
      odd += second;
    }
    float *sum = s->sums + r * 16;
    NAME(store)(sum, NAME(load)(sum) * to->alpha[r] + (even + odd) * to->unit[r]);
    if (value->digits == 2) NAME(widen_peaked)(r, even + odd, to);
  }
}

// Adds a chunk's (maximum, sum, out) to what is merged so far; the rows have the partials' form: out, maximum, sum.
static void NAME(merge_row)(float *merged, const float *chunk, int dimension) {
  const float a = merged[dimension], b = chunk[dimension], top = a > b ? a : b;
  const float reference = top > -INFINITY ? top : 0.0f;
  const float old = NAME(exp2_scalar)(a - reference), new = NAME(exp2_scalar)(b - reference);
  for (int d = 0; d < dimension; d += 16)
    NAME(store)(merged + d, NAME(load)(merged + d) * old + NAME(load)(chunk + d) * new);
  merged[dimension] = top;
  merged[dimension + 1] = merged[dimension + 1] * old + chunk[dimension + 1] * new;
}

static void NAME(finish_row)(const float *merged, int dimension, const nb_attention_piece *piece, const operand *value,
                             float *output) {
  const float factor = piece->value.decode_scale / merged[dimension + 1];
  for (int d = 0; d < dimension; d += 16) NAME(store)(output + d, NAME(load)(merged + d) * value->output * factor);
}

INLINE void NAME(find)(const nb_attention_piece *piece, int token, int end, place *to) {
  const unsigned size = (unsigned)piece->page_size;
  unsigned page = (unsigned)token / size, inside = (unsigned)token % size;
  for (int g = 0; g < GROUPS; g++) {
    to->record[g] = piece->records + piece->pages[page] * piece->record_stride;
    to->token[g] = (int)inside;
    if (token + (g + 1) * GROUP >= end) continue;
    inside += GROUP;
    if (inside == size) {
      inside = 0;
      page++;
    }
  }
}

INLINE void NAME(locate_region)(const nb_attention_region *region, const operand *operand, const place *at, tile *to) {
  for (int g = 0; g < GROUPS; g++) {
    to->codes[g] = at->record[g] + region->code_offset + at->token[g] * operand->row_bytes;
    to->scales[g] = at->record[g] + region->scale_offset + at->token[g] * operand->row_scales;
  }
}

// Where the tile from `token` on lies, in all regions.
INLINE void NAME(locate)(const nb_attention_piece *piece, const operand *key, const operand *value, const operand *rope,
                         int token, tiles *to) {
  place at;
  NAME(find)(piece, token, piece->first_position + piece->tokens, &at);
  NAME(locate_region)(&piece->key, key, &at, &to->keys);
  if (!piece->is_latent) NAME(locate_region)(&piece->value, value, &at, &to->values);
  if (rope->dimension > 0) NAME(locate_region)(&piece->rope, rope, &at, &to->ropes);
}

// Fetches a tile of a region whole: the first of a piece, which no tile before it has fetched.
INLINE void NAME(fetch)(const operand *operand, const tile *of) {
  for (int g = 0; g < GROUPS; g++) {
    for (int b = 0; b < GROUP * operand->row_bytes; b += 64) fetch_line(of->codes[g] + b);
    for (int b = 0; b < GROUP * operand->row_scales; b += 64) fetch_line(of->scales[g] + b);
  }
}

// Whether a region's four-bit codes are multiplied as they are.
INLINE int NAME(is_direct)(const operand *operand) { return HAS_FP4 && nb_recipe_code_bits(operand->recipe) == 4; }

static void NAME(prepare_queries)(const nb_attention_piece *piece, const operand *key, const operand *rope,
                                  scratch *s) {
  const int width = key->dimension + rope->dimension, rows = piece->tokens * piece->heads;
  const float scale = piece->softmax_scale * 0x1.715476p0f; // log2(e): probabilities are powers of two
  for (int r = 0; r < rows; r++) {
    const float *from = piece->queries + r / piece->heads * piece->query_stride + r % piece->heads * width;
    float *to = s->queries + (int64_t)r * width;
    for (int d = 0; d < width; d += 16) {
      const int is_key = d < key->dimension;
      const float pre = is_key ? key->pre : rope->pre;
      NAME(store)(to + d, NAME(load)(from + d) * (scale * pre) *
                              (is_key ? piece->key.decode_scale : piece->rope.decode_scale));
    }
#if HAS_FP4
    if (NAME(is_direct)(key))
      NAME(fp4_pack_queries)(to, key, s->query_pairs + r * packed_query_stride(key->dimension));
#endif
  }
}

// Scores of rows first ..< rows against one region of a tile.
static void NAME(score_tile)(const nb_attention_piece *piece, const operand *key, const tile *from, int groups,
                             int first, int rows, int is_rope, int64_t width, int offset, int keep_tile, float *scores,
                             scratch *s) {
  const float *q = s->queries + first * width + offset;
  scores += first * TILE;
#if HAS_FP4
  if (NAME(is_direct)(key) && !is_rope) {
    const int64_t stride = packed_query_stride(key->dimension);
    NAME(fp4_score)(key, from, rows - first, s->query_pairs + first * stride, stride, scores);
    return;
  }
#endif
  (void)piece;
  const int is_fp4 = nb_recipe_code_bits(key->recipe) == 4;
  if (!keep_tile && !is_fp4) {
    NAME(score_float)(key, from, groups, rows - first, q, width, is_rope, scores);
    return;
  }
  NAME(decode_keys)(key, from, groups, s->keys);
  operand plain = *key;
  tile decoded = {0};
  plain.recipe = NB_F32;
  plain.row_bytes = 4 * key->dimension;
  decoded.next = &decoded;
  for (int g = 0; g < GROUPS; g++)
    decoded.codes[g] = (const uint8_t *)(s->keys + (int64_t)g * key->dimension * GROUP);
  NAME(score_float)(&plain, &decoded, groups, rows - first, q, width, is_rope, scores);
}

static void NAME(value_tile)(const nb_attention_piece *piece, const operand *value, const step *at, int rows,
                             int keep_tile, scratch *s, float *out, int64_t out_stride) {
  const int first = at->first, groups = at->groups;
  out += first * out_stride;
#if HAS_FP4
  if (NAME(is_direct)(value)) {
    NAME(fp4_value)(value, at, rows - first, s->grids, s->units, out, out_stride);
    return;
  }
#endif
  const tile *from = at->values;
  const float *p = at->weights->scores + first * TILE, *alpha = at->weights->alpha + first;
  const int is_fp4 = nb_recipe_code_bits(value->recipe) == 4;
  if (!keep_tile && !is_fp4 && !piece->is_latent) {
    NAME(value_float)(value, from, groups, rows - first, p, alpha, out, out_stride);
    return;
  }
  if (!piece->is_latent) NAME(decode_values)(value, from, groups, s->values);
  operand plain = *value;
  tile decoded = {0};
  plain.recipe = NB_F32;
  plain.row_bytes = 4 * value->dimension;
  decoded.next = &decoded;
  for (int g = 0; g < GROUPS; g++)
    decoded.codes[g] = (const uint8_t *)(s->values + (int64_t)g * GROUP * value->dimension);
  NAME(value_float)(&plain, &decoded, groups, rows - first, p, alpha, out, out_stride);
}

// One chunk: the rows that see any of it get (maximum, sum, out). A tile's values are multiplied after the next tile's
// keys, so that no step waits for the one before it.
static void NAME(chunk)(const nb_attention_piece *piece, const operand *key, const operand *value, const operand *rope,
                        int begin, int end, int first, scratch *s, float *out, int64_t out_stride) {
  const int rows = piece->tokens * piece->heads, width = key->dimension + rope->dimension;
  const int context = piece->first_position + piece->tokens;
  if (end > context) end = context;
  for (int r = first; r < rows; r++) {
    s->maximum[r] = -INFINITY;
    memset(s->sums + r * 16, 0, 64);
    memset(out + r * out_stride, 0, (size_t)value->dimension * sizeof(float));
  }
  // Where expanding codes is cheap beside the products, strips of rows expand them again; elsewhere once for all rows.
  const int keep_tile = piece->is_latent || (!HAS_FP4 && rows > STRIP);
  // The float tile of latent keys, which becomes that of the values, is the only one there is.
  const int is_late = !piece->is_latent || NAME(is_direct)(value);
  const int has_rope = rope->dimension > 0;
  tiles ring[3]; // before, this one and the next, which take turns
  for (int i = 0; i < 3; i++) {
    tiles *next = &ring[(i + 1) % 3];
    ring[i].keys.next = &next->keys, ring[i].values.next = &next->values, ring[i].ropes.next = &next->ropes;
  }
  step now, before;
  int has_before = 0, turn = 0;
  NAME(locate)(piece, key, value, rope, begin, &ring[0]);
  for (int token = begin; token < end; token += TILE, turn = (turn + 1) % 3) {
    const int hidden = token - piece->first_position; // tokens of the piece that come before the tile
    if (hidden > 0 && hidden * piece->heads > first) first = hidden * piece->heads;
    const tiles *at = &ring[turn];
    NAME(locate)(piece, key, value, rope, token + TILE < context ? token + TILE : token, &ring[(turn + 1) % 3]);
    now.first = first;
    now.groups = end - token >= TILE ? GROUPS : (end - token + GROUP - 1) / GROUP;
    now.weights = &s->tiles[(token - begin) / TILE % 2];
    now.values = piece->is_latent ? &at->keys : &at->values;
#if HAS_FP4
    if (has_before && NAME(is_direct)(value)) NAME(fp4_prepare_values)(value, before.values, s->grids, s->units);
#endif
    NAME(score_tile)(piece, key, &at->keys, now.groups, first, rows, 0, width, 0, keep_tile, now.weights->scores, s);
    for (int r = first; r < rows && now.groups < GROUPS; r++)
      memset(now.weights->scores + r * TILE + now.groups * GROUP, 0, (size_t)(GROUPS - now.groups) * 64);
    // The float tile of the latent keys becomes that of its values before the rotary keys take its place.
    if (!is_late) NAME(transpose_tile)(s->keys, now.groups, value->dimension, s->values);
    if (has_rope)
      NAME(score_tile)(piece, rope, &at->ropes, now.groups, first, rows, 1, width, key->dimension, 0,
                       now.weights->scores, s);
    NAME(follow_maxima)(piece, value, hidden, first, rows, now.weights, s);
    if (has_before) NAME(value_tile)(piece, value, &before, rows, keep_tile, s, out, out_stride);
    NAME(softmax)(value, first, rows, now.weights, s);
    if (!is_late) NAME(value_tile)(piece, value, &now, rows, keep_tile, s, out, out_stride);
    has_before = is_late;
    before = now;
  }
  if (!has_before) return;
#if HAS_FP4
  if (NAME(is_direct)(value)) NAME(fp4_prepare_values)(value, before.values, s->grids, s->units);
#endif
  NAME(value_tile)(piece, value, &before, rows, keep_tile, s, out, out_stride);
}

static void NAME(run)(const nb_attention_piece *piece, const operand *key, const operand *value, const operand *rope,
                      scratch *s) {
  const int rows = piece->tokens * piece->heads, dimension = value->dimension;
  const int64_t stride = nb_attention_partial_stride(dimension);
  tiles start;
  NAME(locate)(piece, key, value, rope, piece->first_chunk * NB_ATTENTION_CHUNK, &start);
  NAME(fetch)(key, &start.keys);
  if (!piece->is_latent) NAME(fetch)(value, &start.values);
  if (rope->dimension > 0) NAME(fetch)(rope, &start.ropes);
  NAME(prepare_queries)(piece, key, rope, s);
  for (int c = piece->first_chunk; c < piece->last_chunk; c++) {
    const int begin = c * NB_ATTENTION_CHUNK, hidden = begin - piece->first_position;
    const int first = hidden > 0 ? hidden * piece->heads : 0;
    if (first >= rows) break;
    // Sums grow in the worker's own memory, which is near; partials are far.
    float *out = piece->partials == NULL && c == 0 ? s->merged : s->out;
    NAME(chunk)(piece, key, value, rope, begin, begin + NB_ATTENTION_CHUNK, first, s, out, stride);
    for (int r = first; r < rows; r++) {
      float *row = out + r * stride;
      row[dimension] = s->maximum[r];
      row[dimension + 1] = NAME(sum_lanes)(NAME(load)(s->sums + r * 16));
      if (piece->partials != NULL)
        memcpy(piece->partials + ((int64_t)c * rows + r) * stride, row, (size_t)(dimension + 2) * sizeof(float));
      else if (c > 0)
        NAME(merge_row)(s->merged + r * stride, row, dimension);
    }
  }
  if (piece->partials != NULL) return;
  for (int r = 0; r < rows; r++)
    NAME(finish_row)(s->merged + r * stride, dimension, piece, value,
                     piece->output + r / piece->heads * piece->output_stride + r % piece->heads * dimension);
}

static void NAME(merge)(const nb_attention_piece *piece, const operand *value, int first_row, int last_row) {
  const int rows = piece->tokens * piece->heads, dimension = value->dimension;
  const int64_t stride = nb_attention_partial_stride(dimension);
  for (int r = first_row; r < last_row; r++) {
    const int chunks = (piece->first_position + r / piece->heads) / NB_ATTENTION_CHUNK + 1;
    float *merged = piece->partials + r * stride;
    for (int c = 1; c < chunks; c++)
      NAME(merge_row)(merged, piece->partials + ((int64_t)c * rows + r) * stride, dimension);
    NAME(finish_row)(merged, dimension, piece, value,
                     piece->output + r / piece->heads * piece->output_stride + r % piece->heads * dimension);
  }
}
