#include "ckernelsources.h"

// One array a file: #embed can't stand in a macro. A test checks that no file of Kernels is missing in the table.
static const uint8_t nibble_kernels_h[] = {
#embed "include/nibble_kernels.h"
};
static const uint8_t codecs_cuh[] = {
#embed "Kernels/codecs.cuh"
};
static const uint8_t decode_cu[] = {
#embed "Kernels/decode.cu"
};
static const uint8_t decode_layout_cuh[] = {
#embed "Kernels/decode_layout.cuh"
};
static const uint8_t decode_merge_cuh[] = {
#embed "Kernels/decode_merge.cuh"
};
static const uint8_t decode_plan_cuh[] = {
#embed "Kernels/decode_plan.cuh"
};
static const uint8_t decode_queries_cuh[] = {
#embed "Kernels/decode_queries.cuh"
};
static const uint8_t decode_step_cuh[] = {
#embed "Kernels/decode_step.cuh"
};
static const uint8_t dequantize_cu[] = {
#embed "Kernels/dequantize.cu"
};
static const uint8_t fp4_rows_cuh[] = {
#embed "Kernels/fp4_rows.cuh"
};
static const uint8_t pipeline_cuh[] = {
#embed "Kernels/pipeline.cuh"
};
static const uint8_t ptx_cuh[] = {
#embed "Kernels/ptx.cuh"
};
static const uint8_t bandwidth_cu[] = {
#embed "Kernels/bandwidth.cu"
};
static const uint8_t rows_cuh[] = {
#embed "Kernels/rows.cuh"
};
static const uint8_t store_cu[] = {
#embed "Kernels/store.cu"
};

#define SOURCE(name, bytes) {name, bytes, sizeof bytes}

static const nb_kernel_source sources[] = {
    SOURCE("nibble_kernels.h", nibble_kernels_h),
    SOURCE("codecs.cuh", codecs_cuh),
    SOURCE("decode.cu", decode_cu),
    SOURCE("decode_layout.cuh", decode_layout_cuh),
    SOURCE("decode_merge.cuh", decode_merge_cuh),
    SOURCE("decode_plan.cuh", decode_plan_cuh),
    SOURCE("decode_queries.cuh", decode_queries_cuh),
    SOURCE("decode_step.cuh", decode_step_cuh),
    SOURCE("dequantize.cu", dequantize_cu),
    SOURCE("fp4_rows.cuh", fp4_rows_cuh),
    SOURCE("pipeline.cuh", pipeline_cuh),
    SOURCE("ptx.cuh", ptx_cuh),
    SOURCE("bandwidth.cu", bandwidth_cu),
    SOURCE("rows.cuh", rows_cuh),
    SOURCE("store.cu", store_cu),
};

size_t nb_kernel_source_count(void) { return sizeof sources / sizeof sources[0]; }

const nb_kernel_source *nb_kernel_source_at(size_t index) { return &sources[index]; }
