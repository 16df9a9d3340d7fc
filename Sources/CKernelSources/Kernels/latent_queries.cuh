// Latent decode attention: rows of queries as halves in shared memory.
#pragma once

#include "latent_plan.cuh"

namespace {

// Eight values of a row, as they lie in memory: one word of halves, or two of FP32.
template <int WORDS>
NB_DEVICE void loadUnit(const nb_latent_decode_arguments &a, bool exists, int64_t element, uint4 (&raw)[WORDS]) {
  const uint4 *p = (const uint4 *)(a.queries + element * (WORDS * 2));
#pragma unroll
  for (int i = 0; i < WORDS; i++) raw[i] = exists ? __ldg(p + i) : make_uint4(0, 0, 0, 0);
}

template <int WORDS>
NB_DEVICE void convertUnit(const uint4 (&raw)[WORDS], int type, float (&x)[8]) {
  uint32_t w[4 * WORDS];
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    w[4 * i] = raw[i].x; w[4 * i + 1] = raw[i].y; w[4 * i + 2] = raw[i].z; w[4 * i + 3] = raw[i].w;
  }
  if constexpr (WORDS == 2) {
#pragma unroll
    for (int k = 0; k < 8; k++) x[k] = __uint_as_float(w[k]);
  } else if (type == NB_KERNEL_TYPE_BF16) {
#pragma unroll
    for (int k = 0; k < 8; k++) x[k] = __uint_as_float(k % 2 == 0 ? w[k / 2] << 16 : w[k / 2] & 0xFFFF0000u);
  } else {
#pragma unroll
    for (int k = 0; k < 8; k++) x[k] = nb_f16_to_f32((uint16_t)(w[k / 2] >> (16 * (k % 2))));
  }
}

constexpr int UNITS = DIM / 8, ROUNDS = (UNITS + 31) / 32;  // of a row: 16-byte units of halves, and of a lane

// Converts a row's units, lane + 32 k. The decode scales of latents and rotary keys go into their parts of a query, a power of two goes from
// the row into its factor, so that FP16 parts are normalised: exact for BF16, an FP16 rounding for FP16 parts with a decode scale.
template <int WORDS>
NB_DEVICE void convertRow(const nb_latent_decode_arguments &a, const Place &place, int row, const uint4 (&raw)[ROUNDS][WORDS]) {
  const float latentScale = a.latent_scale / LatentCodec::unit, ropeScale = a.rope_scale / RopeCodec::unit;
  const int lane = threadIdx.x % 32;
  float x[ROUNDS][8];
  float narrow = 0.0f, all = 0.0f;  // largest magnitudes of FP16 parts, of all
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const bool isLatent = lane + 32 * k < LATENT / 8;
    convertUnit(raw[k], a.query_type, x[k]);
    float most = 0.0f;
#pragma unroll
    for (int h = 0; h < 8; h++) {
      x[k][h] *= isLatent ? latentScale : ropeScale;
      most = fmaxf(most, fabsf(x[k][h]));
    }
    all = fmaxf(all, most);
    if (!(isLatent ? LatentCodec::wide : RopeCodec::wide)) narrow = fmaxf(narrow, most);
  }
#pragma unroll
  for (int h = 1; h < 32; h *= 2) {
    narrow = fmaxf(narrow, __shfl_xor_sync(0xFFFFFFFFu, narrow, h));
    all = fmaxf(all, __shfl_xor_sync(0xFFFFFFFFu, all, h));
  }
  // Biased exponents. BF16 parts may be larger than FP16 parts, but not without bound.
  const int ofAll = __float_as_uint(all) >> 23, ofNarrow = __float_as_uint(narrow) >> 23;
  const int exponent = min(max(LatentCodec::wide && RopeCodec::wide ? ofAll : max(ofNarrow, ofAll - 30), 1), 253);
  const float inverse = __uint_as_float((uint32_t)(254 - exponent) << 23);
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const int unit = lane + 32 * k;
    if (unit >= UNITS) continue;
    uint32_t w[4];
#pragma unroll
    for (int h = 0; h < 4; h++) {
      const float low = x[k][2 * h] * inverse, high = x[k][2 * h + 1] * inverse;
      w[h] = unit < LATENT / 8 ? LatentCodec::pack(low, high) : RopeCodec::pack(low, high);
    }
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(place.queries() + unitOffset<ROWS>(row, unit)), "r"(w[0]), "r"(w[1]),
                 "r"(w[2]), "r"(w[3])
                 : "memory");
  }
  if (lane == 0) place.shared().factors[row] = a.softmax_scale * 1.4426950408889634f * __uint_as_float((uint32_t)exponent << 23);
}

// A warp's eight rows, some of which are loaded together.
template <int WORDS>
NB_DEVICE void convertRows(const nb_latent_decode_arguments &a, const Item &i, const Place &place) {
  constexpr int BATCH = 4 / WORDS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int first = warp * 8; first < warp * 8 + 8; first += BATCH) {
    uint4 raw[BATCH][ROUNDS][WORDS];
#pragma unroll
    for (int n = 0; n < BATCH; n++) {
      int64_t token;
      int head, query;
      const bool exists = rowAddress(a, i, first + n, token, head, query);
#pragma unroll
      for (int k = 0; k < ROUNDS; k++) {
        const int unit = lane + 32 * k;
        loadUnit(a, exists && unit < UNITS, token * a.query_stride + (int64_t)head * DIM + 8 * unit, raw[n][k]);
      }
    }
#pragma unroll
    for (int n = 0; n < BATCH; n++) convertRow(a, place, first + n, raw[n]);
  }
}

// The queries of an item. All consumers.
NB_DEVICE void convertQueries(const nb_latent_decode_arguments &a, const Item &i, const Place &place) {
  if (a.query_type == NB_KERNEL_TYPE_F32) {
    convertRows<2>(a, i, place);
  } else {
    convertRows<1>(a, i, place);
  }
}

}  // namespace
