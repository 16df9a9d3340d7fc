// Paged decode attention over any storage recipe, flash-decoding style (arXiv 2205.14135, 2311.01282).
//
// A block is two teams of warps. A team claims one item after the other: one split of one request's context, one KV head, one tile
// of 8 or 16 query rows (the group's heads, times the queries of a request). Its warps take the split's steps (16 or 32 tokens) in turn
// from a ring in shared memory, which one more warp, the producer, fills ahead, across items too. Scores: S = Q K^T with the query
// rows as rows of mma.m16n8k16. Output: O^T = V^T P^T, whose B fragment is the accumulator of S as it stands, so that no value crosses
// threads; n = 8 query rows an instruction, so that groups up to 8 pay for 8.
//
// The order of every sum depends on the context's length alone: steps of a warp in order, warps by a fixed tree, splits in order.
#include "decode_merge.cuh"
#include "decode_plan.cuh"
#include "decode_queries.cuh"
#include "decode_step.cuh"

namespace {

constexpr float SLACK = 8.0f;  // the running maximum may lag behind by a factor of 2^8: P stays far below FP16's largest

NB_DEVICE void consume(const nb_decode_arguments &a, const Place &place) {
  Team &team = place.team();
  const nb_ring ring = ringOf(place);
  const int warp = place.thread() >> 5, lane = threadIdx.x & 31, g = lane >> 2, j = lane & 3;
  uint32_t *const queue = (uint32_t *)a.counters, *const finished = queue + 1, *const arrived = queue + 2;
  const uint32_t queries = nb_shared_address(place.queries()) + lane * (8 * NT);
  uint4 raw[ROUNDS];
  // The results of an item with several splits are announced after the next item's first step, when waiting for them to be written
  // costs nothing.
  auto arrive = [&]() {
    if (team.announced >= 0) {
      __threadfence();
      atomicAdd(arrived + team.announced, 1u);
      team.announced = -1;
    }
  };
  if (place.thread() == 0) team.announced = -1;
  if (place.thread() < 32) accept(team, 0, place.thread());
  place.synchronize();
  int item = team.numbers[0];
  if (item < place.shared().items) loadQueries(a, team.items[0], raw);
  int position = 0;  // of the first step, as in produce
  for (int k = 0; item < place.shared().items; k++) {
    const Item &i = team.items[k % 2];
    convertQueries(a, i, raw, place);
    place.synchronize();
    if (place.thread() == 0) atomicExch(&team.begun, k + 1);
    float c[NT], m[NT], l[NT];
#pragma unroll
    for (int n = 0; n < NT; n++) {
      c[n] = team.queryFactors[g + 8 * n];
      m[n] = LOWEST;
      l[n] = 0.0f;
    }
    float o[BLOCKS][NT][4];
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
      for (int n = 0; n < NT; n++) o[b][n][0] = o[b][n][1] = o[b][n][2] = o[b][n][3] = 0.0f;

    const int open = i.length - a.query_length + 1;  // tokens that every row sees
    const int steps = (i.end - i.begin + STEP - 1) / STEP;
    int slot = (position + warp) % RING_SLOTS;
    uint32_t phase = (position + warp) / RING_SLOTS & 1;
    position = (position + steps) % (2 * RING_SLOTS);
    const int lastStep = i.begin / STEP + steps, idle = NB_LOCKSTEP ? (TEAM_WARPS - steps % TEAM_WARPS) % TEAM_WARPS : 0;
    for (int step = i.begin / STEP + warp; step < lastStep + idle; step += TEAM_WARPS) {
      if (NB_LOCKSTEP) {  // in every round of steps all warps
        place.lockstep();
        place.lockstep();
        if (step >= lastStep) continue;
      }
      const uint32_t stage = ring.data + slot * STEP_BYTES;
      ring.wait(slot, phase);
      float s[2 * TILES][4];
      scoreStep(stage, g, j, queries, s);
      if (__builtin_expect((step + 1) * STEP > open, 0)) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
          int token, head, query;
          bool exists = rowAddress(a, i, g + 8 * n, token, head, query);
          int limit = i.length - (exists ? a.query_length - 1 - query : 0) - step * STEP - 2 * j;
#pragma unroll
          for (int k = 0; k < 2 * TILES; k++) {
            if (8 * k >= limit) s[k][2 * n] = -nb_infinity();
            if (8 * k + 1 >= limit) s[k][2 * n + 1] = -nb_infinity();
          }
        }
        clearValues(stage, lane, j, step * STEP, i.end);
        ring.fence();
      }
      float most[NT];
      bool above = false;
#pragma unroll
      for (int n = 0; n < NT; n++) {
        most[n] = fmaxf(s[0][2 * n], s[0][2 * n + 1]);
#pragma unroll
        for (int k = 1; k < 2 * TILES; k++) most[n] = fmaxf(most[n], fmaxf(s[k][2 * n], s[k][2 * n + 1]));
        most[n] *= c[n];
        above |= most[n] > m[n] + SLACK;
      }
      if (__builtin_expect(__any_sync(0xFFFFFFFFu, above), 0)) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
          most[n] = fmaxf(most[n], __shfl_xor_sync(0xFFFFFFFFu, most[n], 1));
          most[n] = fmaxf(most[n], __shfl_xor_sync(0xFFFFFFFFu, most[n], 2));
          most[n] = fmaxf(m[n], most[n]);
          float alpha = nb_exp2(m[n] - most[n]);
          m[n] = most[n];
          l[n] *= alpha;
          float first = __shfl_sync(0xFFFFFFFFu, alpha, 8 * j), second = __shfl_sync(0xFFFFFFFFu, alpha, 8 * j + 4);
#pragma unroll
          for (int b = 0; b < BLOCKS; b++) {
            o[b][n][0] *= first; o[b][n][1] *= second; o[b][n][2] *= first; o[b][n][3] *= second;
          }
        }
      }
      uint32_t p[TILES][NT][2];
