// The CUDA sources of Nibble, embedded at build time.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "nibble_kernels.h"
#include "nibble_latent.h"

/// One source file, as the run-time compiler gets it.
typedef struct nb_kernel_source {
  const char *name;      ///< file name, "paged_decode.cu"
  const uint8_t *bytes;  ///< text, not zero-terminated
  size_t byte_count;
} nb_kernel_source;

size_t nb_kernel_source_count(void);

/// The source with this number, below the count.
const nb_kernel_source *nb_kernel_source_at(size_t index);
