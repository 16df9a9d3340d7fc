// Latent decode attention: rows of queries as halves in shared memory.
#pragma once

#include "latent_plan.cuh"

namespace {

// Eight values of a row, as they lie in memory, and as floats.
NB_DEVICE void loadUnit(const nb_latent_decode_arguments &a, bool exists, int64_t element, uint4 (&raw)[2]) {
  raw[0] = raw[1] = make_uint4(0, 0, 0, 0);
  const bool wide = a.query_type == NB_KERNEL_TYPE_F32;
  const uint4 *p = (const uint4 *)(a.queries + element * (wide ? 4 : 2));
  if (exists) raw[0] = __ldg(p);
  if (exists && wide) raw[1] = __ldg(p + 1);
}

NB_DEVICE void convertUnit(const uint4 (&raw)[2], int type, float (&x)[8]) {
  const uint32_t w[8] = {raw[0].x, raw[0].y, raw[0].z, raw[0].w, raw[1].x, raw[1].y, raw[1].z, raw[1].w};
  if (type == NB_KERNEL_TYPE_F32) {
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

// Converts the queries of an item. The decode scales of latents and rotary keys go into their parts of a query, a power of two goes from
// each row into its factor, so that FP16 parts are normalised: exact for BF16, an FP16 rounding for FP16 parts with a decode scale.
// All consumers: a warp takes eight rows, loads one while it converts the one before.
NB_DEVICE void convertQueries(const nb_latent_decode_arguments &a, const Item &i, const Place &place) {
  constexpr int UNITS = DIM / 8, ROUNDS = (UNITS + 31) / 32;
  const float latentScale = a.latent_scale / LatentCodec::unit, ropeScale = a.rope_scale / RopeCodec::unit;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t queries = place.queries();
  auto load = [&](int row, uint4 (&raw)[ROUNDS][2]) {
    int64_t token;
    int head, query;
    const bool exists = rowAddress(a, i, row, token, head, query);
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
      const int unit = lane + 32 * k;
      loadUnit(a, exists && unit < UNITS, token * a.query_stride + (int64_t)head * DIM + 8 * unit, raw[k]);
    }
  };
  uint4 raw[2][ROUNDS][2];
  load(warp * 8, raw[0]);
#pragma unroll
  for (int n = 0; n < 8; n++) {
    const int row = warp * 8 + n;
    if (n < 7) load(row + 1, raw[(n + 1) % 2]);
    float x[ROUNDS][8];
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) convertUnit(raw[n % 2][k], a.query_type, x[k]);
    float narrow = 0.0f, all = 0.0f;  // largest magnitudes of FP16 parts, of all
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
      const bool isLatent = lane + 32 * k < LATENT / 8;
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
      asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(queries + unitOffset<ROWS>(row, unit)), "r"(w[0]), "r"(w[1]), "r"(w[2]),
                   "r"(w[3])
                   : "memory");
    }
    if (lane == 0) place.shared().factors[row] = a.softmax_scale * 1.4426950408889634f * __uint_as_float((uint32_t)exponent << 23);
  }
}

}  // namespace
