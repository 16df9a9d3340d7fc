#include "ckernelsources.h"

// One array a file: #embed can't stand in a macro. A test checks that no file of Kernels is missing in the table.
static const uint8_t nibble_kernels_h[] = {
#embed "include/nibble_kernels.h"
};
static const uint8_t nibble_latent_h[] = {
#embed "include/nibble_latent.h"
};
static const uint8_t activations_cuh[] = {
#embed "Kernels/activations.cuh"
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
static const uint8_t latent_decode_cu[] = {
#embed "Kernels/latent_decode.cu"
};
static const uint8_t latent_merge_cu[] = {
#embed "Kernels/latent_merge.cu"
};
static const uint8_t latent_mma_cuh[] = {
#embed "Kernels/latent_mma.cuh"
};
static const uint8_t latent_plan_cuh[] = {
#embed "Kernels/latent_plan.cuh"
};
static const uint8_t latent_produce_cuh[] = {
#embed "Kernels/latent_produce.cuh"
};
static const uint8_t latent_queries_cuh[] = {
#embed "Kernels/latent_queries.cuh"
};
static const uint8_t latent_store_cu[] = {
#embed "Kernels/latent_store.cu"
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
    SOURCE("nibble_latent.h", nibble_latent_h),
    SOURCE("activations.cuh", activations_cuh),
    SOURCE("codecs.cuh", codecs_cuh),
    SOURCE("decode.cu", decode_cu),
    SOURCE("decode_layout.cuh", decode_layout_cuh),
    SOURCE("decode_merge.cuh", decode_merge_cuh),
    SOURCE("decode_plan.cuh", decode_plan_cuh),
    SOURCE("decode_queries.cuh", decode_queries_cuh),
    SOURCE("decode_step.cuh", decode_step_cuh),
    SOURCE("dequantize.cu", dequantize_cu),
    SOURCE("fp4_rows.cuh", fp4_rows_cuh),
    SOURCE("latent_decode.cu", latent_decode_cu),
    SOURCE("latent_merge.cu", latent_merge_cu),
    SOURCE("latent_mma.cuh", latent_mma_cuh),
    SOURCE("latent_plan.cuh", latent_plan_cuh),
    SOURCE("latent_produce.cuh", latent_produce_cuh),
    SOURCE("latent_queries.cuh", latent_queries_cuh),
    SOURCE("latent_store.cu", latent_store_cu),
    SOURCE("pipeline.cuh", pipeline_cuh),
    SOURCE("ptx.cuh", ptx_cuh),
    SOURCE("bandwidth.cu", bandwidth_cu),
    SOURCE("rows.cuh", rows_cuh),
    SOURCE("store.cu", store_cu),
};

size_t nb_kernel_source_count(void) { return sizeof sources / sizeof sources[0]; }

const nb_kernel_source *nb_kernel_source_at(size_t index) { return &sources[index]; }
