// Loads of weights and activations in vector extensions, compiled once per instruction-set level: the including file
// defines NAME(x).

static inline vf16 NAME(load_weights)(nb_weight_type type, const void *row, int64_t k) {
  if (type == NB_WEIGHT_BF16) {
    vu16 bits;
    memcpy(&bits, (const uint16_t *)row + k, sizeof bits);
    vu32 wide = __builtin_convertvector(bits, vu32) << 16;
    vf16 values;
    memcpy(&values, &wide, sizeof values);
    return values;
  }
  if (type == NB_WEIGHT_F16) {
    vh16 half;
    memcpy(&half, (const uint16_t *)row + k, sizeof half);
    return __builtin_convertvector(half, vf16);
  }
  vf16 values;
  memcpy(&values, (const float *)row + k, sizeof values);
  return values;
}

// The first `count` < 16 weights from k on; the rest is zero.
static inline vf16 NAME(load_weights_tail)(nb_weight_type type, const void *row, int64_t k, int64_t count) {
  size_t size = type == NB_WEIGHT_F32 ? 4 : 2;
  uint8_t padded[64] = {0};
  memcpy(padded, (const uint8_t *)row + k * size, count * size);
  return NAME(load_weights)(type, padded, 0);
}

static inline vf16 NAME(load)(const float *x) {
  vf16 values;
  memcpy(&values, x, sizeof values);
  return values;
}

static inline vf16 NAME(load_tail)(const float *x, int64_t count) {
  float padded[16] = {0};
  memcpy(padded, x, count * sizeof(float));
  return NAME(load)(padded);
}

