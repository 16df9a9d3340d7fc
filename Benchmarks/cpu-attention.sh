#!/bin/sh
# Prints the tables of docs/performance.md, section "CPU: attention", and draws the diagram of time against context.
# Usage: Benchmarks/cpu-attention.sh [output folder]; build first: swift build -c release --product nibble
# shellcheck disable=SC2086
set -eu
nibble=${NIBBLE:-.build/release/nibble}
both="--attention-precision full fast"
out=${1:-.}

echo "## Decode, one sequence"
"$nibble" bench attention --recipes nvfp4 mxfp4 fp4_mx_block16 fp8_e4m3 bf16 $both --markdown
"$nibble" bench attention $both --markdown --svg "$out/cpu-decode.svg"
echo "## Decode, groups"
for heads in 4 32 64; do "$nibble" bench attention --heads "$heads" --contexts 32768 $both --markdown; done
echo "## Decode, 16 sequences"
"$nibble" bench attention --batch 16 --contexts 4096 $both --markdown
echo "## Latent attention"
"$nibble" bench attention --kind mla --heads 16 --recipes nvfp4 fp8_e4m3 bf16 --contexts 4096 32768 131072 $both --markdown
"$nibble" bench attention --kind mla --heads 128 --recipes nvfp4 fp8_e4m3 bf16 --contexts 4096 32768 --rounds 3 $both --markdown
echo "## Prefill of 512 tokens at depth 65,536"
"$nibble" bench attention --phase prefill --tokens 512 --contexts 65536 --recipes nvfp4 fp8_e4m3 bf16 --rounds 3 $both --markdown
echo "## The other levels"
for level in avx2 portable; do
  NIBBLE_SIMD_LEVEL=$level "$nibble" bench attention --contexts 32768 --rounds 3 --markdown
done
