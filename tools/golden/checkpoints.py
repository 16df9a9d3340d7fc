"""Small random checkpoints in the published layouts: config.json, and safetensors in one file or in two by index."""

import json
import pathlib

import torch
from safetensors.torch import save_file

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
BASE = dict(
    vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, rms_norm_eps=1e-6, rope_theta=10000.0,
    max_position_embeddings=256, hidden_act="silu", bos_token_id=None, eos_token_id=0, torch_dtype="bfloat16",
    tie_word_embeddings=False)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=64)
FP8 = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128])
YARN_MLA = YARN | dict(factor=8.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.7)


def dense(kind, **overrides):
    return BASE | dict(architectures=[f"{kind}ForCausalLM"], model_type=kind.lower()) | overrides


def deepseek(version, **overrides):
    return BASE | dict(
        architectures=[f"DeepseekV{version}ForCausalLM"], model_type=f"deepseek_v{version}", hidden_size=48,
        intermediate_size=64, moe_intermediate_size=16,
        kv_lora_rank=64, q_lora_rank=48, qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=32, n_shared_experts=1,
        n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True,
        first_k_dense_replace=1, moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc", attention_bias=False,
    ) | overrides


# name: (config, number of files)
CHECKPOINTS = {
    "llama-rope-llama3": (dense("Llama", num_attention_heads=4, num_key_value_heads=2, head_dim=32, rope_theta=500000.0,
                                rope_scaling=LLAMA3), 1),
    "llama-rope-linear": (dense("Llama", num_attention_heads=2, num_key_value_heads=2, torch_dtype="float16",
                                rope_scaling=dict(type="linear", factor=4.0), tie_word_embeddings=True), 1),
    "qwen2": (dense("Qwen2", num_attention_heads=4, num_key_value_heads=1, hidden_size=128, intermediate_size=32,
                    torch_dtype="float32", num_hidden_layers=1, vocab_size=96, tie_word_embeddings=True), 2),
    "qwen3": (dense("Qwen3", num_attention_heads=4, num_key_value_heads=2, head_dim=64, attention_bias=False,
                    rope_theta=1000000.0, intermediate_size=64), 2),
    "qwen3-rope-yarn": (dense("Qwen3", num_attention_heads=4, num_key_value_heads=1, head_dim=32, torch_dtype="float16",
                              rope_scaling=YARN), 1),
    "qwen3-moe": (dense("Qwen3", architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_attention_heads=4,
                        num_key_value_heads=2, head_dim=32, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=32,
                        norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[0]), 1),
    # Plain softmax routing, no query compression (the shape of V2-Lite).
    "deepseek-v2-lite": (deepseek(2, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=None, topk_method="greedy",
                                  n_group=1, topk_group=1, scoring_func="softmax", norm_topk_prob=False, n_shared_experts=2,
                                  routed_scaling_factor=1.0, rope_scaling=YARN_MLA), 1),
    "deepseek-v2": (deepseek(2, num_attention_heads=16, num_key_value_heads=16, topk_method="group_limited_greedy",
                             scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=4.0, qk_nope_head_dim=16,
                             v_head_dim=16), 1),
    "deepseek-v3": (deepseek(3, num_attention_heads=1, num_key_value_heads=1, rope_scaling=YARN_MLA | dict(mscale_all_dim=1.0),
                             num_nextn_predict_layers=1), 2),
    # Two layers for multi-token prediction, the second with an embedding and an output head of its own; 8 heads, three groups of
    # which two are used, queries not compressed.
    "deepseek-v3-mtp2": (deepseek(3, num_attention_heads=8, num_key_value_heads=8, q_lora_rank=None, num_hidden_layers=1,
                                  first_k_dense_replace=0, n_routed_experts=6, n_group=3, num_experts_per_tok=2,
                                  qk_nope_head_dim=16, v_head_dim=16, num_nextn_predict_layers=2, draft_layers_with_tables=[1]), 1),
    # 128 heads, and E4M3 weights with one factor per 128 x 128 block, as the published V3 files have.
    "deepseek-v3-fp8": (deepseek(3, num_attention_heads=128, num_key_value_heads=128, num_hidden_layers=1, q_lora_rank=32,
                                 kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=32, v_head_dim=8,
                                 first_k_dense_replace=0, n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2,
                                 quantization_config=FP8), 1),
    # Weights that end in the midst of a block, in both directions and where two are stacked.
    "deepseek-v3-fp8-ragged": (deepseek(3, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=2, hidden_size=200,
                                        intermediate_size=150, moe_intermediate_size=136, q_lora_rank=136, qk_nope_head_dim=48,
                                        v_head_dim=80, n_routed_experts=2, n_group=1, topk_group=1, num_experts_per_tok=1,
                                        quantization_config=FP8), 1),
}


