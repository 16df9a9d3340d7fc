// Calls the variant of a function that was compiled for a level: `function`_avx512, _avx2 or _portable.
#pragma once

#include "csimd_level.h"

#if defined(__x86_64__)
#define DISPATCH(level, function, ...)                                                                                 \
  switch (level) {                                                                                                     \
  case NB_LEVEL_AVX512: function##_avx512(__VA_ARGS__); break;                                                         \
  case NB_LEVEL_AVX2: function##_avx2(__VA_ARGS__); break;                                                             \
  default: function##_portable(__VA_ARGS__); break;                                                                    \
  }
#else
#define DISPATCH(level, function, ...)                                                                                 \
  do {                                                                                                                 \
    (void)(level);                                                                                                     \
    function##_portable(__VA_ARGS__);                                                                                  \
  } while (0)
#endif
