// Decode attention by ggml, flash and plain (products and a softmax, which takes quantised keys with f16 values only): one token, 16 query
// heads, 4 KV heads, head_dim 128, 4 layers of random rows; best and median. Build against llama.cpp's static libraries (llama-cpp-python's source distribution has its sources):
//   g++ -O2 -I$LLAMA/ggml/include ggml-attention.cpp -Wl,--start-group $BUILD/ggml/src/*.a -Wl,--end-group -fopenmp -lpthread -ldl
// Usage: ggml-attention [context] [threads] [rounds]
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>
static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 131072, threads = argc > 2 ? atoi(argv[2]) : 2,
      rounds = argc > 3 ? atoi(argv[3]) : 15;
  const int D = 128, H = 16, HK = 4, L = 4;
  ggml_backend_t be = ggml_backend_cpu_init();
  ggml_backend_cpu_set_n_threads(be, threads);
  struct CacheType {
    ggml_type t;
    const char *name;
    bool flash;
  };
  CacheType types[] = {{GGML_TYPE_F16, "f16", true},     {GGML_TYPE_Q8_0, "q8_0", true},
                       {GGML_TYPE_Q4_0, "q4_0", true},   {GGML_TYPE_F16, "f16+f16", false},
                       {GGML_TYPE_Q8_0, "q8_0+f16", false}, {GGML_TYPE_Q4_0, "q4_0+f16", false}};
  for (auto &T : types) {
    ggml_init_params p = {ggml_tensor_overhead() * 256 + ggml_graph_overhead(), nullptr, true};
    ggml_context *c = ggml_init(p);
    ggml_cgraph *g = ggml_new_graph(c);
    std::vector<ggml_tensor *> k, v, q;
    ggml_tensor *mask = ggml_new_tensor_4d(c, GGML_TYPE_F16, n, 64, 1, 1);
    for (int l = 0; l < L; l++) {
      // llama.cpp's cache: [D*HK, n] rows a token, viewed as [D, n, HK]; plain attention has values transposed, [n, D*HK]
      auto K = ggml_new_tensor_2d(c, T.t, D * HK, n),
           V = T.flash ? ggml_new_tensor_2d(c, T.t, D * HK, n) : ggml_new_tensor_2d(c, GGML_TYPE_F16, n, D * HK);
      auto Q = ggml_new_tensor_4d(c, GGML_TYPE_F32, D, 1, H, 1);
      k.push_back(K);
      v.push_back(V);
      q.push_back(Q);
      size_t row = ggml_row_size(T.t, D * HK), head = ggml_row_size(T.t, D);
      auto Kv = ggml_view_4d(c, K, D, n, HK, 1, row, head, row * n, 0);
      if (!T.flash) {
        auto Vt = ggml_view_3d(c, V, n, D, HK, 2 * (size_t)n, 2 * (size_t)n * D, 0);
        auto scores = ggml_mul_mat(c, Kv, Q);
        auto weights = ggml_soft_max_ext(c, scores, mask, 1 / sqrtf(D), 0);
        ggml_build_forward_expand(g, ggml_cont(c, ggml_permute(c, ggml_mul_mat(c, Vt, weights), 0, 2, 1, 3)));
        continue;
      }
      auto Vv = ggml_view_4d(c, V, D, n, HK, 1, row, head, row * n, 0);
      auto o = ggml_flash_attn_ext(c, Q, Kv, Vv, mask, 1 / sqrtf(D), 0, 0);
      ggml_flash_attn_ext_set_prec(o, GGML_PREC_F32);
      ggml_build_forward_expand(g, o);
    }
    ggml_backend_buffer_t buf = ggml_backend_alloc_ctx_tensors(c, be);
    std::mt19937 rng(1);
    std::normal_distribution<float> N;
    std::vector<float> base(1 << 20);
    for (auto &x : base)
      x = N(rng);
    for (int l = 0; l < L; l++)
      for (auto t : {k[l], v[l]}) {
        std::vector<float> rows(D * HK * 1024);
        size_t row = ggml_row_size(t->type, D * HK); // transposed or not: random rows
        std::vector<char> enc(row * 1024);
        for (int i = 0; i < n; i += 1024) {
          int m = std::min(1024, n - i);
          size_t at = rng() % (base.size() - D * HK * 1024 + 1);
          for (size_t j = 0; j < (size_t)D * HK * m; j++)
            rows[j] = base[at + j];
          ggml_quantize_chunk(t->type, rows.data(), enc.data(), 0, m, D * HK, nullptr);
          ggml_backend_tensor_set(t, enc.data(), row * i, row * m);
        }
      }
    for (auto t : q)
      ggml_backend_tensor_set(t, base.data(), 0, D * H * 4);
    std::vector<uint16_t> zero((size_t)n * 64, 0);
    ggml_backend_tensor_set(mask, zero.data(), 0, zero.size() * 2);
    std::vector<double> s;
    ggml_backend_graph_compute(be, g);
    for (int r = 0; r < rounds; r++) {
      double t = now();
      ggml_backend_graph_compute(be, g);
      s.push_back(now() - t);
    }
    std::sort(s.begin(), s.end());
    double per = 1e9 / L / HK / n;
    size_t bytes = ggml_row_size(T.t, D) + ggml_row_size(v[0]->type, D);
    printf("ggml %-5s %-8s context %d threads %d: best %.2f median %.2f ns a token and KV head, %.1f GB/s, %.1f ms a token "
           "of 4 layers\n",
           T.flash ? "flash" : "plain", T.name, n, threads, s[0] * per, s[s.size() / 2] * per, bytes / (s[0] * per), s[0] * 1e3);
    fflush(stdout);
    ggml_backend_buffer_free(buf);
    ggml_free(c);
  }
}
