// Decode attention: constants of an instantiation and what lies where in shared memory.
#pragma once

#include "codecs.cuh"
#include "pipeline.cuh"

namespace {

constexpr int D = NB_DIM;
constexpr int R = NB_ROWS;
constexpr int NT = R / 8;
constexpr int BLOCKS = D / 16;  // 16-value blocks of a row: k-steps of Q K^T, row tiles of V^T
using KeyCodec = nb_codec<NB_RECIPE_K>;
using ValueCodec = nb_codec<NB_RECIPE_V>;
static_assert(D % 32 == 0 && D >= 64 && D <= 256, "head_dim: 64, 96, 128, 192 or 256");
static_assert(R == 8 || R == 16, "rows of a tile: 8 or 16");

// Parts of a tile (nb_tile_of, as constants).
constexpr int KEY_CODES = 2 * D * KeyCodec::bits;
constexpr int KEY_SCALES = KeyCodec::isFP4 ? 16 * D / KeyCodec::block : 0;
constexpr int VALUE_CODES = 2 * D * ValueCodec::bits;
constexpr int VALUE_SCALES = ValueCodec::isFP4 ? 16 * D / ValueCodec::block : 0;
constexpr int TILE = KEY_CODES + KEY_SCALES + VALUE_CODES + VALUE_SCALES;
__device__ constexpr int chunk(int bytes) { return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : 4; }
constexpr int KEY_PART = D / 4 * KeyCodec::bits / 8, KEY_CHUNK = chunk(KEY_PART);
constexpr int VALUE_PART = D * ValueCodec::bits / 16, VALUE_CHUNK = chunk(VALUE_PART);

// Shared memory: the rings, exchange slots for the merge of the warps, query fragments, small arrays.
constexpr int SLOT = R * D * 4;
constexpr int QUERIES = R * D * 2;
#if __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000 || __CUDA_ARCH__ == 1030
constexpr int LIMIT = 227 * 1024;
#elif __CUDA_ARCH__ == 800
constexpr int LIMIT = 163 * 1024;
#else
constexpr int LIMIT = 99 * 1024;
#endif
#ifdef NB_WARPS
constexpr int MOST_WARPS = NB_WARPS;
#else
// Without a way to move registers between warps, and with little shared memory, fewer warps with more registers: with the producer, six
// make two on each quarter of a multiprocessor.
constexpr int MOST_WARPS = LIMIT > 200 * 1024 && (D <= 128 || NT == 1) ? 12 : NB_BULK_COPIES || D * NT <= 256 ? 8 : 6;
#endif
constexpr int CLAIMS = 8;
constexpr int SMALL = 2 * MOST_WARPS * R * 4 + MOST_WARPS * 6 * 16 + 2 * (2 * R * 4 + CLAIMS * 36 + 128) + 64 + 8 * NB_MAXIMUM_BATCH +
                      4 * (NB_MAXIMUM_BATCH + 1);
constexpr int MOST_TEAMS = LIMIT > 200 * 1024 ? 2 : 1;
constexpr int ROOM = LIMIT - SMALL - MOST_TEAMS * QUERIES;

__device__ constexpr bool fits(int warps, int tokens, int stages) {
  return warps * stages * (tokens / 16) * TILE + warps / 2 * SLOT <= ROOM;
}
constexpr int WARPS = fits(MOST_WARPS, 16, 2) ? MOST_WARPS : fits(8, 16, 2) ? 8 : fits(4, 16, 2) ? 4 : 2;
#ifndef NB_STEP
constexpr int STEP = KeyCodec::isFP4 && fits(WARPS, 32, 2) ? 32 : 16;  // wider keys need the registers of the second tile
#else
constexpr int STEP = NB_STEP;
#endif
#ifndef NB_STAGES
// A deeper ring of FP4 codes gains nothing in steady state, and at the start its copies stand in one another's way.
__device__ constexpr bool deep(int stages) {
  return fits(WARPS, STEP, stages) && !(KeyCodec::isFP4 && WARPS * stages * (STEP / 16) * TILE > 128 * 1024);
}
constexpr int STAGES = deep(4) ? 4 : deep(3) ? 3 : 2;
#else
constexpr int STAGES = NB_STAGES;
#endif
// The warps of a block form teams with a producer, a ring and an item each: while one team ends an item, the other one computes. It takes
// rings of some depth.
#ifndef NB_TEAMS
constexpr int TEAMS = WARPS >= 8 ? MOST_TEAMS : 1;
#else
constexpr int TEAMS = NB_TEAMS;
#endif
constexpr int TEAM_WARPS = WARPS / TEAMS;
constexpr int TEAM_THREADS = TEAM_WARPS * 32;
constexpr int THREADS = WARPS * 32;  // without the producers
// Where registers can move between warps, the producers come in a group of four warps, since they move by groups of four.
#if __CUDA_ARCH__ >= 900
constexpr int ALL_THREADS = THREADS + 128;
#else
constexpr int ALL_THREADS = THREADS + 32 * TEAMS;
#endif
constexpr int RING_SLOTS = TEAM_WARPS * STAGES;
constexpr int TILES = STEP / 16;
constexpr int STEP_BYTES = TILES * TILE;
constexpr int RING = RING_SLOTS * STEP_BYTES;  // of a team
constexpr int SLOTS = TEAM_WARPS / 2;
constexpr int FRAGMENTS = BLOCKS * NT;  // float4 a thread holds of the output
static_assert(TEAM_WARPS % 2 == 0 && fits(WARPS, STEP, STAGES), "shared memory");

// One split of one request, head and row tile.
struct Item {
  int request, head, rowTile, splits;
  int partial;     // number of the split's results in the workspace
  int length;      // of the context
  int begin, end;  // tokens
};

constexpr int UNKNOWN = -1;
constexpr float LOWEST = -1e30f;  // a maximum over nothing; finite, so that differences are defined

struct Team {
  uint64_t full[RING_SLOTS], empty[RING_SLOTS];
  int32_t claimed[CLAIMS][8];  // the producer's word of the team's k-th item at k % CLAIMS
  int32_t claims[CLAIMS];      // the item's number, UNKNOWN until claimed
  Item items[2];               // the consumers' copies, the k-th at k % 2
  int32_t numbers[2];
  float maxima[TEAM_WARPS][R];
  float sums[TEAM_WARPS][R];
  float queryFactors[R];
  float factors[R];
  int32_t begun;  // items that the consumers have begun
  int32_t announced;  // counter of the results that are written but not announced, or -1
  int32_t last;       // thread 0's word to all
};

struct Shared {
  Team teams[TEAMS];
  int32_t items, rowTiles;          // items of all teams; row tiles of a request and head
  int2 requests[NB_MAXIMUM_BATCH];  // length, tokens of a split
  int32_t firstSplit[NB_MAXIMUM_BATCH + 1];
};
static_assert(sizeof(Shared) <= SMALL, "small arrays");

constexpr int EXCHANGE = SLOTS * SLOT;  // of a team
constexpr int SHARED_BYTES = TEAMS * (RING + EXCHANGE + QUERIES) + SMALL;

extern __shared__ __align__(128) uint8_t memory[];

// What one team works in. Addresses are made anew where they are used, of a thread number that is read anew: kept across the loop
// over steps, they and the conditions on them would spill.
struct Place {
  int producer;  // the team whose producer this is, or -1 in a consumer

