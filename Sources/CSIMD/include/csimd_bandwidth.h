// The yardstick of everything that is bound by memory: how fast bytes can be read.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Reads `count` bytes (whole multiples of 256; the rest is left out) with prefetch, and returns their bitwise or, so
/// that the reads can't be left out.
uint64_t nb_read_memory(const void *bytes, int64_t count);

#ifdef __cplusplus
}
#endif
