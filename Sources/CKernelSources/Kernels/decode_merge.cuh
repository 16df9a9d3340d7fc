// Decode attention: sums over the warps of a team and over the splits of a request, and what is written.
#pragma once

#include "decode_plan.cuh"
#include "decode_queries.cuh"

namespace {

NB_DEVICE void storeOne(uint64_t base, int64_t element, int type, float x) {
  if (type == NB_KERNEL_TYPE_F32) ((float *)base)[element] = x;
  else if (type == NB_KERNEL_TYPE_BF16) ((uint16_t *)base)[element] = (uint16_t)nb_pack_bf16(x, x);
  else ((uint16_t *)base)[element] = (uint16_t)nb_pack_f16(x, x);
}

NB_DEVICE float4 *partialOutput(const nb_decode_arguments &a, int64_t index) {
  return (float4 *)(a.workspace + index * (R * (D + 2) * 4));
}
NB_DEVICE float *partialRows(const nb_decode_arguments &a, int64_t index) {  // R maxima, R sums
  return (float *)(a.workspace + index * (R * (D + 2) * 4)) + R * D;
}

// Writes position `at` = fragment * 32 + lane of the output.
NB_DEVICE void writeFragment(const nb_decode_arguments &a, const Item &i, int at, float4 o) {
  int lane = at & 31, b = at / 32 / NT, n = at / 32 % NT;
  int64_t dim = 16 * b + (lane >> 2);
#pragma unroll
  for (int c = 0; c < 2; c++) {
    int token, head, query;
    if (rowAddress(a, i, 8 * n + 2 * (lane & 3) + c, token, head, query)) {
      int64_t element = token * a.output_stride + (int64_t)head * D + dim;
      storeOne(a.output, element, a.output_type, c ? o.y : o.x);
      storeOne(a.output, element + 8, a.output_type, c ? o.w : o.z);
    }
  }
}

NB_DEVICE void writeLogSumExp(const nb_decode_arguments &a, const Item &i, int row, float maximum, float sum) {
  int token, head, query;
  if (a.log_sum_exp != 0 && rowAddress(a, i, row, token, head, query)) {
    ((float *)a.log_sum_exp)[(int64_t)token * a.group * a.kv_heads + head] =
        sum > 0.0f ? (maximum + log2f(sum)) * 0.69314718055994531f : -nb_infinity();
  }
}

NB_DEVICE float outputFactor(const nb_decode_arguments &a, float sum) {
  return sum > 0.0f ? a.value_scale / ValueCodec::unit / sum : 0.0f;
}

NB_DEVICE void add(float4 &x, float4 y) { x.x += y.x; x.y += y.y; x.z += y.z; x.w += y.w; }

// Merges the warps of the team: o relative to each warp's maxima becomes one sum, which is the output if the request has one
// split, and else goes to the workspace.
NB_DEVICE void mergeWarps(const nb_decode_arguments &a, const Item &i, const Place &place, float (&o)[BLOCKS][NT][4]) {
  Team &team = place.team();
  float4 *const exchange = place.exchange();
  const int warp = place.thread() >> 5, lane = threadIdx.x & 31, j = lane & 3;
#pragma unroll
  for (int n = 0; n < NT; n++) {
    float2 most = make_float2(LOWEST, LOWEST);
#pragma unroll
    for (int w = 0; w < TEAM_WARPS; w++) {
      float2 x = *(const float2 *)&team.maxima[w][8 * n + 2 * j];
      most.x = fmaxf(most.x, x.x);
      most.y = fmaxf(most.y, x.y);
    }
    float2 own = *(const float2 *)&team.maxima[warp][8 * n + 2 * j];
    float first = nb_exp2(own.x - most.x), second = nb_exp2(own.y - most.y);
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
      o[b][n][0] *= first; o[b][n][1] *= second; o[b][n][2] *= first; o[b][n][3] *= second;
    }
  }
  // The upper half of the warps hands over to the lower half, whose sums all threads add up.
  float4 *mine = exchange + warp % SLOTS * (FRAGMENTS * 32) + lane;
  if (warp >= SLOTS) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++) {
      const float *x = o[f / NT][f % NT];
      mine[f * 32] = make_float4(x[0], x[1], x[2], x[3]);
    }
  } else if (place.thread() < R) {
    float most = LOWEST, sum = 0.0f;
    for (int w = 0; w < TEAM_WARPS; w++) most = fmaxf(most, team.maxima[w][place.thread()]);
    for (int w = 0; w < TEAM_WARPS; w++) sum += team.sums[w][place.thread()] * nb_exp2(team.maxima[w][place.thread()] - most);
    if (i.splits == 1) {
      writeLogSumExp(a, i, place.thread(), most, sum);
      team.factors[place.thread()] = outputFactor(a, sum);
    } else {
      float *rows = partialRows(a, i.partial);
      __stcg(rows + place.thread(), most);
      __stcg(rows + R + place.thread(), sum);
    }
  }
  place.synchronize();
  if (warp < SLOTS) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++) {
      const float *x = o[f / NT][f % NT];
      float4 y = mine[f * 32];
      add(y, make_float4(x[0], x[1], x[2], x[3]));
      mine[f * 32] = y;
    }
  }
  place.synchronize();
  for (int at = place.thread(); at < FRAGMENTS * 32; at += TEAM_THREADS) {
    float4 sum = exchange[at];
#pragma unroll
    for (int k = 1; k < SLOTS; k++) add(sum, exchange[k * (FRAGMENTS * 32) + at]);
    if (i.splits == 1) {
      float2 factor = *(const float2 *)&team.factors[at / 32 % NT * 8 + 2 * (at & 3)];
      writeFragment(a, i, at, make_float4(sum.x * factor.x, sum.y * factor.y, sum.z * factor.x, sum.w * factor.y));
    } else {
      __stcg(partialOutput(a, i.partial) + at, sum);
    }
  }
  place.synchronize();
}

