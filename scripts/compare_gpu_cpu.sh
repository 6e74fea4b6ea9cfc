#!/usr/bin/env bash
# Trains c4-301m on a GPU and, for the first steps, on the CPU, with the same initial weights and the same text, and compares
# the losses step by step. The CPU trains in bf16 and in float32, so the error that bf16 itself makes is known. The exit code is
# 0 if the difference between GPU and CPU is at most three times the difference between bf16 and float32 on the CPU.
#
#   scripts/compare_gpu_cpu.sh DATA [options of ./train_gpt]    DATA: a folder made by ./prepare
#   CPU_STEPS=5 scripts/compare_gpu_cpu.sh data/c4 --attn=standard
#   CPU_STEPS=20 scripts/compare_gpu_cpu.sh data/c4 --layers=4  trains a smaller model on both
#
# Settings: STEPS=200, the steps of the GPU; CPU_STEPS=10, those of the CPU (each takes minutes with c4-301m); MODEL='options'
# instead of the preset; GPU='mpirun -n 8 ./train_gptcu' and CPU=./train_gpt, the commands; OUT=runs/compare, the folder for the
# runs.
set -euo pipefail
export LC_ALL=C # numbers have a decimal point, whatever the user's language
cd "$(dirname "$0")/.."

STEPS=${STEPS:-200}
CPU_STEPS=${CPU_STEPS:-10}
# 8,192 tokens a step. No warmup and a constant rate, so that the first steps do not depend on the number of steps
MODEL=${MODEL:---preset=c4-301m --batch=8 --total-batch=8192 --lr=1e-4 --warmup=0}
GPU=${GPU:-./train_gptcu}
CPU=${CPU:-./train_gpt}
OUT=${OUT:-runs/compare}

fail() { echo "error: $*" >&2; exit 1; }
case ${1:-} in
'' | -*)
    echo "usage: scripts/compare_gpu_cpu.sh DATA [options of ./train_gpt]" >&2
    exit 2
    ;;
esac
data=$1
shift
options=("$@")
if [ "$CPU_STEPS" -lt 1 ] || [ "$CPU_STEPS" -gt "$STEPS" ]; then
    fail "CPU_STEPS=$CPU_STEPS: expected 1 to $STEPS, the steps of the GPU"
fi

train() { # NAME STEPS DTYPE COMMAND... : trains in OUT/NAME and keeps only the log of the run
    local name=$1 steps=$2 dtype=$3
    shift 3
    rm -rf "${OUT:?}/$name"
    mkdir -p "$OUT"
    echo "== $name: $steps steps, $dtype: $1"
    # shellcheck disable=SC2086 # MODEL is a list of options
    "$@" $MODEL --attn=laser --schedule=constant --seed=1 --val-every=0 --val-tokens=1 --steps="$steps" \
        --dtype="$dtype" --data="$data" --out="$OUT/$name" "${options[@]}" > "$OUT/$name.txt" 2>&1 ||
        fail "$name ended with an error: $(grep -m 1 '^error' "$OUT/$name.txt" || tail -n 1 "$OUT/$name.txt")"
    rm -rf "$OUT/$name"/step-*
}

# shellcheck disable=SC2206 # a command and its arguments
gpu=($GPU) cpu=($CPU)
train gpu "$STEPS" bf16 "${gpu[@]}"
train cpu "$CPU_STEPS" bf16 "${cpu[@]}"
train cpu-fp32 "$CPU_STEPS" fp32 "${cpu[@]}"

losses() { # NAME: prints "step loss" for every training step
    sed -n 's/^{"step": *\([0-9]*\),.*"loss": *\([0-9.e+-]*\),.*"lr":.*/\1 \2/p' "$OUT/$1/log.jsonl"
}
for name in gpu cpu cpu-fp32; do losses $name > "$OUT/$name.losses"; done
if [ -x report ]; then
    ./report --out="$OUT/report.html" "$OUT/gpu" "$OUT/cpu" "$OUT/cpu-fp32" > /dev/null
    echo "the curves: $OUT/report.html"
fi

awk -v cpu_steps="$CPU_STEPS" -v steps="$STEPS" '
    function size(x) { return x < 0 ? -x : x }
    FILENAME ~ /cpu.losses$/ { cpu[$1] = $2; next }
    FILENAME ~ /cpu-fp32.losses$/ { exact[$1] = $2; next }
    { gpu[$1] = $2; last = $1 }
    END {
        printf "%6s %10s %10s %12s %22s\n", "step", "GPU", "CPU", "difference", "CPU, bf16 less float32"
        for (i = 1; i <= cpu_steps; i++) {
            if (!(i in gpu && i in cpu && i in exact)) { print "error: step " i " is missing in a log"; exit 1 }
            apart = gpu[i] - cpu[i]; noise = cpu[i] - exact[i]
            printf "%6d %10.5f %10.5f %12.2e %22.2e\n", i, gpu[i], cpu[i], apart, noise
            if (size(apart) > most) most = size(apart)
            if (size(noise) > bf16) bf16 = size(noise)
        }
        if (last != steps) { print "error: the log of the GPU ends at step " last; exit 1 }
        printf "%6d %10.5f\n", last, gpu[last]
        allowed = 3 * bf16 + 1e-5 * gpu[1]
        agree = most <= allowed && gpu[last] < gpu[1]
        printf "%s: at most %.2e apart in %d steps, bf16 alone makes %.2e (allowed %.2e); the GPU went from %.4f to %.4f\n",
            agree ? "agree" : "error: they differ", most, cpu_steps, bf16, allowed, gpu[1], gpu[last]
        exit !agree
    }' "$OUT/cpu.losses" "$OUT/cpu-fp32.losses" "$OUT/gpu.losses"