#pragma unroll
      for (int k = 0; k < 2 * TILES; k++)
#pragma unroll
        for (int n = 0; n < NT; n++) {
          float x = nb_exp2(fmaf(s[k][2 * n], c[n], -m[n])), y = nb_exp2(fmaf(s[k][2 * n + 1], c[n], -m[n]));
          l[n] += x + y;
          p[k / 2][n][k % 2] = ValueCodec::pack(x, y);
        }
      accumulateStep(stage, lane, j, p, o);
      __syncwarp();
      if (place.thread() % 32 == 0) ring.release(slot);
      slot += TEAM_WARPS;
      if (slot >= RING_SLOTS) {
        slot -= RING_SLOTS;
        phase ^= 1;
      }
      if (place.thread() == 0) arrive();
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
      l[n] += __shfl_xor_sync(0xFFFFFFFFu, l[n], 1);
      l[n] += __shfl_xor_sync(0xFFFFFFFFu, l[n], 2);
      if (place.thread() % 4 == 0) {
        team.maxima[warp][g + 8 * n] = m[n];
        team.sums[warp][g + 8 * n] = l[n];
      }
    }
    if (place.thread() < 32) accept(team, k + 1, place.thread());
    place.synchronize();
    item = team.numbers[(k + 1) % 2];
    if (item < place.shared().items) loadQueries(a, team.items[(k + 1) % 2], raw);
    mergeWarps(a, i, place, o);
    if (place.thread() == 0) {
      arrive();
      if (i.splits > 1) team.announced = (i.request * a.kv_heads + i.head) * place.shared().rowTiles + i.rowTile;
    }
  }
  if (place.thread() == 0) arrive();

  // Nothing is left to claim. The teams share the merges of requests with several splits; whoever works on the splits has claimed
  // them and runs, so waiting for them ends.
  const int rowTiles = place.shared().rowTiles, columns = a.kv_heads * rowTiles, groups = a.batch * columns;
  const int slices = max(1, min(FRAGMENTS, (int)gridDim.x * TEAMS / groups));
  for (int id = place.teamInGrid(); id < groups * slices; id += gridDim.x * TEAMS) {
    const int group = id / slices, slice = id - group * slices, r = group / columns, column = group - r * columns;
    Item i;
    i.splits = splitCount(place.shared(), r);
    if (i.splits == 1) continue;
    i.request = r;
    i.head = column / rowTiles;
    i.rowTile = column - i.head * rowTiles;
    i.length = place.shared().requests[r].x;
    i.partial = place.shared().firstSplit[r] * columns + column;
    if (place.thread() == 0) {
      uint32_t seen;
      do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived + group) : "memory");
      } while (seen < (uint32_t)i.splits);
    }
    place.synchronize();
    mergeSplits(a, place, i, columns, slice * FRAGMENTS / slices, (slice + 1) * FRAGMENTS / slices);
  }
  // The last team to come here leaves the counters as the next launch expects them.
  if (place.thread() == 0) team.last = atomicAdd(finished, 1u) == gridDim.x * TEAMS - 1;
  place.synchronize();
  if (team.last) {
    for (int at = place.thread(); at < 2 + groups; at += TEAM_THREADS) queue[at] = 0;
  }
}

}  // namespace

extern "C" __constant__ nb_decode_information nb_decode_configuration = {
    ALL_THREADS, SHARED_BYTES, R, WARPS, STAGES, STEP, NB_KERNEL_LAYOUT_VERSION, TEAMS};

extern "C" __global__ void __launch_bounds__(ALL_THREADS, 1) nb_decode(const __grid_constant__ nb_decode_arguments a) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int team = warp < WARPS ? warp / TEAM_WARPS : warp - WARPS;
  nb_launch_next();
  if (warp >= WARPS && team < TEAMS) {
    const Place place = Place{team};
    if (lane < CLAIMS) place.team().claims[lane] = UNKNOWN;
    for (int s = lane; s < RING_SLOTS; s += 32) ringOf(place).initialize(s);
    nb_ring::initialized();
    if (lane == 0) place.team().begun = 0;
  }
  nb_wait_for_previous();
  if (warp == 0) planSplits(a, Place{0}.shared());
  __syncthreads();
  if (warp >= WARPS) {
    nb_registers<WARPS == 12 || WARPS == 8 ? -56 : 0>();
    if (team < TEAMS) produce(a, Place{team});
  } else {
    nb_registers<WARPS == 12 ? 152 : WARPS == 8 ? 224 : 0>();
    consume(a, Place{-1});
  }
}
