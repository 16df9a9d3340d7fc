"""Logits of transformers in float32, with what the cache would return put in the place of keys and values.

`python logits.py` writes Tests/ModelFamiliesTests/Resources anew: small random checkpoints and, beside each, golden.safetensors
  tokens [T] int32, positions [n] int32, columns [c] int32: which logits are kept
  logits.<first>+<second>[.scaled] [n, c] float32: recipes of keys and values, or of MLA's latent and rotary key
  scales.<first>+<second>.scaled [layers, 2] float32: the decode scales of that run; without them they are 1
  draft<k>.<first>+<second> [n - 1 - k, c] float32: logits of multi-token-prediction layer k, for checkpoints that have them
"""

import json
import os
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

import checkpoints
from recipes import quantize_dequantize

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESOURCES = ROOT / "Tests/ModelFamiliesTests/Resources"
RECIPES = ["f32", "bf16", "fp8_e4m3", "nvfp4", "nvfp4_4over6", "fp4_mx_block16", "mxfp4"]
GQA_RUNS = [(r, r, None) for r in RECIPES] + [
    ("fp8_e4m3", "fp8_e4m3", (0.37, 0.061)), ("nvfp4", "nvfp4", (0.0031, 0.00173)), ("nvfp4", "fp8_e4m3", (0.0031, 0.061))]
MLA_RUNS = [("f32", "f32", None)] + [(r, "bf16", None) for r in RECIPES[1:]] + [
    ("fp8_e4m3", "fp8_e4m3", (0.037, 0.61)), ("nvfp4", "nvfp4", (0.0017, 0.0031)), ("nvfp4", "mxfp4", None)]


class Cache:
    """What is stored and returned: recipes and decode scales of the run at hand."""

    first = second = "f32"
    scales = None  # [layers, 2]

    def returned(self, x, which, layer):
        recipe = (self.first, self.second)[which]
        return quantize_dequantize(x, recipe, 1.0 if self.scales is None else float(self.scales[layer, which]))


cache = Cache()


def attention(module, query, key, value, mask, scaling, dropout=0.0, **kwargs):
    """Causal attention to the cache; every token sees what the cache returns, its own chunk included."""
    if hasattr(module, "kv_lora_rank"):
        nope = module.qk_nope_head_dim  # the latent has been through the cache already, see `latent_hook`
        query, key = (torch.cat([t[..., :nope], rotary_order(module, t[..., nope:])], -1) for t in (query, key))
        key = torch.cat([key[..., :nope], cache.returned(key[..., nope:], 1, module.layer_idx)], -1)
    else:
        key, value = cache.returned(key, 0, module.layer_idx), cache.returned(value, 1, module.layer_idx)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * scaling
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


def rotary_order(module, x):
    """Stored order of the rotary key: pairs side by side, as in the checkpoint. V3's code moves them apart."""
    return x if "V2" in type(module).__name__ else torch.stack(x.chunk(2, -1), -1).flatten(-2)


def latent_hook(module, layer):
    module.register_forward_hook(lambda m, inputs, output: cache.returned(output, 0, layer))


AttentionInterface.register("through_cache", attention)
AttentionMaskInterface.register("through_cache", lambda *args, **kwargs: None)


def load(config, tensors):
    """The transformers model of float32 tensors."""
    config = {k: v for k, v in config.items() if k != "quantization_config"} | dict(torch_dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.write(folder, config, tensors)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="through_cache", experts_implementation="eager",
            output_loading_info=True)
    count = config["num_hidden_layers"]
    prefixes = tuple(f"model.layers.{count + k}." for k in range(config.get("num_nextn_predict_layers", 0)))
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    assert all(k.startswith(prefixes) for k in report["unexpected_keys"]), report
    layers = list(model.model.layers)
    drafts = torch.nn.ModuleList(
        draft_layer(model, {k[len(p):]: v for k, v in tensors.items() if k.startswith(p)}, layers[-1], count + n)
        for n, p in enumerate(prefixes))
    for index, layer in enumerate(layers + [d.layer for d in drafts]):
        if hasattr(layer.self_attn, "kv_a_layernorm"):
            latent_hook(layer.self_attn.kv_a_layernorm, index)
    return model.eval(), drafts


class Draft(torch.nn.Module):
    """A multi-token-prediction layer: hidden states and the embeddings of the tokens after them predict those after that."""

    def __init__(self, model, tensors, layer):
        super().__init__()
        self.model, self.tensors, self.layer = model, tensors, layer

    def norm(self, name, x):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.tensors[name + ".weight"].to(x.dtype), self.model.config.rms_norm_eps)

    def forward(self, tokens, hidden):
        table = self.tensors.get("embed_tokens.weight", self.model.model.embed_tokens.weight)
        embedding = table[tokens].to(hidden.dtype)
        x = torch.cat([self.norm("enorm", embedding), self.norm("hnorm", hidden)], -1)
        x = x @ self.tensors["eh_proj.weight"].T.to(x.dtype)
        positions = torch.arange(x.shape[1])[None]
        x = self.layer(x, position_embeddings=self.model.model.rotary_emb(x, positions), attention_mask=None)
        x = self.norm("shared_head.norm", x)
        return x @ self.tensors.get("shared_head.head.weight", self.model.lm_head.weight).T.to(x.dtype), x


