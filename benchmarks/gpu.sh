#!/usr/bin/env bash
# What only a GPU can show, what is missing most first; each program has so many seconds, and keeps
# what it has measured when they are over.
#     bash benchmarks/gpu.sh [FOLDER FOR THE FIGURES]
set -u
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}

measure() {
    local seconds=$1 program=$2
    shift 2
    timeout "$seconds" "${PYTHON:-python3}" "benchmarks/$program.py" "$@" --device cuda --out "$out" \
        || echo "$program $*: exit $?"
}

"${PYTHON:-python3}" -m pytest -q tests/test_kernels.py tests/test_descent.py tests/test_sharing.py \
    tests/test_incremental.py tests/test_compiled.py
# do kernels of our own gain in both layouts, and where the image layer is a small part
measure 40 gains kernels --method sat_r3
measure 40 gains kernels --method sat_r3 --precision fp32
measure 60 gains kernels --network resnet18 --method sat_r3 --batch 128 --steps 40
measure 60 gains normalisation --network resnet18 --method pgd_at --batch 128 --steps 15
measure 60 gains normalisation --network resnet18 --method sat_r3 --batch 128 --steps 40
# does a compiled network gain, once it is compiled
measure 150 gains compiler --network resnet18 --method sat_r3 --batch 128 --steps 40 --rounds 2
# does Square gain by computing anew only what its square reaches
measure 30 squares --batch 1000
measure 60 squares --network resnet18 --batch 200
measure 60 squares --network wrn_28_10 --batch 100
# where does the cost bend, and how many trainings should share a GPU
measure 180 scaling --precision bf16 --mps --runs 1 2 4 8 12
measure 180 steps --abreast 7