  NB_DEVICE_MEMBER static int threadNumber() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
  }
  // Of the team in the block, and in the grid.
  NB_DEVICE_MEMBER int index() const { return producer >= 0 ? producer : threadNumber() / TEAM_THREADS; }
  NB_DEVICE_MEMBER int teamInGrid() const { return (int)blockIdx.x * TEAMS + index(); }
  // Of the consumer in its team.
  NB_DEVICE_MEMBER int thread() const { return threadNumber() % TEAM_THREADS; }
  NB_DEVICE_MEMBER Shared &shared() const { return *(Shared *)(memory + TEAMS * (RING + EXCHANGE + QUERIES)); }
  NB_DEVICE_MEMBER Team &team() const { return shared().teams[index()]; }
  NB_DEVICE_MEMBER uint8_t *ring() const { return memory + index() * RING; }
  NB_DEVICE_MEMBER float4 *exchange() const { return (float4 *)(memory + TEAMS * RING + index() * EXCHANGE); }
  NB_DEVICE_MEMBER uint32_t *queries() const { return (uint32_t *)(memory + TEAMS * (RING + EXCHANGE) + index() * QUERIES); }
  // A barrier of the team's consumers.
  NB_DEVICE_MEMBER void synchronize() const { nb_synchronize(1 + index(), TEAM_THREADS); }
  // NB_LOCKSTEP: a barrier of the team's consumers and producer.
  NB_DEVICE_MEMBER void lockstep() const { nb_synchronize(1 + TEAMS + index(), TEAM_THREADS + 32); }
};

NB_DEVICE nb_ring ringOf(const Place &place) {
  return {nb_shared_address(place.ring()), nb_shared_address(place.team().full), nb_shared_address(place.team().empty)};
}

}  // namespace
