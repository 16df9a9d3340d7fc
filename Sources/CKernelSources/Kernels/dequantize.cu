// Decodes the pages of one request into dense rows, for kernels that want BF16.
//
// A block takes one tile of one head: it comes to shared memory as one piece, and a thread decodes eight values of one row of keys and
// of values and writes them with 16-byte stores, coalesced.
#include "rows.cuh"

namespace {

constexpr int D = NB_DIM, OCTETS = D / 8, THREADS = NB_TILE_TOKENS * OCTETS;  // nb_row_threads

template <int RECIPE, bool KEYS>
NB_DEVICE void decodeOctet(const uint8_t *at, float g, int token, int octet, float (&x)[8]) {
  using Row = nb_row<RECIPE>;
  if constexpr (Row::isFP4) {
    const int block = octet * 8 / Row::block, slot = octet % 4;
    int place = KEYS ? nb_key_scale_byte(RECIPE, D, token, block) : nb_value_scale_byte(RECIPE, D, token, block);
    uint32_t byte = at[nb_tile_code_bytes(RECIPE, D) + place];
    float scale = Row::isNVFP4 ? nb_e4m3_decode(byte) : nb_power_of_two((int)byte - 127);
    if constexpr (KEYS) {
      uint32_t units = *(const uint32_t *)(at + nb_unit_byte(true, D, token, octet / 4, 2 * slot));
#pragma unroll
      for (int i = 0; i < 8; i++) x[i] = nb_e2m1_decode(nb_unit_code<RECIPE>(i % 4, units >> (16 * (i / 4))));
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++)
        x[i] = nb_e2m1_decode(nb_unit_code<RECIPE>(slot, *(const uint16_t *)(at + nb_unit_byte(false, D, token, octet / 4, i))));
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = __fmul_rn(x[i], scale);
  } else {
    if constexpr (KEYS) {
      const uint8_t *p = at + nb_key_position(RECIPE, D, token, 8 * octet).byte;
      if constexpr (RECIPE == NB_KERNEL_BF16) {
        uint4 u = *(const uint4 *)p;
        uint32_t w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = nb_bf16_to_f32((uint16_t)(w[i / 2] >> (16 * (i % 2))));
      } else {
        uint2 u = *(const uint2 *)p;
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = nb_e4m3_decode((i < 4 ? u.x : u.y) >> (8 * (i % 4)) & 0xFFu);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const uint8_t *p = at + nb_value_position(RECIPE, D, token, 8 * octet + i).byte;
        if constexpr (RECIPE == NB_KERNEL_BF16) x[i] = nb_bf16_to_f32(*(const uint16_t *)p);
        else x[i] = nb_e4m3_decode(*p);
      }
    }
  }
  if (RECIPE == NB_KERNEL_FP8_E4M3 || Row::isNVFP4) {
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = __fmul_rn(x[i], g);
  }
}

// A thread's eight values of one row, from the tile in shared memory to the dense rows.
template <int RECIPE, bool KEYS>
NB_DEVICE void writeOctet(const nb_dequantize_arguments &a, const uint8_t *at, int token, int row, int head) {
  const int octet = threadIdx.x % OCTETS;
  const uint64_t rows = KEYS ? a.keys : a.values;
  if (rows == 0) return;
  float x[8];
  decodeOctet<RECIPE, KEYS>(at, KEYS ? a.key_scale : a.value_scale, token, octet, x);
  const int64_t element = ((int64_t)row * a.kv_heads + head) * D + 8 * octet;
  if (a.output_type == NB_KERNEL_TYPE_F32) {
    float4 *p = (float4 *)((float *)rows + element);
    __stcs(p, make_float4(x[0], x[1], x[2], x[3]));
    __stcs(p + 1, make_float4(x[4], x[5], x[6], x[7]));
  } else {
    __stcs((uint4 *)((uint16_t *)rows + element),
           make_uint4(nb_pack_bf16(x[0], x[1]), nb_pack_bf16(x[2], x[3]), nb_pack_bf16(x[4], x[5]), nb_pack_bf16(x[6], x[7])));
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS) nb_dequantize(const __grid_constant__ nb_dequantize_arguments a) {
  __shared__ uint4 image[D * 4];  // 16 rows of BF16 keys and values
  const nb_tile tile = nb_tile_of(NB_RECIPE_K, NB_RECIPE_V, D);
  const int head = blockIdx.y, last = (a.first_token + a.tokens - 1) / NB_TILE_TOKENS;
  for (int i = a.first_token / NB_TILE_TOKENS + blockIdx.x; i <= last; i += gridDim.x) {
    const int start = i * NB_TILE_TOKENS;
    const int64_t page = __ldg((const int32_t *)a.page_table + (start >> a.page_shift));
    const uint4 *from = (const uint4 *)((const uint8_t *)a.cache + page * a.page_stride +
                                        nb_tile_offset(tile.bytes, a.page_shift, head, start & ((1 << a.page_shift) - 1)));
    uint4 words[(D * 4 + THREADS - 1) / THREADS];
#pragma unroll
    for (int k = 0; k < sizeof words / 16; k++) {
      const int w = threadIdx.x + k * THREADS;
      words[k] = w < tile.bytes / 16 ? __ldcs(from + w) : make_uint4(0, 0, 0, 0);
    }
    __syncthreads();  // the last tile has been read
#pragma unroll
    for (int k = 0; k < sizeof words / 16; k++) {
      const int w = threadIdx.x + k * THREADS;
      if (w < tile.bytes / 16) image[w] = words[k];
    }
    __syncthreads();
    const int token = threadIdx.x / OCTETS, row = start + token - a.first_token;
    if (row < 0 || row >= a.tokens) continue;
    writeOctet<NB_RECIPE_K, true>(a, (const uint8_t *)image + tile.key_codes, token, row, head);
    writeOctet<NB_RECIPE_V, false>(a, (const uint8_t *)image + tile.value_codes, token, row, head);
  }
}
