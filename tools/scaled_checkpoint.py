"""Gives a checkpoint KV scales, as ModelOpt writes them: the case of docs/kv-cache.md, "The bug that the gate is for".

    python3 tools/scaled_checkpoint.py Models/tiny-qwen3 /tmp/scaled-qwen3 --scale 0.06 --algorithm FP8

OUTPUT gets links to the model's files, a quantization_config that names the cache, and k_scale and v_scale for every layer.
"""

import argparse
import json
import os
import struct


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--scale", type=float, default=0.06)
    parser.add_argument("--algorithm", default="FP8", help="kv_cache_quant_algo: FP8, NVFP4 or another")
    arguments = parser.parse_args()
    os.makedirs(arguments.output)
    model = os.path.abspath(arguments.model)
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        if os.path.exists(f"{model}/{name}"):
            os.symlink(f"{model}/{name}", f"{arguments.output}/{name}")
    os.symlink(f"{model}/model.safetensors", f"{arguments.output}/weights.safetensors")

    with open(f"{model}/config.json") as file:
        config = json.load(file)
    config["quantization_config"] = {"quant_method": "modelopt", "kv_cache_quant_algo": arguments.algorithm}
    with open(f"{arguments.output}/config.json", "w") as file:
        json.dump(config, file, indent=2)

    names = [
        f"model.layers.{layer}.self_attn.{side}"
        for layer in range(config["num_hidden_layers"])
        for side in ["k_proj.k_scale", "v_proj.v_scale"]
    ]
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    ).encode()
    with open(f"{arguments.output}/scales.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + struct.pack("<f", arguments.scale) * len(names))

    with open(f"{model}/model.safetensors", "rb") as file:
        tensors = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    places = {name: "weights.safetensors" for name in tensors if name != "__metadata__"}
    places.update({name: "scales.safetensors" for name in names})
    with open(f"{arguments.output}/model.safetensors.index.json", "w") as file:
        json.dump({"weight_map": places}, file)


if __name__ == "__main__":
    main()
