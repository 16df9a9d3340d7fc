"""Makes the models that llama.cpp and Nibble are compared on: FOLDER/wide, a random Qwen3 of 4 layers and width 1024 with the
tokenizer of MODEL, and of MODEL ("tiny") and of it GGUF files in BF16, Q8_0 and Q4_0. Needs torch, safetensors and gguf.

Usage: make-models.py MODEL FOLDER
"""

import json
import pathlib
import shutil
import sys

import gguf
import torch
from safetensors.torch import load_file, save_file

LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    name = name.removesuffix(".weight")
    if name in OTHER_NAMES:
        return OTHER_NAMES[name] + ".weight"
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def write_gguf(folder, type, path):
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(262144)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")  # llama-bench needs none
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = tensor.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, type), raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_wide(model, folder):
    layers, width, inner, vocabulary, heads, kv_heads, dimension = 4, 1024, 3072, 32768, 16, 8, 128
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())
    config |= {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": dimension,
        "max_position_embeddings": 262144,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    generator = torch.Generator().manual_seed(1)

    def random(rows, columns):
        return (torch.randn(rows, columns, generator=generator) / columns**0.5).bfloat16()

    def ones(count):
        return torch.ones(count).bfloat16()

    tensors = {"model.embed_tokens.weight": random(vocabulary, width), "model.norm.weight": ones(width)}
    for layer in range(layers):
        parts = {
            "self_attn.q_proj": random(heads * dimension, width),
            "self_attn.k_proj": random(kv_heads * dimension, width),
            "self_attn.v_proj": random(kv_heads * dimension, width),
            "self_attn.o_proj": random(width, heads * dimension),
            "self_attn.q_norm": ones(dimension),
            "self_attn.k_norm": ones(dimension),
            "mlp.gate_proj": random(inner, width),
            "mlp.up_proj": random(inner, width),
            "mlp.down_proj": random(width, inner),
            "input_layernorm": ones(width),
            "post_attention_layernorm": ones(width),
        }
        tensors |= {f"model.layers.{layer}.{part}.weight": tensor for part, tensor in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    for file in model.glob("*token*"):
        shutil.copy(file, folder)


def main():
    model, folder = map(pathlib.Path, sys.argv[1:])
    make_wide(model, folder / "wide")
    types = gguf.GGMLQuantizationType
    for name, source in (("tiny", model), ("wide", folder / "wide")):
        for type in (types.BF16, types.Q8_0, types.Q4_0):
            write_gguf(source, type, folder / f"{name}-{type.name.lower()}.gguf")


main()
