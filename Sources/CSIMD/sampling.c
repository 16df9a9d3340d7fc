// Weights of tokens. One code for all levels: 16 lanes that the compiler maps to whatever vectors it has, summed in a
// fixed order.
#include "csimd_level.h"
#include "csimd_sampling.h"

#include <math.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

enum { LANES = 16 };

// exp(x) for x <= 0: 2^n * e^r with n = round(x log2 e), found by adding and taking away 1.5 * 2^23, and e^r on |r| <=
// ln(2) / 2 by its Taylor polynomial. exp(0) is exactly 1.
static inline float exp_negative(float x) {
  const float magic = 12582912.0f;
  float clamped = x < -87.0f ? -87.0f : x;
  float shifted = clamped * 1.44269504f + magic;
  float n = shifted - magic;
  // ln 2 in two parts, so that the remainder keeps its bits (Cody and Waite).
  float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  uint32_t bits;
  memcpy(&bits, &shifted, 4);
  bits = (bits - 0x4B400000u + 127u) << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return x < -87.0f ? 0.0f : p * scale;
}

static inline float weight(const nb_token_weights *weights, float logit) {
  float value = exp_negative((logit - weights->best) * weights->inverse_temperature);
  return value < weights->minimum ? 0.0f : value;
}

float nb_token_weight(const nb_token_weights *weights, int64_t token) {
  return weight(weights, weights->logits[token]);
}

double nb_token_weights_sum(const nb_token_weights *weights, double *blocks) {
  double total = 0;
  for (int64_t start = 0; start < weights->count; start += NB_TOKEN_WEIGHT_BLOCK) {
    int64_t end = start + NB_TOKEN_WEIGHT_BLOCK < weights->count ? start + NB_TOKEN_WEIGHT_BLOCK : weights->count;
    float lanes[LANES] = {0};
    int64_t token = start;
    for (; token + LANES <= end; token += LANES)
      for (int lane = 0; lane < LANES; lane++) lanes[lane] += weight(weights, weights->logits[token + lane]);
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    for (; token < end; token++) sum += weight(weights, weights->logits[token]);
    blocks[start / NB_TOKEN_WEIGHT_BLOCK] = sum;
    total += sum;
  }
  return total;
}

static inline __attribute__((always_inline)) int64_t maximum(const float *logits, int64_t count) {
  float best = -INFINITY;
  int64_t best_start = -1;
  uint32_t nan = 0;
  for (int64_t start = 0; start < count; start += NB_TOKEN_WEIGHT_BLOCK) {
    int64_t end = start + NB_TOKEN_WEIGHT_BLOCK < count ? start + NB_TOKEN_WEIGHT_BLOCK : count;
    float lanes[LANES];
    uint32_t nans[LANES] = {0};
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = -INFINITY;
    int64_t token = start;
    for (; token + LANES <= end; token += LANES)
      for (int lane = 0; lane < LANES; lane++) {
        float logit = logits[token + lane];
        lanes[lane] = logit > lanes[lane] ? logit : lanes[lane];
        nans[lane] |= logit != logit;
      }
    float block = -INFINITY;
    for (int lane = 0; lane < LANES; lane++) {
      block = lanes[lane] > block ? lanes[lane] : block;
      nan |= nans[lane];
    }
    for (; token < end; token++) {
      block = logits[token] > block ? logits[token] : block;
      nan |= logits[token] != logits[token];
    }
    if (block > best) {
      best = block;
      best_start = start;
    }
  }
  if (nan || best_start < 0 || best == INFINITY) return -1;
  // Only the first block that has the maximum is searched again.
  while (logits[best_start] != best) best_start++;
  return best_start;
}

#if defined(__x86_64__)
// The same code, compiled for wider registers.
__attribute__((target("avx2"))) static int64_t maximum_avx2(const float *logits, int64_t count) {
  return maximum(logits, count);
}
#endif

int64_t nb_logits_maximum(const float *logits, int64_t count) {
#if defined(__x86_64__)
  if (nb_level_active() != NB_LEVEL_PORTABLE) return maximum_avx2(logits, count);
#endif
  return maximum(logits, count);
}
