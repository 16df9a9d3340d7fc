// Latent decode attention: merges the splits of requests that have several.
//
// Few rows: a block takes 128 values of one row, a warp an eighth of the splits, so that all loads are under way at once. Many rows: a warp
// takes one. The order of the sum is the same: every eighth split from the first on, from the second on and so forth, then the
// sums of these; it depends on the number of splits alone.
#include "nibble_latent.h"
#include "ptx.cuh"

namespace {

constexpr int WARPS = NB_LATENT_MERGE_THREADS / 32, COLUMNS = NB_LATENT_DIM / 128;

NB_DEVICE void add(float4 &o, float weight, float4 x) {
  o.x = fmaf(weight, x.x, o.x);
  o.y = fmaf(weight, x.y, o.y);
  o.z = fmaf(weight, x.z, o.z);
  o.w = fmaf(weight, x.w, o.w);
}

// A row's partial results. All lanes of a warp have the same.
struct Row {
  int splits;
  int64_t index, first, stride;  // of the output; row of the first split's results; rows from split to split
  float factor;

  NB_DEVICE_MEMBER Row(const nb_latent_decode_arguments &a, int number) : index(number) {
    const int lane = threadIdx.x % 32, token = number / a.heads, r = token / a.query_length;
    const int32_t *lengths = (const int32_t *)a.context_lengths;
    splits = nb_split_count(__ldg(lengths + r), a.target_splits, a.minimum_split);
    int before = 0;  // splits of the requests before this one
    for (int i = lane; i < r; i += 32) before += nb_split_count(__ldg(lengths + i), a.target_splits, a.minimum_split);
#pragma unroll
    for (int h = 16; h > 0; h /= 2) before += __shfl_xor_sync(0xFFFFFFFFu, before, h);
    const int rowTiles = nb_row_tiles(a.heads, a.query_length, NB_LATENT_ROWS);
    const int row = number - r * a.query_length * a.heads;
    first = ((int64_t)before * rowTiles + row / NB_LATENT_ROWS) * NB_LATENT_ROWS + row % NB_LATENT_ROWS;
    stride = (int64_t)rowTiles * NB_LATENT_ROWS;
  }

  NB_DEVICE_MEMBER float4 load(const nb_latent_decode_arguments &a, int split, int column) const {
    return __ldcs((const float4 *)a.partial_outputs + (first + split * stride) * (NB_LATENT_DIM / 4) + column * 32 + threadIdx.x % 32);
  }

  // Weights of the splits.
  NB_DEVICE_MEMBER void weigh(const nb_latent_decode_arguments &a, float *weights, bool tells) {
    const int lane = threadIdx.x % 32;
    const float2 *sums = (const float2 *)a.partial_sums + first;
    float most = -nb_infinity(), sum = 0.0f;
    for (int i = lane; i < splits; i += 32) most = fmaxf(most, sums[i * stride].x);
#pragma unroll
    for (int h = 16; h > 0; h /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, h));
    for (int i = lane; i < splits; i += 32) {
      const float2 x = sums[i * stride];
      weights[i] = nb_exp2(x.x - most);
      sum += weights[i] * x.y;
    }
#pragma unroll
    for (int h = 16; h > 0; h /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, h);
    factor = sum > 0.0f ? 1.0f / sum : 0.0f;
    if (tells && lane == 0 && a.log_sum_exp != 0) ((float *)a.log_sum_exp)[index] = 0.6931471805599453f * (most + log2f(sum));
    __syncwarp();
  }

  NB_DEVICE_MEMBER void write(const nb_latent_decode_arguments &a, int column, float4 o) const {
    o.x *= factor; o.y *= factor; o.z *= factor; o.w *= factor;
    const int64_t token = index / a.heads, head = index - token * a.heads;
    const int64_t element = token * a.output_stride + head * NB_LATENT_DIM + column * 128 + threadIdx.x % 32 * 4;
    if (a.output_type == NB_KERNEL_TYPE_F32) {
      *(float4 *)((float *)a.output + element) = o;
    } else {
      const bool bf = a.output_type == NB_KERNEL_TYPE_BF16;
      *(uint2 *)((uint16_t *)a.output + element) = make_uint2(bf ? nb_pack_bf16(o.x, o.y) : nb_pack_f16(o.x, o.y),
                                                              bf ? nb_pack_bf16(o.z, o.w) : nb_pack_f16(o.z, o.w));
    }
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(NB_LATENT_MERGE_THREADS) nb_latent_merge(const __grid_constant__ nb_latent_decode_arguments a) {
  __shared__ float allWeights[WARPS][NB_MAXIMUM_SPLITS];
  __shared__ float4 sums[WARPS][32];
  nb_launch_next();
  nb_wait_for_previous();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float *const weights = allWeights[warp];
  if (gridDim.y > 1) {
    Row row(a, blockIdx.x);
    if (row.splits == 1) return;
    const int column = blockIdx.y;
    constexpr int AHEAD = 8;
    float4 x[AHEAD], o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      if (warp + k * WARPS < row.splits) x[k] = row.load(a, warp + k * WARPS, column);
    }
    row.weigh(a, weights, warp == 0 && column == 0);
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      if (warp + k * WARPS < row.splits) add(o, weights[warp + k * WARPS], x[k]);
    }
#pragma unroll 8
    for (int i = warp + AHEAD * WARPS; i < row.splits; i += WARPS) add(o, weights[i], row.load(a, i, column));
    sums[warp][lane] = o;
    __syncthreads();
    if (warp > 0) return;
    for (int w = 1; w < min(WARPS, row.splits); w++) add(o, 1.0f, sums[w][lane]);
    row.write(a, column, o);
  } else {
    const int number = blockIdx.x * WARPS + warp;
    if (number >= a.batch * a.query_length * a.heads) return;
    Row row(a, number);
    if (row.splits == 1) return;
    row.weigh(a, weights, true);
    float4 o[COLUMNS];
    for (int w = 0; w < min(WARPS, row.splits); w++) {
      float4 part[COLUMNS];
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) part[c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 2
      for (int i = w; i < row.splits; i += WARPS) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) add(part[c], weights[i], row.load(a, i, c));
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        if (w == 0) o[c] = part[c]; else add(o[c], 1.0f, part[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) row.write(a, c, o[c]);
  }
}