def shapes(c):
    """Names and shapes of a checkpoint's tensors as the publishers write them."""
    h, layers = c["hidden_size"], c["num_hidden_layers"]
    yield "model.embed_tokens.weight", (c["vocab_size"], h)
    for layer in range(layers + c.get("num_nextn_predict_layers", 0)):
        p = f"model.layers.{layer}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        yield from latent_attention(c, p + "self_attn.") if "kv_lora_rank" in c else attention(c, p + "self_attn.")
        experts = c.get("n_routed_experts", c.get("num_experts", 0))
        if experts and layer >= c.get("first_k_dense_replace", 0) and layer not in c.get("mlp_only_layers", []):
            yield p + "mlp.gate.weight", (experts, h)
            if c.get("topk_method") == "noaux_tc":
                yield p + "mlp.gate.e_score_correction_bias", (experts,)
            for expert in range(experts):
                yield from feed_forward(p + f"mlp.experts.{expert}.", h, c["moe_intermediate_size"])
            if c.get("n_shared_experts"):
                yield from feed_forward(p + "mlp.shared_experts.", h, c["moe_intermediate_size"] * c["n_shared_experts"])
        else:
            yield from feed_forward(p + "mlp.", h, c["intermediate_size"])
        if layer >= layers:
            yield p + "enorm.weight", (h,)
            yield p + "hnorm.weight", (h,)
            yield p + "eh_proj.weight", (h, 2 * h)
            yield p + "shared_head.norm.weight", (h,)
            if layer - layers in c.get("draft_layers_with_tables", []):
                yield p + "embed_tokens.weight", (c["vocab_size"], h)
                yield p + "shared_head.head.weight", (c["vocab_size"], h)
    yield "model.norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], h)


def feed_forward(p, h, i):
    yield p + "gate_proj.weight", (i, h)
    yield p + "up_proj.weight", (i, h)
    yield p + "down_proj.weight", (h, i)


def attention(c, p):
    h, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    d = c.get("head_dim", h // heads)
    for name, rows in (("q", heads), ("k", kv), ("v", kv)):
        yield p + f"{name}_proj.weight", (rows * d, h)
        if c["model_type"] == "qwen2":
            yield p + f"{name}_proj.bias", (rows * d,)
    yield p + "o_proj.weight", (h, heads * d)
    if c["model_type"].startswith("qwen3"):
        yield p + "q_norm.weight", (d,)
        yield p + "k_norm.weight", (d,)


def latent_attention(c, p):
    h, heads, latent, rope = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"], c["qk_rope_head_dim"]
    nope, v, q = c["qk_nope_head_dim"], c["v_head_dim"], c["q_lora_rank"]
    if q is None:
        yield p + "q_proj.weight", (heads * (nope + rope), h)
    else:
        yield p + "q_a_proj.weight", (q, h)
        yield p + "q_a_layernorm.weight", (q,)
        yield p + "q_b_proj.weight", (heads * (nope + rope), q)
    yield p + "kv_a_proj_with_mqa.weight", (latent + rope, h)
    yield p + "kv_a_layernorm.weight", (latent,)
    yield p + "kv_b_proj.weight", (heads * (nope + v), latent)
    yield p + "o_proj.weight", (h, heads * v)


def random_tensor(name, shape, generator):
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.2 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if "embed_tokens" in name:
        return noise
    # Queries and keys a little large, so that attention is not flat; routers larger, so that experts differ.
    gain = 1.6 if any(n in name for n in ("q_proj", "k_proj", "q_b_proj", "mlp.gate.weight")) else 1
    return gain * noise * shape[1] ** -0.5


def block_quantized(weight):
    """E4M3 codes and the float32 factors of 128 x 128 blocks."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // 128), -(-columns // 128))
    codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = (slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128))
            scales[i, j] = weight[block].abs().max() / 448
            codes[block] = (weight[block] / scales[i, j]).to(torch.float8_e4m3fn)
    return codes, scales


def block_dequantized(codes, scales):
    rows, columns = codes.shape
    return codes.float() * scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]


def make(name):
    """`tensors` of a named checkpoint."""
    return tensors(CHECKPOINTS[name][0], seed=sum(map(ord, name)))


def tensors(config, seed):
    """(tensors as stored, the same weights in float32)."""
    generator = torch.Generator().manual_seed(seed)
    stored, exact = {}, {}
    for tensor, shape in shapes(config):
        value = random_tensor(tensor, shape, generator)
        if "quantization_config" in config and "_proj" in tensor:
            codes, scales = block_quantized(value)
            stored[tensor], stored[tensor + "_scale_inv"] = codes, scales
            exact[tensor] = block_dequantized(codes, scales)
        else:
            stored[tensor] = value if tensor.endswith("correction_bias") else value.to(DTYPES[config["torch_dtype"]])
            exact[tensor] = stored[tensor].float()
    return stored, exact


def write(folder, config, tensors, files=1):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    size = -(-len(names) // files)
    index = {}
    for part in range(files):
        file = f"model-{part + 1:05}-of-{files:05}.safetensors"
        chosen = names[part * size : (part + 1) * size]
        save_file({n: tensors[n] for n in chosen}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(chosen, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    (folder / "model.safetensors.index.json").write_text(text + "\n")
