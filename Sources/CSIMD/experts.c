#include "csimd_experts.h"
#include "level_dispatch.h"

#include <string.h>

#pragma clang diagnostic ignored "-Wpsabi"

typedef float vf16 __attribute__((vector_size(64)));
typedef _Float16 vh16 __attribute__((vector_size(32)));
typedef uint16_t vu16 __attribute__((vector_size(32)));
typedef uint32_t vu32 __attribute__((vector_size(64)));

#define JOIN(a, b) a##_##b

#define NAME(x) JOIN(x, portable)
#include "weight_loads.inc.h"
#include "experts_kernels.inc.h"
#undef NAME

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define NAME(x) JOIN(x, avx2)
#include "weight_loads.inc.h"
#include "experts_kernels.inc.h"
#undef NAME
#pragma clang attribute pop

#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"), min_vector_width(512))),                \
    apply_to = function)
#define NAME(x) JOIN(x, avx512)
#include "weight_loads.inc.h"
#include "experts_kernels.inc.h"
#undef NAME
#pragma clang attribute pop
#endif

void nb_add_scaled(nb_level level, const float *x, float factor, int64_t count, float *out) {
  DISPATCH(level, add_scaled, x, factor, count, out);
}

void nb_multiply_rows(nb_level level, nb_weight_type type, const void *weights, int64_t width, int64_t first,
                      int64_t end, const float *x, int64_t x_stride, int64_t rows, float *y, int64_t y_stride,
                      int accumulate) {
  DISPATCH(level, multiply_rows, type, weights, width, first, end, x, x_stride, rows, y, y_stride, accumulate);
}

void nb_e4m3_rows(nb_level level, const nb_e4m3_weights *weights, int64_t first, int64_t end, float *out) {
  DISPATCH(level, e4m3_rows, weights, first, end, out);
}
