// Decode attention: which splits there are, and who takes which.
//
// The splits of all requests, heads and row tiles are numbered. Each team has one to begin with and claims others
// from a counter in device memory, ahead of its need.
#pragma once

#include "decode_layout.cuh"

namespace {

NB_DEVICE int splitCount(const Shared &shared, int r) { return shared.firstSplit[r + 1] - shared.firstSplit[r]; }

// Counts the splits of all requests from the lengths in device memory. One warp.
NB_DEVICE void planSplits(const nb_decode_arguments &a, Shared &shared) {
  const int lane = threadIdx.x & 31;
  int total = 0;
  for (int first = 0; first < a.batch; first += 32) {
    const int r = first + lane, length = r < a.batch ? __ldg((const int32_t *)a.context_lengths + r) : 0;
    const nb_split_plan plan = nb_gqa_split_plan_of(length, a.target_splits, a.minimum_split);
    const int count = r < a.batch ? plan.count : 0;
    int sum = count;
#pragma unroll
    for (int x = 1; x < 32; x <<= 1) {
      int other = __shfl_up_sync(0xFFFFFFFFu, sum, x);
      if (lane >= x) sum += other;
    }
    if (r < a.batch) {
      shared.requests[r] = make_int2(length, plan.tokens);
      shared.firstSplit[r] = total + sum - count;
    }
    total += __shfl_sync(0xFFFFFFFFu, sum, 31);
  }
  if (lane == 0) {
    shared.firstSplit[a.batch] = total;
    shared.rowTiles = nb_row_tiles(a.group, a.query_length, R);
    shared.items = total * a.kv_heads * shared.rowTiles;
  }
}

NB_DEVICE Item locate(const nb_decode_arguments &a, const Shared &shared, int item, int rowTiles) {
  Item i;
  const int columns = a.kv_heads * rowTiles, split = (uint32_t)item / (uint32_t)columns, column = item - split * columns;
  i.head = rowTiles == 1 ? column : column / rowTiles;
  i.rowTile = column - i.head * rowTiles;
  int low = 0, high = a.batch;  // firstSplit[low] <= split < firstSplit[high]
  while (high - low > 1) {
    const int middle = (low + high) >> 1;
    if (shared.firstSplit[middle] <= split) low = middle; else high = middle;
  }
  const int2 plan = shared.requests[low];
  i.request = low;
  i.length = plan.x;
  i.splits = splitCount(shared, low);
  i.begin = (split - shared.firstSplit[low]) * plan.y;
  i.end = min(plan.x, i.begin + plan.y);
  i.partial = item;
  return i;
}

// What another warp announces in shared memory.
NB_DEVICE int look(int32_t &word, int lane) {
  int value = 0;
  if (lane == 0) value = atomicOr(&word, 0);
  return __shfl_sync(0xFFFFFFFFu, value, 0);
}

static_assert(sizeof(Item) == 32, "eight words");

// Producer: announces the team's k-th item.
NB_DEVICE void announce(Team &team, int k, int number, const Item &i, int lane) {
  const int word = lane == 0 ? i.request : lane == 1 ? i.head : lane == 2 ? i.rowTile : lane == 3 ? i.splits : lane == 4 ? i.partial
                 : lane == 5 ? i.length : lane == 6 ? i.begin : i.end;
  if (lane < 8) atomicExch(&team.claimed[k % CLAIMS][lane], word);
  __threadfence_block();
  __syncwarp();
  if (lane == 0) atomicExch(&team.claims[k % CLAIMS], number);
}

// One warp of the consumers: brings the team's k-th item, as soon as the producer has claimed it, to where all find it behind the next
// barrier.
NB_DEVICE void accept(Team &team, int k, int lane) {
  int number;
  do number = look(team.claims[k % CLAIMS], lane);
  while (number == UNKNOWN);
  __threadfence_block();
  if (lane < 8) ((int32_t *)&team.items[k % 2])[lane] = atomicOr(&team.claimed[k % CLAIMS][lane], 0);
  if (lane == 0) {
    team.numbers[k % 2] = number;
    atomicExch(&team.claims[k % CLAIMS], UNKNOWN);
  }
}

// The producer warp of a team: claims items and copies their steps, each lane another step.
constexpr int LANES = RING_SLOTS < 32 ? RING_SLOTS : 32;  // a lane further on would wait for a phase that looks like the one before

NB_DEVICE void produce(const nb_decode_arguments &a, const Place &place) {
  Team &team = place.team();
  const int lane = threadIdx.x & 31, rowTiles = place.shared().rowTiles, items = place.shared().items;
  const nb_ring ring = ringOf(place);
  int item = place.teamInGrid();
  int position = 0;  // of the item's first step in two rounds of the ring, as slots and phases repeat
  for (int k = 0;; k++) {
    while (k - look(team.begun, lane) >= CLAIMS - 1) {
    }
    Item i = {};
    if (item < items) i = locate(a, place.shared(), item, rowTiles);
    announce(team, k, item, i, lane);
    if (item >= items) return;
    int next = 0;
    if (lane == 0) next = gridDim.x * TEAMS + atomicAdd((uint32_t *)a.counters, 1u);
    const int32_t *table = (const int32_t *)a.page_table + i.request * a.page_table_stride;
    const uint8_t *cache = (const uint8_t *)a.cache + (i.head << (a.page_shift - 4)) * TILE;
    const int steps = (i.end - i.begin + STEP - 1) / STEP;
    for (int first = 0; first < steps; first += LANES) {
      const int step = first + lane, token = i.begin + step * STEP;
      const bool pair = STEP > 16 && a.page_shift == 4;  // a step has two pages
      const uint8_t *from = cache, *second = cache;
      int secondBytes = 0;
      bool pending = lane < LANES && step < steps;
      if (pending) {
        from += __ldg(table + (token >> a.page_shift)) * a.page_stride + ((token & ((1 << a.page_shift) - 1)) >> 4) * TILE;
        if (pair && token + 16 < i.end) {
          second += __ldg(table + (token >> 4) + 1) * a.page_stride;
          secondBytes = TILE;
        }
      }
      const int at = (position + step) % (2 * RING_SLOTS), phase = at >= RING_SLOTS, slot = at - phase * RING_SLOTS;
      [[maybe_unused]] const uint32_t to = ring.data + slot * STEP_BYTES;
#if NB_BULK_COPIES
      do {
        if (pending && ring.isFree(slot, phase)) {
          ring.fetch(slot, to, from, pair ? TILE : STEP_BYTES, second, secondBytes);
          pending = false;
        }
      } while (__any_sync(0xFFFFFFFFu, pending));
#else
      for (int s = 0; s < LANES && first + s < steps; s++) {  // all lanes copy each step
        if (NB_LOCKSTEP && s % TEAM_WARPS == 0) place.lockstep();
        int itsSlot = __shfl_sync(0xFFFFFFFFu, slot, s), itsPhase = __shfl_sync(0xFFFFFFFFu, phase, s);
        while (!ring.isFree(itsSlot, itsPhase)) {
        }
        ring.fetch(lane, itsSlot, ring.data + itsSlot * STEP_BYTES, (const uint8_t *)__shfl_sync(0xFFFFFFFFu, (uint64_t)from, s),
                   pair ? TILE : STEP_BYTES, (const uint8_t *)__shfl_sync(0xFFFFFFFFu, (uint64_t)second, s),
                   __shfl_sync(0xFFFFFFFFu, secondBytes, s));
        if (NB_LOCKSTEP && (s % TEAM_WARPS == TEAM_WARPS - 1 || first + s == steps - 1)) place.lockstep();
      }
#endif
    }
    position = (position + steps) % (2 * RING_SLOTS);
    item = __shfl_sync(0xFFFFFFFFu, next, 0);
  }
}

}  // namespace
