#!/bin/sh
# Decodes 128 tokens at depth 0 with Nibble and llama.cpp in turn, on the models that make-models.py made, with the same bytes of weights.
# Usage: compare.sh LLAMA_BENCH MODEL FOLDER [turns]; MODEL and FOLDER as for make-models.py
set -eu
nibble=${NIBBLE:-.build/release/nibble}
llama=$1 tiny=$2 folder=$3 turns=${4:-5}

for turn in $(seq "$turns"); do
  for model in tiny wide; do
    if [ $model = tiny ]; then path=$tiny; else path=$folder/wide; fi
    for types in bf16:bf16 fp8_e4m3:q8_0 nvfp4:q4_0; do
      ours=${types%:*} theirs=${types#*:}
      echo "turn $turn, $model, Nibble $ours: $("$nibble" bench decode --model "$path" --weight-dtype "$ours" -r 3 --recipes nvfp4 | tail -n 1)"
      echo "turn $turn, $model, llama.cpp $theirs: $("$llama" -m "$folder/$model-$theirs.gguf" -t 2 -p 0 -n 128 -r 3 | grep tg128)"
    done
  done
done
