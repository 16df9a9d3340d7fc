// Latent decode attention: constants of an instantiation, what lies where in shared memory, and which splits there are.
#pragma once

#include "codecs.cuh"
#include "nibble_latent.h"

// -DNB_WGMMA=0 compiles Hopper's kernel without its own instructions, as elsewhere.
#if !defined(NB_WGMMA)
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define NB_WGMMA 1
#else
#define NB_WGMMA 0
#endif
#endif

namespace {

constexpr int LATENT = NB_LATENT_DIM, ROPE = NB_ROPE_DIM, DIM = LATENT + ROPE, ROWS = NB_LATENT_ROWS;
using LatentCodec = nb_codec<NB_RECIPE_LATENT>;
using RopeCodec = nb_codec<NB_RECIPE_ROPE>;

// Three groups of four warps: two of consumers, one of producers.
constexpr int GROUP_THREADS = 128, ALL_THREADS = 3 * GROUP_THREADS;

// Tokens of a step, and buffers for decoded steps: as many as shared memory holds (227, 163 and 99 KB).
#if __CUDA_ARCH__ == 900 || (__CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1200)
constexpr int STEP = 64, BUFFERS = 2;
#elif __CUDA_ARCH__ == 800
constexpr int STEP = 32, BUFFERS = 2;
#else
constexpr int STEP = 16, BUFFERS = 1;
#endif

// Halves of the keys of a step, and of the queries: [64 values][row][128 bytes], the 16-byte units of a row permuted by its number (the
// tensor cores' "128-byte swizzle"), so that columns and rows are both read without bank conflicts.
constexpr int KEY_BYTES = STEP * DIM * 2, QUERY_BYTES = ROWS * DIM * 2, WEIGHT_BYTES = ROWS * STEP * 2;

template <int HEIGHT>
NB_DEVICE uint32_t unitOffset(int row, int unit) {
  return unit / 8 * (HEIGHT * 128) + row * 128 + ((unit % 8 ^ row % 8) << 4);
}

struct Shared {
  float alpha[ROWS];    // factor on a row's output so far; at an item's end, the factor of the result
  float factors[ROWS];  // of a row's scores, base 2
  int32_t rescales[4];  // whether a warp's rows have an alpha other than one
  int32_t firstSplit[NB_MAXIMUM_BATCH + 1];
};

constexpr int SHARED_BYTES = BUFFERS * KEY_BYTES + QUERY_BYTES + WEIGHT_BYTES + (int)sizeof(Shared);

struct Place {
  uint8_t *base;
  NB_DEVICE_MEMBER uint32_t keys(int buffer) const { return nb_shared_address(base) + buffer * KEY_BYTES; }
  NB_DEVICE_MEMBER uint32_t queries() const { return nb_shared_address(base) + BUFFERS * KEY_BYTES; }
  NB_DEVICE_MEMBER uint4 *weights() const { return (uint4 *)(base + BUFFERS * KEY_BYTES + QUERY_BYTES); }
  NB_DEVICE_MEMBER Shared &shared() const { return *(Shared *)(base + BUFFERS * KEY_BYTES + QUERY_BYTES + WEIGHT_BYTES); }
};

// Barriers of the block: who waits for whom.
enum Barrier { CONSUMERS = 1, WEIGHTS_READY, WEIGHTS_FREE, FULL, EMPTY = FULL + BUFFERS };

NB_DEVICE void arrive(int barrier, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }

// Ordinary writes to shared memory before reads of it by wgmma.
NB_DEVICE void nb_fence_for_mma() {
#if NB_WGMMA
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// What a block works on: a split of a request's context and a tile of query rows.
struct Item {
  int request, rowTile, splits, length, begin, end, partial;
};

NB_DEVICE int rowTileCount(const nb_latent_decode_arguments &a) { return nb_row_tiles(a.heads, a.query_length, ROWS); }

// Numbers the splits of all requests. One warp.
NB_DEVICE void planSplits(const nb_latent_decode_arguments &a, int32_t *firstSplit) {
  const int lane = threadIdx.x & 31;
  int total = 0;
  for (int first = 0; first < a.batch; first += 32) {
    const int r = first + lane;
    const int count = r < a.batch ? nb_split_count(__ldg((const int32_t *)a.context_lengths + r), a.target_splits, a.minimum_split) : 0;
    int sum = count;
#pragma unroll
    for (int x = 1; x < 32; x <<= 1) {
      int other = __shfl_up_sync(0xFFFFFFFFu, sum, x);
      if (lane >= x) sum += other;
    }
    if (r < a.batch) firstSplit[r] = total + sum - count;
    total += __shfl_sync(0xFFFFFFFFu, sum, 31);
  }
  if (lane == 0) firstSplit[a.batch] = total;
}

// The row tiles of a split are neighbours: they run at the same time and share the level-2 cache.
NB_DEVICE Item locate(const nb_latent_decode_arguments &a, const Shared &shared, int item, int rowTiles) {
  Item i;
  const int split = item / rowTiles;
  i.rowTile = item - split * rowTiles;
  int low = 0, high = a.batch;  // firstSplit[low] <= split < firstSplit[high]
  while (high - low > 1) {
    const int middle = (low + high) >> 1;
    if (shared.firstSplit[middle] <= split) low = middle; else high = middle;
  }
  i.request = low;
  i.length = __ldg((const int32_t *)a.context_lengths + low);
  const nb_split_plan plan = nb_split_plan_of(i.length, a.target_splits, a.minimum_split);
  i.splits = plan.count;
  i.begin = (split - shared.firstSplit[low]) * plan.tokens;
  i.end = min(i.length, i.begin + plan.tokens);
  i.partial = item;
  return i;
}

NB_DEVICE int stepCount(const Item &i) { return max(i.end - i.begin + STEP - 1, 0) / STEP; }

// A row of the tile: the token and head it is of; false if there is none.
NB_DEVICE bool rowAddress(const nb_latent_decode_arguments &a, const Item &i, int row, int64_t &token, int &head, int &query) {
  const int r = i.rowTile * ROWS + row;
  query = r / a.heads;
  head = r - query * a.heads;
  token = (int64_t)i.request * a.query_length + query;
  return query < a.query_length;
}

}  // namespace
