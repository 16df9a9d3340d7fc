#pragma once

/// Instruction-set levels, each a superset of the one before.
typedef enum nb_level {
  NB_LEVEL_PORTABLE = 0,  ///< C without intrinsics; also what arm64 runs
  NB_LEVEL_AVX2 = 1,      ///< AVX2, FMA, F16C
  NB_LEVEL_AVX512 = 2,    ///< AVX-512 F, BW, DQ, VL, VNNI, VBMI and BF16
} nb_level;

/// Version of the kernels' arithmetic, which saved prefixes carry. Raise it with every change that gives a result other
/// bits at any level: another order of sums, rounding, tile or chunk. Prefixes that older kernels made are then
/// refused.
int nb_arithmetic_version(void);

/// The best level that this processor and operating system can run.
nb_level nb_level_supported(void);

/// The level that the program uses: the best supported one, or a lower one if the environment variable
/// NIBBLE_SIMD_LEVEL names it (portable, avx2, avx512). An unknown or unsupported name is ignored;
/// `nb_level_override_rejected` tells.
nb_level nb_level_active(void);

/// Nonzero if NIBBLE_SIMD_LEVEL is set to a value that this machine cannot honour.
int nb_level_override_rejected(void);

/// "portable", "avx2" or "avx512".
const char *nb_level_name(nb_level level);
