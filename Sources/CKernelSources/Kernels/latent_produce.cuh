// Latent decode attention: the producers, who decode a step of tokens into shared memory.
//
// A lane has one token of a tile of 16, of which it loads 16 bytes at a time, half a warp each even and odd chunks. What it
// loads waits in registers until a buffer is free, so that memory's latency passes behind the arithmetic of the step before; BF16,
// which needs no decoding, is copied past the registers where there would be too many of them.
#pragma once

#include "latent_plan.cuh"

namespace {

constexpr int STEP_TILES = STEP / NB_TILE_TOKENS, PARTS = 4 / STEP_TILES;  // warps that share a tile

NB_DEVICE uint4 loadWord(const uint8_t *at) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(at));
  return r;
}

NB_DEVICE void storeUnit(uint32_t at, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}

// One part of a tile, latent or rope: this thread's share of it.
template <int RECIPE, int VALUES, int FIRST_UNIT, bool COPIED>
struct Region {
  using Codec = nb_codec<RECIPE>;
  static constexpr int CHUNKS = VALUES * Codec::bits / 128;
  static constexpr int COUNT = CHUNKS / 2 / PARTS > 0 ? CHUNKS / 2 / PARTS : 1;  // chunks of a thread
  static constexpr int CODE_BYTES = CHUNKS * 256;
  static constexpr int CHUNK_BLOCKS = Codec::block == 32 ? 1 : 2;
  static constexpr int SCALE_BYTES = Codec::isFP4 ? COUNT * CHUNK_BLOCKS : 0;  // of a thread
  static constexpr int ALL_SCALE_BYTES = Codec::isFP4 ? CHUNKS * CHUNK_BLOCKS * 16 : 0;

  uint4 codes[COPIED ? 1 : COUNT];
  uint32_t scales[SCALE_BYTES > 4 ? SCALE_BYTES / 4 : 1];

  NB_DEVICE_MEMBER static int chunk(int i, int part, int lane) { return 2 * (part * COUNT + i) + lane / 16; }

  // Starts the loads. Tokens that don't exist are zeros: what was never written may decode to NaN.
  NB_DEVICE_MEMBER void load(const uint8_t *at, bool exists, int part, int lane) {
    if constexpr (!COPIED) {
      exists = exists && part * COUNT < CHUNKS / 2;
#pragma unroll
      for (int i = 0; i < COUNT; i++) {
        codes[i] = make_uint4(0, 0, 0, 0);
        if (exists) codes[i] = loadWord(at + (chunk(i, part, lane) * 16 + lane % 16) * 16);
      }
      if constexpr (SCALE_BYTES > 0) {
        const uint8_t *from = at + CODE_BYTES + lane * (CHUNKS / 2 * CHUNK_BLOCKS) + part * SCALE_BYTES;
        if constexpr (SCALE_BYTES == 16) {
          uint4 w = exists ? loadWord(from) : make_uint4(0, 0, 0, 0);
          scales[0] = w.x; scales[1 % (SCALE_BYTES / 4)] = w.y; scales[2 % (SCALE_BYTES / 4)] = w.z; scales[3 % (SCALE_BYTES / 4)] = w.w;
        } else if constexpr (SCALE_BYTES >= 4) {
#pragma unroll
          for (int i = 0; i < SCALE_BYTES / 4; i++) scales[i] = exists ? __ldg((const uint32_t *)from + i) : 0;
        } else {
          scales[0] = 0;
#pragma unroll
          for (int i = 0; i < SCALE_BYTES; i++) scales[0] |= exists ? (uint32_t)__ldg(from + i) << (8 * i) : 0;
        }
      }
    }
  }

  // Starts the copies of a region that is copied.
  NB_DEVICE_MEMBER void copy(const uint8_t *at, bool exists, int part, int lane, uint32_t keys, int token) const {
    if constexpr (COPIED) {
#pragma unroll 4
      for (int i = 0; i < COUNT; i++) {
        const int c = chunk(i, part, lane);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(keys + unitOffset<STEP>(token, FIRST_UNIT + c)),
                     "l"(at + (c * 16 + lane % 16) * 16), "r"(exists ? 16 : 0)
                     : "memory");
      }
    }
  }

  // Decodes what was loaded.
  NB_DEVICE_MEMBER void decode(int part, int lane, uint32_t keys, int token) const {
    if constexpr (!COPIED) {
      if (part * COUNT >= CHUNKS / 2) return;
#pragma unroll
      for (int i = 0; i < COUNT; i++) {
        const int c = chunk(i, part, lane);
        const uint32_t w[4] = {codes[i].x, codes[i].y, codes[i].z, codes[i].w};
        if constexpr (Codec::isFP4) {
          const int byte = i * CHUNK_BLOCKS;
          const uint32_t pair = Codec::scales(scales[byte / 4], CHUNK_BLOCKS == 2 ? byte % 4 / 2 : byte % 4 / 2);
#pragma unroll
          for (int k = 0; k < 4; k++) {
            const uint32_t scale = (CHUNK_BLOCKS == 2 ? k / 2 : byte % 2) ? nb_high2(pair) : nb_low2(pair);
            uint32_t f[4];
            Codec::unpack(w[k], f);
            storeUnit(keys + unitOffset<STEP>(token, FIRST_UNIT + 4 * c + k), Codec::scale(f[0], scale), Codec::scale(f[1], scale),
                      Codec::scale(f[2], scale), Codec::scale(f[3], scale));
          }
        } else if constexpr (Codec::isFP8) {
#pragma unroll
          for (int k = 0; k < 2; k++) {
            storeUnit(keys + unitOffset<STEP>(token, FIRST_UNIT + 2 * c + k), nb_e4m3x2_to_f16x2(w[2 * k], 0),
                      nb_e4m3x2_to_f16x2(w[2 * k], 1), nb_e4m3x2_to_f16x2(w[2 * k + 1], 0), nb_e4m3x2_to_f16x2(w[2 * k + 1], 1));
          }
        } else {
          storeUnit(keys + unitOffset<STEP>(token, FIRST_UNIT + c), w[0], w[1], w[2], w[3]);
        }
      }
    }
  }
};

