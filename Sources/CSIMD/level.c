#include "csimd.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"portable", "avx2", "avx512"};

int nb_arithmetic_version(void) { return 5; }

nb_level nb_level_supported(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")))
    return NB_LEVEL_PORTABLE;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16"))
    return NB_LEVEL_AVX512;
  return NB_LEVEL_AVX2;
#else
  return NB_LEVEL_PORTABLE;
#endif
}

// Returns the requested level, or -1 without a request, or -2 for one that cannot be honoured.
static int requested_level(void) {
  const char *value = getenv("NIBBLE_SIMD_LEVEL");
  if (value == NULL || value[0] == '\0') return -1;
  for (int level = 0; level <= (int)nb_level_supported(); level++)
    if (strcmp(value, names[level]) == 0) return level;
  return -2;
}

nb_level nb_level_active(void) {
  static int cached = -1; // benign race: every thread computes the same value
  int level = __atomic_load_n(&cached, __ATOMIC_RELAXED);
  if (level < 0) {
    int request = requested_level();
    level = request >= 0 ? request : (int)nb_level_supported();
    __atomic_store_n(&cached, level, __ATOMIC_RELAXED);
  }
  return (nb_level)level;
}

int nb_level_override_rejected(void) { return requested_level() == -2; }

const char *nb_level_name(nb_level level) {
  return level >= NB_LEVEL_PORTABLE && level <= NB_LEVEL_AVX512 ? names[level] : "unknown";
}
