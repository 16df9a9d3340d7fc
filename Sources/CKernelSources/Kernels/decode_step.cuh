// Decode attention: the arithmetic of one step of 16 or 32 tokens in a slot of the ring.
#pragma once

#include "decode_layout.cuh"

namespace {

// Scores of one step: s[n][...] of tokens 8 n ... 8 n + 7.
NB_DEVICE void scoreStep(uint32_t stage, int g, int j, uint32_t queries, float (&s)[2 * TILES][4]) {
  constexpr int WORDS = KEY_CHUNK / 4;
#pragma unroll
  for (int n = 0; n < 2 * TILES; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
  uint32_t q[2][2 * NT];
  auto multiply = [&](int n, int k, uint32_t b0, uint32_t b1) {
    const uint32_t(&a)[2 * NT] = q[k % 2];
    KeyCodec::mma(s[n], a[0], NT == 2 ? a[1] : 0u, a[NT], NT == 2 ? a[2 * NT - 1] : 0u, b0, b1);
  };
#pragma unroll
  for (int c = 0; c < KEY_PART / KEY_CHUNK; c++) {
    uint32_t codes[2 * TILES][WORDS];
#pragma unroll
    for (int n = 0; n < 2 * TILES; n++) {
      nb_load_shared<WORDS>(codes[n], stage + n / 2 * TILE + c * (64 * KEY_CHUNK) + ((g + n % 2 * 8) * 4 + j) * KEY_CHUNK);
    }
    if constexpr (KeyCodec::isFP4) {
      constexpr int PART = D / 4, BLOCK = KeyCodec::block, PAIRING = D % (8 * BLOCK) == 0 ? 2 : 1;
      uint32_t scales[TILES];
#pragma unroll
      for (int w = 0; w < WORDS; w++) {
        int e = (c * WORDS + w) * 8;  // this thread's values before the word
        nb_load_shared<2 * NT>(q[0], queries + e / 4 * (256 * NT));
        nb_load_shared<2 * NT>(q[1], queries + (e / 4 + 1) * (256 * NT));
#pragma unroll
        for (int t = 0; t < TILES; t++) {
          uint32_t at = stage + t * TILE + KEY_CODES;
          if (PART % BLOCK != 0) {
            int block = (PART * j + e) / BLOCK;
            scales[t] = KeyCodec::scales(nb_load_shared_u16(at + (block * 8 + g) * 2), 0);
          } else if (e % BLOCK == 0) {
            int block = PART / BLOCK * j + e / BLOCK;
            if (PAIRING == 2) {
              scales[t] = KeyCodec::scales(nb_load_shared_u32(at + (block / 2 * 8 + g) * 4), e / BLOCK & 1);
            } else {
              scales[t] = KeyCodec::scales(nb_load_shared_u16(at + (block * 8 + g) * 2), 0);
            }
          }
        }
#pragma unroll
        for (int n = 0; n < 2 * TILES; n++) {
          uint32_t f[4];
          KeyCodec::unpack(codes[n][w], f);
          uint32_t scale = n % 2 ? nb_high2(scales[n / 2]) : nb_low2(scales[n / 2]);
#pragma unroll
          for (int i = 0; i < 4; i++) f[i] = KeyCodec::scale(f[i], scale);
          multiply(n, e / 4, f[0], f[1]);
          multiply(n, e / 4 + 1, f[2], f[3]);
        }
      }
    } else if constexpr (KeyCodec::isFP8) {
#pragma unroll
      for (int w = 0; w < WORDS; w++) {
        nb_load_shared<2 * NT>(q[w % 2], queries + (c * WORDS + w) * (256 * NT));
#pragma unroll
        for (int n = 0; n < 2 * TILES; n++) {
          multiply(n, w, nb_e4m3x2_to_f16x2(codes[n][w], 0), nb_e4m3x2_to_f16x2(codes[n][w], 1));
        }
      }
    } else {
#pragma unroll
      for (int w = 0; w < WORDS; w += 2) {
        nb_load_shared<2 * NT>(q[w / 2], queries + (c * WORDS + w) / 2 * (256 * NT));
#pragma unroll
        for (int n = 0; n < 2 * TILES; n++) multiply(n, w / 2, codes[n][w], codes[n][(w + 1) % WORDS]);
      }
    }
  }
}

// Adds one step's values to the output: o[block][n tile] += V^T P^T.
NB_DEVICE void accumulateStep(uint32_t stage, int lane, int j, const uint32_t (&p)[TILES][NT][2], float (&o)[BLOCKS][NT][4]) {
  constexpr int WORDS = VALUE_CHUNK / 4;
  constexpr int CHUNKS = VALUE_PART / VALUE_CHUNK;
#pragma unroll
  for (int t = 0; t < TILES; t++) {
    uint32_t codes[CHUNKS][WORDS];
    uint32_t at = stage + t * TILE + KEY_CODES + KEY_SCALES;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) nb_load_shared<WORDS>(codes[c], at + c * (32 * VALUE_CHUNK) + lane * VALUE_CHUNK);
    auto word = [&](int i) { return codes[i / WORDS][i % WORDS]; };
    auto multiply = [&](int b, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3) {
#pragma unroll
      for (int n = 0; n < NT; n++) ValueCodec::mma(o[b][n], a0, a1, a2, a3, p[t][n][0], p[t][n][1]);
    };
    if constexpr (ValueCodec::isFP4) {
      constexpr int BYTES = D / ValueCodec::block * 4, SCALE_CHUNK = chunk(BYTES), SCALE_WORDS = SCALE_CHUNK / 4;
      uint32_t scales[BYTES / SCALE_CHUNK][SCALE_WORDS];
#pragma unroll
      for (int c = 0; c < BYTES / SCALE_CHUNK; c++) {
        nb_load_shared<SCALE_WORDS>(scales[c], at + VALUE_CODES + j * BYTES + c * SCALE_CHUNK);
      }
#pragma unroll
      for (int u = 0; u < BLOCKS / 2; u++) {
        uint32_t f[2][4];
        ValueCodec::unpack(word(2 * u), f[0]);
        ValueCodec::unpack(word(2 * u + 1), f[1]);
#pragma unroll
        for (int b = 2 * u; b < 2 * u + 2; b++) {
          int block = b * 16 / ValueCodec::block, i = 2 * (b & 1);
          uint32_t bytes = scales[block / SCALE_WORDS][block % SCALE_WORDS];
          uint32_t s0 = ValueCodec::scales(bytes, 0), s1 = ValueCodec::scales(bytes, 1);
          multiply(b, ValueCodec::scale(f[0][i], s0), ValueCodec::scale(f[0][i + 1], s0), ValueCodec::scale(f[1][i], s1),
                   ValueCodec::scale(f[1][i + 1], s1));
        }
      }
    } else if constexpr (ValueCodec::isFP8) {
#pragma unroll
      for (int b = 0; b < BLOCKS; b++) {
        uint32_t w0 = word(2 * b), w1 = word(2 * b + 1);
        multiply(b, nb_e4m3x2_to_f16x2(w0, 0), nb_e4m3x2_to_f16x2(w0, 1), nb_e4m3x2_to_f16x2(w1, 0), nb_e4m3x2_to_f16x2(w1, 1));
      }
    } else {
#pragma unroll
      for (int b = 0; b < BLOCKS; b++) multiply(b, word(4 * b), word(4 * b + 1), word(4 * b + 2), word(4 * b + 3));
    }
  }
}

// Zeroes this thread's value codes of tokens at and after `end` in a stage: what was never written may decode to NaN, and 0 * NaN is NaN.
NB_DEVICE void clearValues(uint32_t stage, int lane, int j, int firstToken, int end) {
  constexpr int WORDS = VALUE_PART / 4;
  for (int i = 0; i < TILES * WORDS; i++) {
    int t = i / WORDS, w = i % WORDS, pair = ValueCodec::bits == 16 ? w / 2 % 2 : w % 2;
    int token = firstToken + 16 * t + 8 * pair + 2 * j;
    uint32_t keep = ValueCodec::isFP8 ? (token < end ? 0x00FF00FFu : 0) | (token + 1 < end ? 0xFF00FF00u : 0)
                                      : (token < end ? 0x0000FFFFu : 0) | (token + 1 < end ? 0xFFFF0000u : 0);
    int byte = w * 4;
    uint32_t at = stage + t * TILE + KEY_CODES + KEY_SCALES + byte / VALUE_CHUNK * (32 * VALUE_CHUNK) + lane * VALUE_CHUNK + byte % VALUE_CHUNK;
    nb_store_shared_u32(at, nb_load_shared_u32(at) & keep);
  }
  if constexpr (ValueCodec::isFP4) {  // scales are read by eight threads each
    constexpr int PER_THREAD = D / ValueCodec::block;
    for (int i = lane; i < TILES * 4 * PER_THREAD; i += 32) {
      int t = i / (4 * PER_THREAD), word = i % (4 * PER_THREAD), token = firstToken + 16 * t + 2 * (word / PER_THREAD);
      uint32_t keep = (token < end ? 0xFFu : 0) | (token + 1 < end ? 0xFF00u : 0) | (token + 8 < end ? 0xFF0000u : 0) |
                      (token + 9 < end ? 0xFF000000u : 0);
      uint32_t at = stage + t * TILE + KEY_CODES + KEY_SCALES + VALUE_CODES + word * 4;
      nb_store_shared_u32(at, nb_load_shared_u32(at) & keep);
    }
    __syncwarp();
  }
}

}  // namespace
