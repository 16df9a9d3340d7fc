#include "attention_internal.h"
#include "level_dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Vectors wider than the baseline's registers never cross a call: everything that takes one is inlined.
#pragma clang diagnostic ignored "-Wpsabi"

#define JOIN(a, b) a##_##b

// The two numbers of a byte of E2M1 codes, the lower nibble's first.
#define E2M1_ROW(high)                                                                                                 \
  {0, high}, {0.5f, high}, {1, high}, {1.5f, high}, {2, high}, {3, high}, {4, high}, {6, high},                        \
      {-0.0f, high}, {-0.5f, high}, {-1, high}, {-1.5f, high}, {-2, high}, {-3, high}, {-4, high}, {-6, high}
static const float e2m1_pairs[256][2] = {E2M1_ROW(0),     E2M1_ROW(0.5f),  E2M1_ROW(1),  E2M1_ROW(1.5f),
                                         E2M1_ROW(2),     E2M1_ROW(3),     E2M1_ROW(4),  E2M1_ROW(6),
                                         E2M1_ROW(-0.0f), E2M1_ROW(-0.5f), E2M1_ROW(-1), E2M1_ROW(-1.5f),
                                         E2M1_ROW(-2),    E2M1_ROW(-3),    E2M1_ROW(-4), E2M1_ROW(-6)};

// HAS_FP4 says whether a level multiplies four-bit codes as they are, or decodes tiles to floats first; HAS_SCALEF
// whether it has AVX-512's instructions for powers of two.
#define NAME(x) JOIN(x, portable)
#define FLOAT_ROWS 2
#define FLOAT_BLOCKS 2
#define HAS_FP4 0
#define HAS_SCALEF 0
#include "attention_float.inc.h"
#include "attention_driver.inc.h"
#undef NAME
#undef HAS_FP4

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define NAME(x) JOIN(x, avx2)
#define HAS_FP4 1
#include "attention_float.inc.h"
#include "attention_fp4_avx2.inc.h"
#include "attention_driver.inc.h"
#undef NAME
#undef FLOAT_ROWS
#undef FLOAT_BLOCKS
#pragma clang attribute pop

#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c"),                   \
                   min_vector_width(512))),                                                                            \
    apply_to = function)
#define NAME(x) JOIN(x, avx512)
#define FLOAT_ROWS 4
#define FLOAT_BLOCKS 4
#undef HAS_SCALEF
#define HAS_SCALEF 1
#include "attention_float.inc.h"
#include "attention_fp4_avx512.inc.h"
#include "attention_driver.inc.h"
#undef NAME
#pragma clang attribute pop
#endif

// fp8 values are read as floats times 2^-120; half of that is made up for before the sums and half after.
static operand operand_of(const nb_attention_piece *piece, const nb_attention_region *region) {
  operand o = {region->recipe, region->dimension, 0, 0, 0, 1, 1, 1, 1};
  o.row_bytes = region->dimension * nb_recipe_code_bits(region->recipe) / 8;
  if (piece->level == NB_LEVEL_AVX512 && nb_recipe_code_bits(region->recipe) == 4)
    o.digits = piece->precision == NB_PRECISION_FAST ? 2 : 3;
  const int block = nb_recipe_block(region->recipe);
  o.row_scales = block ? region->dimension / block : 0;
  if (region->recipe == NB_FP8_E4M3) {
    o.probability = o.output = 0x1p60f;
    o.pre = 0x1p30f;
    o.post = 0x1p90f;
  }
  return o;
}

static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Cuts a worker's memory into the arrays of `scratch`; with base NULL only counts.
static size_t carve(const nb_attention_piece *piece, char *base, scratch *to) {
  const size_t rows = NB_ATTENTION_ROWS, key = (size_t)piece->key.dimension, rope = (size_t)piece->rope.dimension,
               value = (size_t)piece->value.dimension, widest = key > rope ? key : rope;
  size_t used = 0;
#define TAKE(field, bytes)                                                                                             \
  to->field = (void *)(base + used);                                                                                   \
  used += padded(bytes)
  TAKE(queries, rows * (key + rope) * 4);
  TAKE(query_pairs, rows * (size_t)packed_query_stride((int)key) * 4);
  for (int i = 0; i < 2; i++) {
    TAKE(tiles[i].scores, rows * TILE * 4);
    TAKE(tiles[i].alpha, (rows + 16) * 4);
    TAKE(tiles[i].unit, (rows + 16) * 4);
    TAKE(tiles[i].digits, rows * 4);
    TAKE(tiles[i].visible, rows * 4);
  }
  TAKE(out, rows * (size_t)nb_attention_partial_stride((int)value) * 4);
  TAKE(merged, rows * (size_t)nb_attention_partial_stride((int)value) * 4);
  TAKE(maximum, (rows + 16) * 4);
  TAKE(greatest, (rows + 16) * 4);
  TAKE(sums, rows * 64);
  TAKE(keys, widest * TILE * 4);
  TAKE(values, value * TILE * 4);
  TAKE(grids, STRIP * value / 16 * TILE * 4);
  TAKE(units, value / 16 * 4);
#undef TAKE
  return used;
}

size_t nb_attention_scratch_bytes(const nb_attention_piece *piece) {
  scratch ignored;
  char one;
  return carve(piece, &one, &ignored);
}

nb_attention_tiles nb_attention_scratch_tiles(const nb_attention_piece *piece) {
  scratch s;
  char base;
  carve(piece, &base, &s);
  const size_t token = TILE * sizeof(float), rope = (size_t)piece->rope.dimension, key = (size_t)piece->key.dimension;
  return (nb_attention_tiles){(size_t)((char *)s.keys - &base), token * (key > rope ? key : rope),
                              (size_t)((char *)s.values - &base), token * (size_t)piece->value.dimension};
}

void nb_attention_run(const nb_attention_piece *piece, void *memory) {
  scratch s;
  carve(piece, memory, &s);
  const operand key = operand_of(piece, &piece->key), value = operand_of(piece, &piece->value),
                rope = operand_of(piece, &piece->rope);
  DISPATCH(piece->level, run, piece, &key, &value, &rope, &s);
}

void nb_attention_merge(const nb_attention_piece *piece, int first_row, int last_row) {
  const operand value = operand_of(piece, &piece->value);
  DISPATCH(piece->level, merge, piece, &value, first_row, last_row);
}

static void run_item(void *context, int index, int worker) {
  const nb_attention_plan *plan = context;
  const nb_attention_item item = plan->items[index];
  nb_attention_piece piece = plan->pieces[item.piece];
  piece.first_chunk = item.first;
  piece.last_chunk = item.last;
  nb_attention_run(&piece, plan->scratch + worker * plan->scratch_stride);
}

static void merge_item(void *context, int index, int worker) {
  (void)worker;
  const nb_attention_plan *plan = context;
  const nb_attention_item item = plan->items[plan->run_count + index];
  nb_attention_merge(&plan->pieces[item.piece], item.first, item.last);
}

void nb_attention_execute(const nb_attention_plan *plan, nb_workers *workers) {
  nb_workers_run(workers, plan->run_count, run_item, (void *)plan);
  nb_workers_run(workers, plan->merge_count, merge_item, (void *)plan);
}
