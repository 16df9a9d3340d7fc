"""Random small DeepSeek checkpoints, V2 and V3 style: `nibble logits` against transformers in float32.

    python3 tools/golden/random_configs.py --nibble .build/release/nibble --count 40 --seed 1

Prints one line a configuration with the relative L2 distance of the logits, position by position, median and worst: exact caches must
agree to 1e-3 everywhere, quantised ones to 2e-3 in the median and 3e-2 at worst with what quantise-dequantise gives in PyTorch. A quantised
run that float64, or a change of the embedding by a millionth, moves as far hangs on single roundings and is left out ('edge').
Exits with 1 if a configuration disagrees.
"""

import argparse
import contextlib
import io
import random
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file

import checkpoints
import logits as reference

QUANTISED = [("bf16", "bf16"), ("fp8_e4m3", "bf16"), ("nvfp4", "bf16"), ("mxfp4", "bf16"), ("nvfp4", "fp8_e4m3"), ("fp4_mx_block16", "nvfp4")]


def random_config(pick):
    """A configuration of published features in any combination; sizes such that blocks of all recipes fit, or FP8 weights end mid-block."""
    version = pick.choice([2, 3])
    heads = pick.choice([1, 2, 3, 5, 8, 16, 31, 64, 128])
    layers = pick.randint(1, 3)
    groups = pick.choice([1, 2, 4])
    experts = groups * pick.choice([2, 3, 4])
    used_groups = pick.randint(1, groups)
    config = checkpoints.deepseek(
        version, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        hidden_size=heads * pick.choice([k for k in range(1, 201) if 40 <= heads * k <= 256]), intermediate_size=pick.choice([48, 150]),
        moe_intermediate_size=pick.choice([16, 24, 130]), kv_lora_rank=pick.choice([32, 64, 96, 160]),
        q_lora_rank=pick.choice([None, 24, 48, 136]), qk_nope_head_dim=pick.choice([8, 16, 24, 32]),
        qk_rope_head_dim=pick.choice([16, 32]), v_head_dim=pick.choice([8, 16, 24]), n_routed_experts=experts,
        n_shared_experts=pick.choice([1, 2]), n_group=groups, topk_group=used_groups,
        num_experts_per_tok=pick.randint(1, min(3, used_groups * experts // groups)),
        routed_scaling_factor=pick.choice([1.0, 2.5, 16.0]), norm_topk_prob=pick.choice([True, False]),
        first_k_dense_replace=pick.randint(0, layers), rope_theta=pick.choice([1e4, 5e5]),
        tie_word_embeddings=pick.choice([True, False]), torch_dtype=pick.choice(["bfloat16", "float16", "float32"]))
    if version == 2:
        grouped = groups > 1
        config |= dict(
            scoring_func="softmax", topk_method="group_limited_greedy" if grouped else "greedy", norm_topk_prob=False)
    if pick.random() < 0.5:
        config["rope_scaling"] = checkpoints.YARN | dict(
            factor=pick.choice([4.0, 40.0]), beta_fast=32, beta_slow=1, mscale=pick.choice([0.707, 1.0]),
            mscale_all_dim=pick.choice([0.707, 1.0]))
    if pick.random() < 0.3:
        config |= dict(torch_dtype="bfloat16", quantization_config=checkpoints.FP8)
    return config


def describe(c):
    rope = c.get("rope_scaling")
    experts = f"{c['num_experts_per_tok']}/{c['n_routed_experts']} experts in {c['topk_group']}/{c['n_group']} groups"
    return (f"{c['model_type']}, hidden {c['hidden_size']}, {c['num_attention_heads']} heads {c['qk_nope_head_dim']}+{c['qk_rope_head_dim']}/{c['v_head_dim']}, "
            f"latent {c['kv_lora_rank']}, q_lora {c['q_lora_rank']}, {c['first_k_dense_replace']}/{c['num_hidden_layers']} dense, {experts}, "
            f"{'fp8' if 'quantization_config' in c else c['torch_dtype']}{', yarn ' + str(rope['factor']) if rope else ''}")


def nibble_logits(arguments, folder, tokens, latent, rope):
    output = f"{folder}/logits.safetensors"
    command = [arguments.nibble, "logits", "--model", folder, "--tokens", " ".join(map(str, tokens.tolist())), "--output", output]
    command += ["--kv-cache-dtype", latent, "--kv-cache-dtype-rope", rope, "--chunk-size", str(arguments.chunk)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    return load_file(output)["logits"]


def hangs_on_roundings(model, drafts, tokens, expected):
    """Whether noise of the size of a float32's last bits moves the logits of a run."""
    runs = [reference.run(model.double(), drafts.double(), tokens)[0]]
    model.float(), drafts.float()
    weight = model.model.embed_tokens.weight.data
    exact = weight.clone()
    for _ in range(8):
        weight.copy_(exact * (1 + 1e-6 * torch.randn(exact.shape)))
        runs.append(reference.run(model, drafts, tokens)[0])
    weight.copy_(exact)
    return any(d.median() > 5e-4 or d.max() > 1e-2 for d in (reference.distance(run, expected) for run in runs))


def check(arguments, number):
    pick = random.Random(f"{arguments.seed}.{number}")
    config = random_config(pick)
    stored, exact = checkpoints.tensors(config, seed=number)
    with contextlib.redirect_stderr(io.StringIO()):
        model, drafts = reference.load(config, exact)
    tokens = torch.randint(config["vocab_size"], (arguments.tokens,), generator=torch.Generator().manual_seed(number))
    agrees, cells = True, []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.write(folder, config, stored)
        for latent, rope in [("f32", "f32"), pick.choice(QUANTISED)]:
            reference.cache.first, reference.cache.second, reference.cache.scales = latent, rope, None
            expected, _ = reference.run(model, drafts, tokens)
            errors = reference.distance(nibble_logits(arguments, folder, tokens, latent, rope), expected)
            median, worst = errors.median().item(), errors.max().item()
            is_exact = latent == "f32"
            right = worst <= 1e-3 if is_exact else median <= 2e-3 and worst <= 3e-2
            edge = not right and not is_exact and hangs_on_roundings(model, drafts, tokens, expected)
            agrees = agrees and (right or edge)
            cells.append(f"{latent}+{rope} {median:.1e} / {worst:.1e}{' edge' if edge else '' if right else ' WRONG'}")
    print(f"{number:3} {'; '.join(cells)} | {describe(config)}", flush=True)
    return agrees


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nibble", default=".build/release/nibble")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--only", type=int, help="this configuration alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=70)
    parser.add_argument("--chunk", type=int, default=33)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options = parser.parse_args()
    numbers = range(options.count) if options.only is None else [options.only]
    wrong = [number for number in numbers if not check(options, number)]
    print(f"{len(numbers) - len(wrong)} of {len(numbers)} configurations agree" + (f"; wrong: {wrong}" if wrong else ""))
    sys.exit(1 if wrong else 0)
