#!/bin/sh
# Prints the tables of docs/performance.md about the shipped model, products with weights and encoding.
# Usage: Benchmarks/cpu-model.sh [model folder]; build first: swift build -c release --product nibble
set -eu
nibble=${NIBBLE:-.build/release/nibble}
model=${1:-Models/tiny-qwen3}

echo "## Decode and prefill"
"$nibble" bench decode --model "$model" -d 0,4096
"$nibble" bench prefill --model "$model"
echo "## Decode with converted weights"
for weights in fp8_e4m3 nvfp4; do "$nibble" bench decode --model "$model" --weight-dtype "$weights"; done
echo "## Products with weights"
for rows in 1 4; do "$nibble" bench weights --rows "$rows"; done
echo "## Encoding"
"$nibble" bench encode
