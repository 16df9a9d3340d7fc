#pragma once

#include <stdint.h>

/// How a row of logits becomes weights: exp((logit - best) * inverse_temperature), 0 where that is below `minimum`.
/// By a polynomial of IEEE operations in one order instead of the C library's exp, so that every machine draws the same
/// tokens.
typedef struct nb_token_weights {
  const float *logits;
  int64_t count;
  float best;                ///< the largest logit
  float inverse_temperature;
  float minimum;             ///< min-p
} nb_token_weights;

/// Tokens whose weights are summed in one go.
#define NB_TOKEN_WEIGHT_BLOCK 256

/// The weight of one token; the same bits as in the sums. exp's relative error is below 4e-7; below e^-87 it is 0.
float nb_token_weight(const nb_token_weights *weights, int64_t token);

/// Sums over blocks of NB_TOKEN_WEIGHT_BLOCK tokens, and returns the total.
double nb_token_weights_sum(const nb_token_weights *weights, double *blocks);

/// The first token with the largest logit; -1 if a logit is NaN or none is finite.
int64_t nb_logits_maximum(const float *logits, int64_t count);
