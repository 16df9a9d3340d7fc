// Umbrella of the C kernels. Every kernel exists at each instruction-set level and is reached through functions that
// take the level, so that tests can run them all in one process; `nb_level_active()` is what the program itself uses.
#pragma once

#include "csimd_attention.h"
#include "csimd_bandwidth.h"
#include "csimd_codec.h"
#include "csimd_dense.h"
#include "csimd_experts.h"
#include "csimd_level.h"
#include "csimd_record.h"
#include "csimd_sampling.h"
#include "csimd_types.h"
#include "csimd_workers.h"