using LatentRegion = Region<NB_RECIPE_LATENT, LATENT, 0, LatentCodec::isBF16>;
using RopeRegion = Region<NB_RECIPE_ROPE, ROPE, LATENT / 8, RopeCodec::isBF16 && !LatentCodec::isFP4>;
constexpr int ROPE_OFFSET = LatentRegion::CODE_BYTES + LatentRegion::ALL_SCALE_BYTES;
constexpr int TILE_BYTES = ROPE_OFFSET + RopeRegion::CODE_BYTES + RopeRegion::ALL_SCALE_BYTES;

// Goes through the steps of all items of the block.
struct Cursor {
  Item item;
  int number, token;  // of the item; first of the step's tokens

  NB_DEVICE_MEMBER void settle(const nb_latent_decode_arguments &a, const Shared &shared, int items, int rowTiles) {
    for (; number < items; number += gridDim.x) {
      item = locate(a, shared, number, rowTiles);
      token = item.begin;
      if (token < item.end) return;
    }
  }
  NB_DEVICE_MEMBER void advance(const nb_latent_decode_arguments &a, const Shared &shared, int items, int rowTiles) {
    token += STEP;
    if (token < item.end) return;
    number += gridDim.x;
    settle(a, shared, items, rowTiles);
  }
};

NB_DEVICE void produce(const nb_latent_decode_arguments &a, const Place &place) {
  const Shared &shared = place.shared();
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, part = warp / STEP_TILES;
  const int row = warp % STEP_TILES * NB_TILE_TOKENS + lane % 16;  // of the step: this thread's token
  const int rowTiles = rowTileCount(a), items = shared.firstSplit[a.batch] * rowTiles;
  const uint8_t *const cache = (const uint8_t *)a.cache;
  LatentRegion latent;
  RopeRegion rope;
  auto exists = [&](const Cursor &c) { return c.token + row < c.item.end; };
  auto pageOf = [&](const Cursor &c) {
    return c.number < items && exists(c)
               ? __ldg((const int32_t *)a.page_table + (int64_t)c.item.request * a.page_table_stride + ((c.token + row) >> a.page_shift))
               : 0;
  };
  auto addressOf = [&](const Cursor &c, int page) {
    return cache + page * a.page_stride + (((c.token + row) & ((1 << a.page_shift) - 1)) / NB_TILE_TOKENS) * TILE_BYTES;
  };
  Cursor cursor;
  cursor.number = blockIdx.x;
  cursor.settle(a, shared, items, rowTiles);
  if (cursor.number >= items) return;
  const uint8_t *at = addressOf(cursor, pageOf(cursor));
  latent.load(at, exists(cursor), part, lane);
  rope.load(at + ROPE_OFFSET, exists(cursor), part, lane);
  for (int step = 0;; step++) {
    const int buffer = step % BUFFERS;
    const bool wanted = exists(cursor);
    cursor.advance(a, shared, items, rowTiles);
    const int page = pageOf(cursor);
    if (step >= BUFFERS) nb_synchronize(EMPTY + buffer, ALL_THREADS);
    const uint32_t keys = place.keys(buffer);
    latent.copy(at, wanted, part, lane, keys, row);
    rope.copy(at + ROPE_OFFSET, wanted, part, lane, keys, row);
    latent.decode(part, lane, keys, row);
    rope.decode(part, lane, keys, row);
    asm volatile("cp.async.wait_all;" ::: "memory");
    nb_fence_for_mma();
    arrive(FULL + buffer, 2 * GROUP_THREADS);
    if (cursor.number >= items) return;
    at = addressOf(cursor, page);
    latent.load(at, exists(cursor), part, lane);
    rope.load(at + ROPE_OFFSET, exists(cursor), part, lane);
  }
}

}  // namespace
