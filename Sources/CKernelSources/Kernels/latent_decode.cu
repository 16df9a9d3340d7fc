// Paged decode attention of MLA in absorbed form: up to 128 query heads over one latent, which is key and value.
//
// With 128 heads this is a matter of arithmetic, 278,528 operations for some 400 bytes of a token, so the tensor cores set the
// pace and the rest stays out of their way. A block takes 64 query rows and a split of a context. One group of four warps decodes
// steps of tokens into halves in shared memory, where keys and values are one. A second computes scores and softmax and the output's
// lower 256 values, a third the upper 256 from the same weights; 64 x 512 accumulators don't fit into fewer threads. While the
// second group works on its softmax, the tensor cores have the third group's product to do, and its own last one.
//
// The order of every sum depends on the context's length alone.
#include "latent_mma.cuh"
#include "latent_produce.cuh"
#include "latent_queries.cuh"

namespace {

constexpr float LOWEST = -1e30f;
constexpr float SLACK = 8.0f;  // the running maximum may lag behind by a factor of 2^8: weights stay far below FP16's largest

// What a consumer knows of an item: it has rows g and g + 8 of its warp's 16.
struct Work {
  Item item;
  int rowTiles, steps, row;

  NB_DEVICE_MEMBER Work(const nb_latent_decode_arguments &a, const Place &place, int number, int tiles)
      : item(locate(a, place.shared(), number, tiles)), rowTiles(tiles), steps(stepCount(item)),
        row(threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4) {
    nb_synchronize(CONSUMERS, 2 * GROUP_THREADS);  // nobody needs the last item's queries
    convertQueries(a, item, place);
    nb_fence_for_mma();
    nb_synchronize(CONSUMERS, 2 * GROUP_THREADS);
  }
};

NB_DEVICE void clear(float (&o)[VALUE_TILES][4]) {
#pragma unroll
  for (int n = 0; n < VALUE_TILES; n++) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.0f;
}

NB_DEVICE void rescale(float (&o)[VALUE_TILES][4], float first, float second) {
#pragma unroll
  for (int n = 0; n < VALUE_TILES; n++) {
    o[n][0] *= first; o[n][1] *= first; o[n][2] *= second; o[n][3] *= second;
  }
}

// The results of one group: of a single split the output, else sums for the merge.
NB_DEVICE void writeValues(const nb_latent_decode_arguments &a, const Work &w, int half, const float (&o)[VALUE_TILES][4], float first,
                           float second) {
  const int column = half * (LATENT / 2) + threadIdx.x % 4 * 2;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int64_t token;
    int head, query;
    if (!rowAddress(a, w.item, w.row + 8 * r, token, head, query)) continue;
    const float factor = r == 0 ? first : second;
    if (w.item.splits > 1) {
      float2 *to = (float2 *)((float *)a.partial_outputs + ((int64_t)w.item.partial * ROWS + w.row + 8 * r) * LATENT + column);
#pragma unroll
      for (int n = 0; n < VALUE_TILES; n++) to[4 * n] = make_float2(o[n][2 * r] * factor, o[n][2 * r + 1] * factor);
    } else {
      const int64_t element = token * a.output_stride + (int64_t)head * LATENT + column;
#pragma unroll
      for (int n = 0; n < VALUE_TILES; n++) {
        const float x = o[n][2 * r] * factor, y = o[n][2 * r + 1] * factor;
        if (a.output_type == NB_KERNEL_TYPE_F32) {
          *(float2 *)((float *)a.output + element + 8 * n) = make_float2(x, y);
        } else {
          *(uint32_t *)((uint16_t *)a.output + element + 8 * n) =
              a.output_type == NB_KERNEL_TYPE_BF16 ? nb_pack_bf16(x, y) : nb_pack_f16(x, y);
        }
      }
    }
  }
}