// Merges fragments [begin, end) of the splits of one request, head and row tile. All consumers of a team, whose ring is free.
//
// Latency is what counts: a warp takes every TEAM_WARPS-th split and has its maxima, sums and fragments on their way at once; each lane
// weighs its own two rows. One barrier later the warps' sums are added up, in order.
struct Merged {
  float4 o;
  float2 most, sum;  // of the rows 8 n + 2 j and the next
};
constexpr int MERGE_ROOM = RING / (TEAM_WARPS * 32 * (int)sizeof(Merged)), MERGE_FRAGMENTS = MERGE_ROOM < 8 ? MERGE_ROOM : 8;
static_assert(MERGE_FRAGMENTS > 0, "shared memory of the merge");

NB_DEVICE void weigh(Merged &x, float first, float second, bool sums = true) {
  x.o.x *= first; x.o.y *= second; x.o.z *= first; x.o.w *= second;
  if (sums) {
    x.sum.x *= first;
    x.sum.y *= second;
  }
}
NB_DEVICE void addUp(Merged &x, const Merged &y) {
  add(x.o, y.o);
  x.sum.x += y.sum.x;
  x.sum.y += y.sum.y;
}

// One warp's share of COUNT fragments: SPLITS splits at a time.
template <int COUNT, int SPLITS>
NB_DEVICE void mergeShare(const nb_decode_arguments &a, const Item &i, int columns, int warp, int first, int end, Merged *exchange) {
  const int lane = threadIdx.x & 31;
  Merged x[COUNT];
#pragma unroll
  for (int f = 0; f < COUNT; f++) x[f] = {make_float4(0, 0, 0, 0), make_float2(LOWEST, LOWEST), make_float2(0, 0)};
  for (int split = warp; split < i.splits; split += SPLITS * TEAM_WARPS) {
    float4 y[COUNT][SPLITS];
    float2 most[COUNT][SPLITS], sum[COUNT][SPLITS];
#pragma unroll
    for (int f = 0; f < COUNT; f++)
#pragma unroll
      for (int k = 0; k < SPLITS; k++) {
        const int s = split + k * TEAM_WARPS, row = (first + f) % NT * 8 + 2 * (lane & 3);
        const bool exists = s < i.splits && first + f < end;
        const float *rows = partialRows(a, i.partial + (int64_t)s * columns) + row;
        y[f][k] = exists ? __ldcg(partialOutput(a, i.partial + (int64_t)s * columns) + (first + f) * 32 + lane) : make_float4(0, 0, 0, 0);
        most[f][k] = exists ? __ldcg((const float2 *)rows) : make_float2(LOWEST, LOWEST);
        sum[f][k] = exists ? __ldcg((const float2 *)(rows + R)) : make_float2(0, 0);
      }
#pragma unroll
    for (int f = 0; f < COUNT; f++) {
      float2 m = x[f].most;
#pragma unroll
      for (int k = 0; k < SPLITS; k++) m = make_float2(fmaxf(m.x, most[f][k].x), fmaxf(m.y, most[f][k].y));
      weigh(x[f], nb_exp2(x[f].most.x - m.x), nb_exp2(x[f].most.y - m.y));
#pragma unroll
      for (int k = 0; k < SPLITS; k++) {
        Merged part = {y[f][k], m, sum[f][k]};
        weigh(part, nb_exp2(most[f][k].x - m.x), nb_exp2(most[f][k].y - m.y));
        addUp(x[f], part);
      }
      x[f].most = m;
    }
  }
#pragma unroll
  for (int f = 0; f < COUNT; f++) {
    if (first + f < end) exchange[(f * TEAM_WARPS + warp) * 32 + lane] = x[f];
  }
}

