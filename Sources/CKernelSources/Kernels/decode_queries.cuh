// Decode attention: rows of queries, and their fragments in shared memory.
#pragma once

#include "decode_layout.cuh"

namespace {

// The index of a row's head in [tokens, heads], and whether the row exists.
NB_DEVICE bool rowAddress(const nb_decode_arguments &a, const Item &i, int row, int &token, int &head, int &query) {
  int r = i.rowTile * R + row;
  query = a.query_length == 1 ? (r >= a.group) : (uint32_t)r / (uint32_t)a.group;
  token = i.request * a.query_length + query;
  head = i.head * a.group + (r - query * a.group);
  return query < a.query_length;
}

// Queries. A thread takes 8 values of a row at a time; it loads those of the next item while the block works on this one, unless
// they are FP32.
constexpr int ROW_LANES = D <= 64 ? 8 : D <= 128 ? 16 : 32;  // threads of a row, D / 8 of them at work
constexpr int ROUNDS = (R * ROW_LANES + TEAM_THREADS - 1) / TEAM_THREADS;

// Loads ahead take registers, which the widest rows don't leave.
constexpr bool LOADS_AHEAD = ROUNDS <= 2;

NB_DEVICE bool queryAddress(const nb_decode_arguments &a, const Item &i, int round, int &row, int &chunk, int64_t &element) {
  int index = round * TEAM_THREADS + threadIdx.x % TEAM_THREADS, token, head, query;
  row = index / ROW_LANES;
  chunk = index % ROW_LANES;
  if (row >= R || chunk >= D / 8 || !rowAddress(a, i, row, token, head, query)) return false;
  element = token * a.query_stride + (int64_t)head * D + 8 * chunk;
  return true;
}

NB_DEVICE uint4 loadChunk(const nb_decode_arguments &a, bool exists, int64_t element) {
  return exists && a.query_type != NB_KERNEL_TYPE_F32 ? *(const uint4 *)((const uint16_t *)a.queries + element) : make_uint4(0, 0, 0, 0);
}

NB_DEVICE void loadQueries(const nb_decode_arguments &a, const Item &i, uint4 (&raw)[ROUNDS]) {
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    int row, chunk;
    int64_t element;
    if (LOADS_AHEAD) raw[k] = loadChunk(a, queryAddress(a, i, k, row, chunk, element), element);
  }
}

// Writes the fragments of Q, whose pairs of values have the order in which the keys' codes unpack: [k-step][lane][row tile and pair].
// FP16 fragments are normalised by a power of two a row, which goes into the row's factor.
NB_DEVICE void convertQueries(const nb_decode_arguments &a, const Item &i, const uint4 (&raw)[ROUNDS], const Place &place) {
  const float logScale = a.softmax_scale * 1.4426950408889634f * a.key_scale / KeyCodec::unit;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    int row, chunk;
    int64_t element;
    bool exists = queryAddress(a, i, k, row, chunk, element);
    float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (a.query_type != NB_KERNEL_TYPE_F32) {
      const uint4 loaded = LOADS_AHEAD ? raw[k] : loadChunk(a, exists, element);
      uint32_t w[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
      bool bf = a.query_type == NB_KERNEL_TYPE_BF16;
#pragma unroll
      for (int h = 0; h < 4; h++) {
        x[2 * h] = bf ? __uint_as_float(w[h] << 16) : nb_f16_to_f32((uint16_t)w[h]);
        x[2 * h + 1] = bf ? __uint_as_float(w[h] & 0xFFFF0000u) : nb_f16_to_f32((uint16_t)(w[h] >> 16));
      }
    } else if (exists) {
      const float4 *p = (const float4 *)((const float *)a.queries + element);
      float4 u = p[0], v = p[1];
      x[0] = u.x; x[1] = u.y; x[2] = u.z; x[3] = u.w; x[4] = v.x; x[5] = v.y; x[6] = v.z; x[7] = v.w;
    }
    float factor = 1.0f;
    if (!KeyCodec::wide) {
      float most = 0.0f;
#pragma unroll
      for (int h = 0; h < 8; h++) most = fmaxf(most, fabsf(x[h]));
#pragma unroll
      for (int h = 1; h < ROW_LANES; h *= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, h));
      int exponent = min(max((int)(__float_as_uint(most) >> 23), 1), 253);  // biased
      factor = __uint_as_float((uint32_t)exponent << 23);
      float inverse = __uint_as_float((uint32_t)(254 - exponent) << 23);
#pragma unroll
      for (int h = 0; h < 8; h++) x[h] *= inverse;
    }
    if (row < R && chunk < D / 8) {
      if (chunk == 0) place.team().queryFactors[row] = logScale * factor;
      int j = chunk / (D / 32), w = chunk % (D / 32), n = row / 8, lane = row % 8 * 4 + j;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        uint32_t *at = place.queries() + ((2 * w + h) * 32 + lane) * (2 * NT) + n;
        at[0] = KeyCodec::isFP4 ? KeyCodec::pack(x[2 * h], x[2 * h + 4]) : KeyCodec::pack(x[4 * h], x[4 * h + 1]);
        at[NT] = KeyCodec::isFP4 ? KeyCodec::pack(x[2 * h + 1], x[2 * h + 5]) : KeyCodec::pack(x[4 * h + 2], x[4 * h + 3]);
      }
    }
  }
}

}  // namespace