// The group that computes scores and weights, and the lower half of the output.
NB_DEVICE void lead(const nb_latent_decode_arguments &a, const Place &place) {
  Shared &shared = place.shared();
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, j = lane % 4;
  const int rowTiles = rowTileCount(a), items = shared.firstSplit[a.batch] * rowTiles;
  const uint32_t queries = place.queries();
  bool follows = false;  // the other group has had weights
  int step = 0;          // of all items, as in produce
  for (int number = blockIdx.x; number < items; number += gridDim.x) {
    const Work w(a, place, number, rowTiles);
    float c[2], m[2], l[2];
    int limits[2];  // tokens that a row sees
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int64_t token;
      int head, query;
      const bool exists = rowAddress(a, w.item, w.row + 8 * r, token, head, query);
      limits[r] = w.item.length - (exists ? a.query_length - 1 - query : 0);
      c[r] = shared.factors[w.row + 8 * r];
      m[r] = LOWEST;
      l[r] = 0.0f;
    }
    const int open = w.item.length - a.query_length + 1;  // tokens that every row sees
    float o[VALUE_TILES][4], s[STEP / 8][4];
    clear(o);
    if (w.steps > 0) {
      nb_synchronize(FULL + step % BUFFERS, 2 * GROUP_THREADS);
      nb_mma_begin();
      startScores(s, queries, place.keys(step % BUFFERS));
      nb_mma_commit();
      nb_mma_wait<0>();
      nb_mma_settle(s);
    }
    for (int k = 0; k < w.steps; k++, step++) {
      const int first = w.item.begin + k * STEP;
      if (__builtin_expect(first + STEP > open, 0)) {
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
          for (int x = 0; x < 4; x++)
            if (first + 8 * n + 2 * j + x % 2 >= limits[x / 2]) s[n][x] = -nb_infinity();
      }
      float most[2];
      bool above = false;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        most[r] = fmaxf(s[0][2 * r], s[0][2 * r + 1]);
#pragma unroll
        for (int n = 1; n < STEP / 8; n++) most[r] = fmaxf(most[r], fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        most[r] *= c[r];
        above |= most[r] > m[r] + SLACK;
      }
      float alpha[2] = {1.0f, 1.0f};
      const bool rescales = __any_sync(0xFFFFFFFFu, above);
      if (rescales) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
          most[r] = fmaxf(most[r], __shfl_xor_sync(0xFFFFFFFFu, most[r], 1));
          most[r] = fmaxf(most[r], __shfl_xor_sync(0xFFFFFFFFu, most[r], 2));
          most[r] = fmaxf(m[r], most[r]);
          alpha[r] = nb_exp2(m[r] - most[r]);
          m[r] = most[r];
          l[r] *= alpha[r];
        }
        rescale(o, alpha[0], alpha[1]);
      }
      uint32_t p[STEP / 16][4];
#pragma unroll
      for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const float x = nb_exp2(fmaf(s[n][2 * r], c[r], -m[r])), y = nb_exp2(fmaf(s[n][2 * r + 1], c[r], -m[r]));
          l[r] += x + y;
          p[n / 2][n % 2 * 2 + r] = LatentCodec::pack(x, y);
        }
      if (follows) nb_synchronize(WEIGHTS_FREE, 2 * GROUP_THREADS);
      follows = true;