NB_DEVICE void mergeSplits(const nb_decode_arguments &a, const Place &place, const Item &i, int columns, int begin, int end) {
  Merged *const exchange = (Merged *)place.ring();
  const int warp = place.thread() >> 5;
  for (int first = begin; first < end; first += MERGE_FRAGMENTS) {
    const int last = min(first + MERGE_FRAGMENTS, end);
    if (i.splits <= 2 * TEAM_WARPS) {
      constexpr int COUNT = MERGE_FRAGMENTS < 4 ? MERGE_FRAGMENTS : 4;
      for (int f = first; f < last; f += COUNT) {
        mergeShare<COUNT, 2>(a, i, columns, warp, f, last, exchange + (f - first) * (TEAM_WARPS * 32));
      }
    } else {
      for (int f = first; f < last; f++) mergeShare<1, 11>(a, i, columns, warp, f, last, exchange + (f - first) * (TEAM_WARPS * 32));
    }
    place.synchronize();
    for (int at = place.thread(); at < (last - first) * 32; at += TEAM_THREADS) {
      const Merged *from = exchange + at / 32 * (TEAM_WARPS * 32) + at % 32;
      float2 m = from->most;
#pragma unroll
      for (int w = 1; w < TEAM_WARPS; w++) m = make_float2(fmaxf(m.x, from[w * 32].most.x), fmaxf(m.y, from[w * 32].most.y));
      Merged total = {make_float4(0, 0, 0, 0), m, make_float2(0, 0)};
#pragma unroll
      for (int w = 0; w < TEAM_WARPS; w++) {
        Merged part = from[w * 32];
        weigh(part, nb_exp2(part.most.x - m.x), nb_exp2(part.most.y - m.y));
        addUp(total, part);
      }
      weigh(total, outputFactor(a, total.sum.x), outputFactor(a, total.sum.y), false);
      const int f = first + at / 32;
      writeFragment(a, i, f * 32 + at % 32, total.o);
      if (f < NT && at % 32 < 4) {
        writeLogSumExp(a, i, f * 8 + at % 32 * 2, total.most.x, total.sum.x);
        writeLogSumExp(a, i, f * 8 + at % 32 * 2 + 1, total.most.y, total.sum.y);
      }
    }
    place.synchronize();
  }
}

}  // namespace