def draft_layer(model, tensors, like, index):
    layer = type(like)(model.config, index)
    own = {k: v for k, v in tensors.items() if k in layer.state_dict()}
    for kind in ("gate", "up", "down"):  # transformers stacks the experts
        rows = [tensors[f"mlp.experts.{e}.{kind}_proj.weight"] for e in range(model.config.n_routed_experts)]
        own[f"mlp.experts.{kind}"] = torch.stack(rows)
    gate, up = own.pop("mlp.experts.gate"), own.pop("mlp.experts.up")
    own["mlp.experts.gate_up_proj"], own["mlp.experts.down_proj"] = torch.cat([gate, up], 1), own.pop("mlp.experts.down")
    layer.load_state_dict(own)
    return Draft(model, tensors, layer.eval())


@torch.no_grad()
def run(model, drafts, tokens):
    tokens, later = tokens[None], []
    hidden = model.model(tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)[0].float()
    for draft in drafts:
        tokens = tokens[:, 1:]
        guess, hidden = draft(tokens, hidden[:, :-1])
        later.append(guess[0].float())
    return logits, later


def distance(a, b):
    return (a - b).norm(dim=-1) / b.norm(dim=-1)


class OnTheEdge(Exception):
    """Float32 and float64 disagree: some value lies so near the border of two codes that noise decides, and all later layers follow."""


def golden(config, model, drafts, tokens, positions, columns):
    out = dict(tokens=tokens.int(), positions=positions.int(), columns=columns.int())
    layers = config["num_hidden_layers"] + len(drafts)
    exact = None
    for first, second, scales in MLA_RUNS if "kv_lora_rank" in config else GQA_RUNS:
        cache.first, cache.second = first, second
        # Another factor in each layer, so that one layer's scale in another's place shows.
        cache.scales = None if scales is None else torch.tensor(scales) * torch.linspace(1, 1.7, layers)[:, None]
        name = f"{first}+{second}" + ("" if scales is None else ".scaled")
        logits, later = run(model, drafts, tokens)
        doubled, _ = run(model.double(), drafts.double(), tokens)
        model.float(), drafts.float()
        edge, exact = distance(logits, doubled), logits if exact is None else exact
        print(f"  {name:36} relative L2 to f32, median: {distance(logits, exact).median():.2e}; f32 to f64: "
              f"{edge.median():.2e}, worst {edge.max():.2e}")
        if edge.median() > 5e-4 or edge.max() > 1e-2:
            raise OnTheEdge(name)
        out["logits." + name] = logits[positions][:, columns].contiguous()
        if scales is not None:
            out["scales." + name] = cache.scales
        for k, guess in enumerate(later):
            out[f"draft{k}.{name}"] = guess[positions[:-1 - k]][:, columns].contiguous()
    return out


def golden_off_the_edge(config, model, drafts, tokens, count, positions, columns):
    """The first window of tokens on which no run hangs on a rounding."""
    for start in range(len(tokens) - count + 1):
        try:
            return golden(config, model, drafts, tokens[start : start + count], positions, columns)
        except OnTheEdge as edge:
            print(f"  window {start}: {edge} is on the edge")
    raise SystemExit("no window is off the edge; change the tokens")


def save(folder, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "golden.safetensors")
    print(folder.name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB")


def random_checkpoint(name):
    config, files = checkpoints.CHECKPOINTS[name]
    stored, exact = checkpoints.make(name)
    checkpoints.write(RESOURCES / name, config, stored, files)
    model, drafts = load(config, exact)
    tokens = torch.randint(config["vocab_size"], (80,), generator=torch.Generator().manual_seed(7))
    positions = torch.tensor([0, 1, 2, 5, 11, 15, 16, 17, 25, 31, 32, 40, 47, 48, 50, 55])
    save(RESOURCES / name, golden_off_the_edge(
        config, model, drafts, tokens, 56, positions, torch.arange(config["vocab_size"])))


def shipped_checkpoint(name, count=200):
    folder = ROOT / "Models" / name
    config = json.loads((folder / "config.json").read_text())
    model, drafts = load(config, {k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROMPT, add_special_tokens=False).ids
    positions = torch.linspace(0, count - 1, 20).round().long()
    columns = torch.arange(0, config["vocab_size"], 16)
    save(RESOURCES / name, golden_off_the_edge(config, model, drafts, torch.tensor(tokens), count, positions, columns))


PROMPT = """<|im_start|>user
Mia has 24 coins. Leo gives Mia 18 more. Half of them go to Ben. How many coins does Mia have now?<|im_end|>
<|im_start|>assistant
Mia has 24 + 18 = 42 coins. Half of 42 is 21. 42 - 21 = 21. #### 21<|im_end|>
<|im_start|>user
The cache stores keys and values of every token. A query is compared with all keys; the values are summed with the weights that
a softmax makes of the scores. Four bits are enough for most of them, if each block of sixteen has a scale of its own.
SELECT name, count(*) FROM sqlite_master WHERE type = 'table' GROUP BY name; -- 3.14159, 0x7F, naive cafe<|im_end|>
<|im_start|>assistant
A page holds codes and scales of a fixed number of tokens, so that moving it is one copy. The table of pages says where
the tokens of a sequence lie.<|im_end|>
"""

if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or list(checkpoints.CHECKPOINTS) + sorted(os.listdir(ROOT / "Models"))
    for name in wanted:
        random_checkpoint(name) if name in checkpoints.CHECKPOINTS else shipped_checkpoint(name)