#pragma unroll
      for (int n = 0; n < STEP / 16; n++) place.weights()[n * GROUP_THREADS + threadIdx.x % GROUP_THREADS] = make_uint4(p[n][0], p[n][1], p[n][2], p[n][3]);
      if (lane == 0) shared.rescales[warp] = rescales;
      if (rescales && j == 0) {
        shared.alpha[w.row] = alpha[0];
        shared.alpha[w.row + 8] = alpha[1];
      }
      arrive(WEIGHTS_READY, 2 * GROUP_THREADS);

      // The tensor cores have this step's values and the next one's scores to do until its softmax.
      const int buffer = step % BUFFERS, next = (step + 1) % BUFFERS;
      nb_mma_settle(o);
      nb_mma_settle(s);
      nb_mma_begin();
      startValues(o, p, place.keys(buffer), 0);
      nb_mma_commit();
      if (k + 1 == w.steps) {
        nb_mma_wait<0>();
        nb_mma_settle(o);
        arrive(EMPTY + buffer, ALL_THREADS);
        continue;
      }
      if (BUFFERS == 1) arrive(EMPTY + buffer, ALL_THREADS);
      nb_synchronize(FULL + next, 2 * GROUP_THREADS);
      startScores(s, queries, place.keys(next));
      nb_mma_commit();
      nb_mma_wait<1>();
      nb_mma_settle(o);
      if (BUFFERS > 1) arrive(EMPTY + buffer, ALL_THREADS);
      nb_mma_wait<0>();
      nb_mma_settle(s);
    }
    const float valueScale = a.latent_scale / LatentCodec::unit;
    float factors[2];
    if (follows) nb_synchronize(WEIGHTS_FREE, 2 * GROUP_THREADS);
    follows = true;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      l[r] += __shfl_xor_sync(0xFFFFFFFFu, l[r], 1);
      l[r] += __shfl_xor_sync(0xFFFFFFFFu, l[r], 2);
      factors[r] = w.item.splits > 1 ? valueScale : l[r] > 0.0f ? valueScale / l[r] : 0.0f;
      int64_t token;
      int head, query;
      const bool exists = rowAddress(a, w.item, w.row + 8 * r, token, head, query);
      if (j == 0) {
        shared.alpha[w.row + 8 * r] = factors[r];
        if (exists && w.item.splits > 1) {
          *((float2 *)a.partial_sums + (int64_t)w.item.partial * ROWS + w.row + 8 * r) = make_float2(m[r], l[r]);
        } else if (exists && a.log_sum_exp != 0) {
          ((float *)a.log_sum_exp)[token * a.heads + head] = 0.6931471805599453f * (m[r] + log2f(l[r]));
        }
      }
    }
    arrive(WEIGHTS_READY, 2 * GROUP_THREADS);
    writeValues(a, w, 0, o, factors[0], factors[1]);
  }
}

// The group that computes the upper half of the output.
NB_DEVICE void follow(const nb_latent_decode_arguments &a, const Place &place) {
  Shared &shared = place.shared();
  const int warp = threadIdx.x / 32 % 4;
  const int rowTiles = rowTileCount(a), items = shared.firstSplit[a.batch] * rowTiles;
  int step = 0;
  for (int number = blockIdx.x; number < items; number += gridDim.x) {
    const Work w(a, place, number, rowTiles);
    float o[VALUE_TILES][4];
    clear(o);
    for (int k = 0; k < w.steps; k++, step++) {
      nb_synchronize(WEIGHTS_READY, 2 * GROUP_THREADS);
      uint32_t p[STEP / 16][4];
#pragma unroll
      for (int n = 0; n < STEP / 16; n++) {
        const uint4 x = place.weights()[n * GROUP_THREADS + threadIdx.x % GROUP_THREADS];
        p[n][0] = x.x; p[n][1] = x.y; p[n][2] = x.z; p[n][3] = x.w;
      }
      if (shared.rescales[warp]) rescale(o, shared.alpha[w.row], shared.alpha[w.row + 8]);
      arrive(WEIGHTS_FREE, 2 * GROUP_THREADS);
      nb_mma_settle(o);
      nb_mma_begin();
      startValues(o, p, place.keys(step % BUFFERS), 1);
      nb_mma_commit();
      nb_mma_wait<0>();
      nb_mma_settle(o);
      arrive(EMPTY + step % BUFFERS, ALL_THREADS);
    }
    nb_synchronize(WEIGHTS_READY, 2 * GROUP_THREADS);
    const float first = shared.alpha[w.row], second = shared.alpha[w.row + 8];
    arrive(WEIGHTS_FREE, 2 * GROUP_THREADS);
    writeValues(a, w, 1, o, first, second);
  }
}

}  // namespace

extern "C" __constant__ nb_latent_decode_information nb_latent_decode_configuration = {ALL_THREADS, SHARED_BYTES, ROWS,
                                                                                       NB_LATENT_LAYOUT_VERSION};

extern "C" __global__ void __launch_bounds__(ALL_THREADS, 1) nb_latent_decode(const __grid_constant__ nb_latent_decode_arguments a) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const Place place{memory};
  nb_launch_next();
  nb_wait_for_previous();
  if (threadIdx.x < 32) planSplits(a, place.shared().firstSplit);
  __syncthreads();
  // What some give others take: together three times the 168 of the launch, or they would wait for ever.
  const int group = threadIdx.x / GROUP_THREADS;
  if (group == 0) {
    nb_registers<208>();
    lead(a, place);
  } else if (group == 1) {
    nb_registers<176>();
    follow(a, place);
  } else {
    nb_registers<-120>();
    produce(a, place);
  }
}
