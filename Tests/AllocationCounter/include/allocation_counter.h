// Counts the calling thread's allocations, for tests of what must not allocate.
#pragma once

#include <stdint.h>

/// The number of allocations of the calling thread so far; it goes on counting. NULL where allocations can't be counted: without
/// glibc, and under sanitizers, which bring an allocator of their own.
const uint64_t *nb_thread_allocations(void);
