// The products of latent decode attention on the tensor cores: scores of 64 rows and a step of tokens, and weights times latents.
//
// Hopper's asynchronous wgmma reads keys, queries and, transposed, latents straight from shared memory. Elsewhere the same rows and fragments
// go through ldmatrix and mma.m16n8k16, step by step; a warp has 16 of the rows either way.
#pragma once

#include "latent_plan.cuh"

namespace {

constexpr int VALUE_TILES = LATENT / 2 / 8;  // accumulators of 8 values that a group of warps has: it takes half of the latent

#if NB_WGMMA

// A tile of rows of 128 bytes, swizzled. By rows: `stride` bytes from eight rows to the next eight. Transposed: the rows are the
// sum's, `leading` bytes from 64 columns to the next 64.
NB_DEVICE uint64_t matrixOf(uint32_t address, uint32_t leading, uint32_t stride) {
  return (uint64_t)(address >> 4 & 0x3FFF) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 | (uint64_t)1 << 62;
}

NB_DEVICE void nb_mma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
NB_DEVICE void nb_mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
NB_DEVICE void nb_mma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Keeps the compiler from moving accumulators about while products are under way.
template <int N>
NB_DEVICE void nb_mma_settle(float (&d)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

#define NB_FOUR(x) "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
#define NB_SCORES(TYPE)                                                                              \
  asm volatile(                                                                                      \
      "{.reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE " {"  \
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
      "%27,%28,%29,%30,%31" \
      "}, %32, %33, p, 1, 1, 0, 0;}"                                                                 \
      : NB_FOUR(s[0]), NB_FOUR(s[1]), NB_FOUR(s[2]), NB_FOUR(s[3]), NB_FOUR(s[4]), NB_FOUR(s[5]), NB_FOUR(s[6]), NB_FOUR(s[7])                               \
      : "l"(q), "l"(k), "r"(adds))
#define NB_VALUES(TYPE)                                                                              \
  asm volatile(                                                                                      \
      "{.reg .pred p; setp.ne.b32 p, %133, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE " {" \
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
      "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50," \
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74," \
      "%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98," \
      "%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118," \
      "%119,%120,%121,%122,%123,%124,%125,%126,%127" \
      "}, {%128,%129,%130,%131}, %132, p, 1, 1, 1;}"                                                 \
      : NB_FOUR(o[0]), NB_FOUR(o[1]), NB_FOUR(o[2]), NB_FOUR(o[3]), NB_FOUR(o[4]), NB_FOUR(o[5]), NB_FOUR(o[6]), NB_FOUR(o[7]), \
        NB_FOUR(o[8]), NB_FOUR(o[9]), NB_FOUR(o[10]), NB_FOUR(o[11]), NB_FOUR(o[12]), NB_FOUR(o[13]), NB_FOUR(o[14]), NB_FOUR(o[15]), \
        NB_FOUR(o[16]), NB_FOUR(o[17]), NB_FOUR(o[18]), NB_FOUR(o[19]), NB_FOUR(o[20]), NB_FOUR(o[21]), NB_FOUR(o[22]), NB_FOUR(o[23]), \
        NB_FOUR(o[24]), NB_FOUR(o[25]), NB_FOUR(o[26]), NB_FOUR(o[27]), NB_FOUR(o[28]), NB_FOUR(o[29]), NB_FOUR(o[30]), NB_FOUR(o[31]) \
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v), "r"(1))

template <bool WIDE>
NB_DEVICE void scoreProduct(float (&s)[STEP / 8][4], uint64_t q, uint64_t k, int adds) {
  if constexpr (WIDE) NB_SCORES("bf16.bf16"); else NB_SCORES("f16.f16");
}
template <bool WIDE>
NB_DEVICE void valueProduct(float (&o)[VALUE_TILES][4], const uint32_t (&p)[4], uint64_t v) {
  if constexpr (WIDE) NB_VALUES("bf16.bf16"); else NB_VALUES("f16.f16");
}

// s = Q K^T of one step.
NB_DEVICE void startScores(float (&s)[STEP / 8][4], uint32_t queries, uint32_t keys) {
  const uint64_t q = matrixOf(queries, 16, 1024), k = matrixOf(keys, 16, 1024);
#pragma unroll
  for (int i = 0; i < DIM / 16; i++) {
    const int block = i / 4, inside = i % 4 * 32;
    const uint64_t qi = q + ((block * ROWS * 128 + inside) >> 4), ki = k + ((block * STEP * 128 + inside) >> 4);
    if (i < LATENT / 16) {
      scoreProduct<LatentCodec::wide>(s, qi, ki, i > 0);
    } else {
      scoreProduct<RopeCodec::wide>(s, qi, ki, 1);
    }
  }
}

// o += P V of one step and one half of the latent.
NB_DEVICE void startValues(float (&o)[VALUE_TILES][4], const uint32_t (&p)[STEP / 16][4], uint32_t keys, int half) {
  const uint64_t v = matrixOf(keys + half * (LATENT / 2 / 64) * (STEP * 128), STEP * 128, 1024);
#pragma unroll
  for (int i = 0; i < STEP / 16; i++) valueProduct<LatentCodec::wide>(o, p[i], v + (i * 2048 >> 4));
}

#else

NB_DEVICE void nb_mma_begin() {}
NB_DEVICE void nb_mma_commit() {}
template <int PENDING>
NB_DEVICE void nb_mma_wait() {}
template <int N>
NB_DEVICE void nb_mma_settle(float (&)[N][4]) {}

// Four 8 x 8 matrices of halves; each lane has the address of one of their rows.
NB_DEVICE void loadMatrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
NB_DEVICE void loadTransposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

NB_DEVICE void startScores(float (&s)[STEP / 8][4], uint32_t queries, uint32_t keys) {
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < STEP / 8; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll 4
  for (int i = 0; i < DIM / 16; i++) {
    uint32_t a[4], b[4];
    loadMatrices(a, queries + unitOffset<ROWS>(16 * warp + lane % 16, 2 * i + lane / 16));
#pragma unroll
    for (int n = 0; n < STEP / 16; n++) {
      loadMatrices(b, keys + unitOffset<STEP>(16 * n + lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2));
      if (i < LATENT / 16) {
        LatentCodec::mma(s[2 * n], a[0], a[1], a[2], a[3], b[0], b[1]);
        LatentCodec::mma(s[2 * n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
      } else {
        RopeCodec::mma(s[2 * n], a[0], a[1], a[2], a[3], b[0], b[1]);
        RopeCodec::mma(s[2 * n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
      }
    }
  }
}

NB_DEVICE void startValues(float (&o)[VALUE_TILES][4], const uint32_t (&p)[STEP / 16][4], uint32_t keys, int half) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < STEP / 16; i++) {
#pragma unroll
    for (int n = 0; n < VALUE_TILES / 2; n++) {
      uint32_t b[4];
      loadTransposed(b, keys + unitOffset<STEP>(16 * i + lane % 16, half * (LATENT / 16) + 2 * n + lane / 16));
      LatentCodec::mma(o[2 * n], p[i][0], p[i][1], p[i][2], p[i][3], b[0], b[1]);
      LatentCodec::mma(o[2 * n + 1], p[i][0], p[i][1], p[i][2], p[i][3], b[2], b[3]);
    }
  }
}

#endif

}  // namespace
