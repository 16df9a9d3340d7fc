// Latent decode attention: merges the splits of requests that have several, in their order. A block takes one query row; a thread
// four of its values.
#include "ptx.cuh"
#include "nibble_latent.h"

namespace {

constexpr int THREADS = NB_LATENT_DIM / 4;

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS) nb_latent_merge(const __grid_constant__ nb_latent_decode_arguments a) {
  __shared__ float weights[NB_MAXIMUM_SPLITS], before[THREADS / 32], factor;
  nb_launch_next();
  nb_wait_for_previous();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int token = blockIdx.x / a.heads, head = blockIdx.x - token * a.heads, r = token / a.query_length;
  const int32_t *lengths = (const int32_t *)a.context_lengths;
  const int splits = nb_split_count(__ldg(lengths + r), a.target_splits, a.minimum_split);
  if (splits == 1) return;
  // Splits of the requests before this one; at most 2^24 of them, which FP32 counts exactly.
  float count = 0.0f;
  for (int i = threadIdx.x; i < r; i += THREADS) count += nb_split_count(__ldg(lengths + i), a.target_splits, a.minimum_split);
#pragma unroll
  for (int h = 16; h > 0; h /= 2) count += __shfl_xor_sync(0xFFFFFFFFu, count, h);
  if (lane == 0) before[warp] = count;
  __syncthreads();
  const int rowTiles = nb_row_tiles(a.heads, a.query_length, NB_LATENT_ROWS);
  const int row = (token - r * a.query_length) * a.heads + head, tile = row / NB_LATENT_ROWS;
  const int64_t first = ((int64_t)(before[0] + before[1] + before[2] + before[3]) * rowTiles + tile) * NB_LATENT_ROWS + row % NB_LATENT_ROWS;
  const int64_t stride = (int64_t)rowTiles * NB_LATENT_ROWS;  // rows from split to split
  if (warp == 0) {
    const float2 *sums = (const float2 *)a.partial_sums + first;
    float most = -nb_infinity(), sum = 0.0f;
    for (int i = lane; i < splits; i += 32) most = fmaxf(most, sums[i * stride].x);
#pragma unroll
    for (int h = 16; h > 0; h /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, h));
    for (int i = lane; i < splits; i += 32) {
      const float2 x = sums[i * stride];
      const float weight = nb_exp2(x.x - most);
      weights[i] = weight;
      sum += weight * x.y;
    }
#pragma unroll
    for (int h = 16; h > 0; h /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, h);
    if (lane == 0) {
      factor = sum > 0.0f ? 1.0f / sum : 0.0f;
      if (a.log_sum_exp != 0) ((float *)a.log_sum_exp)[blockIdx.x] = 0.6931471805599453f * (most + log2f(sum));
    }
  }
  __syncthreads();
  const float4 *outputs = (const float4 *)a.partial_outputs + first * (NB_LATENT_DIM / 4) + threadIdx.x;
  const int64_t step = stride * (NB_LATENT_DIM / 4);
  float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
  for (int i = 0; i < splits; i++) {
    const float4 x = outputs[i * step];
    const float weight = weights[i];
    o.x = fmaf(weight, x.x, o.x); o.y = fmaf(weight, x.y, o.y); o.z = fmaf(weight, x.z, o.z); o.w = fmaf(weight, x.w, o.w);
  }
  o.x *= factor; o.y *= factor; o.z *= factor; o.w *= factor;
  const int64_t element = token * a.output_stride + (int64_t)head * NB_LATENT_DIM + 4 * threadIdx.x;
  if (a.output_type == NB_KERNEL_TYPE_F32) {
    *(float4 *)((float *)a.output + element) = o;
  } else {
    const bool bf = a.output_type == NB_KERNEL_TYPE_BF16;
    *(uint2 *)((uint16_t *)a.output + element) = make_uint2(bf ? nb_pack_bf16(o.x, o.y) : nb_pack_f16(o.x, o.y),
                                                            bf ? nb_pack_bf16(o.z, o.w) : nb_pack_f16(o.z, o.w));
  }
}
