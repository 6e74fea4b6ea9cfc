#!/usr/bin/env bash
# Checks and times the GPU trainer on this machine's card, in six minutes after the build, and ends with a table: the tests
# plain, some of them under compute-sanitizer's memcheck and racecheck, bench_gpu's whole steps with both kinds of attention,
# PyTorch's steps for comparison, and with DATA the losses of GPU and CPU (scripts/compare_gpu_cpu.sh). The exit code is 0 if
# nothing failed.
#
#   scripts/check_gpu.sh
#   SKIP_BUILD=1 scripts/check_gpu.sh               uses train_gpt, train_gptcu, build/test_gpu, build/test_gpu_racecheck and
#                                                   build/bench_gpu that were built elsewhere (make ARCH=x86-64-v3 ...), so that no
#                                                   compiler is needed
#   PYTHONS=venv/bin/python DATA=data/c4 scripts/check_gpu.sh
#
# PARTS="tests memcheck racecheck c4-301m gpt2-124m pytorch compare": which parts are run. FILTER: the tests that run under memcheck;
# RACE_FILTER: those under racecheck, which is slow. BATCH=32,64: the sequences of bench_gpu's steps; PYTORCH_BATCH=32: of PyTorch's.
# COMPILE=blocks: how PyTorch compiles; COMPILE=model makes it fastest but compiles two minutes longer (set PYTORCH_LIMIT=300).
# STEPS=50 and CPU_STEPS=2: the steps of the comparison. LOGS=runs/check_gpu: the folder for the output of each part.
# The limits of each part, in seconds: TESTS_LIMIT=80 MEMCHECK_LIMIT=25 RACECHECK_LIMIT=40 BENCH_LIMIT=45 (for each model)
# PYTORCH_LIMIT=100 COMPARE_LIMIT=75. A part that has not ended by then is stopped, and the table says so; only for the tests
# does this count as a failure.
set -euo pipefail
export LC_ALL=C # numbers have a decimal point, whatever the user's language
cd "$(dirname "$0")/.."

PARTS=${PARTS:-tests memcheck racecheck c4-301m gpt2-124m pytorch compare}
FILTER=${FILTER:-attention,laser,rmsnorm,rope,cross_entropy}
RACE_FILTER=${RACE_FILTER:-many_tiles,hopper_pipeline,rmsnorm}
BATCH=${BATCH:-32,64}
PYTHONS=${PYTHONS:-python3}
LOGS=${LOGS:-runs/check_gpu}
DATA=${DATA:-}
rows=() failed=0

fail() { echo "error: $*" >&2; exit 2; }

note() { # NAME SECONDS WHAT: a row of the table
    rows+=("$(printf '%-10s %5s  %s' "$1" "$2" "$3")")
    echo "   $3"
}

# part NAME LIMIT COMMAND...: runs the command with a time limit and writes its output to a log. code: the command's, or 124 if
# it was stopped.
part() {
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    echo "== $name, at most $limit s: $*"
    code=0
    timeout -k 5 "$limit" "$@" > "$LOGS/$name.log" 2>&1 || code=$?
    [ "$code" != 137 ] || code=124
    took=$((SECONDS - start)) log=$LOGS/$name.log
}

last() { # prints the last line of the part's log that is not empty
    grep -v '^=* *$' "$log" | tail -n 1 || true
}

tests() {
    part tests "${TESTS_LIMIT:-80}" env TEST_BINARY_DIR=. ./build/test_gpu
    local sum ok
    sum=$(grep -E '^[0-9]+ passed' "$log" | tail -n 1 || true)
    ok=$(grep -cE '^ *ok ' "$log" || true)
    [ "$code" = 0 ] || failed=1
    case $code in
    0) note tests "$took" "$sum" ;;
    124) note tests "$took" "FAILED: not done in time, $ok tests were ok" ;;
    *) note tests "$took" "FAILED: ${sum:-$(last)}; first: $(grep -m 1 -E '^ *FAIL' "$log" || last)" ;;
    esac
}

sanitizer() { # TOOL LIMIT PROGRAM FILTER
    local tool=$1 sanitizer ok said
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null || true)
    if [ -z "$sanitizer" ]; then
        note "$tool" 0 "left out: there is no compute-sanitizer here"
        return
    fi
    part "$tool" "$2" env TEST_BINARY_DIR=. "$sanitizer" --tool "$tool" --error-exitcode 9 "$3" --filter="$4"
    ok=$(grep -cE '^ *ok ' "$log" || true)
    said=$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -n 1 | sed 's/^=* *//' || true)
    case $code in
    0) note "$tool" "$took" "$ok tests ok; $said" ;;
    124)
        if grep -qE '^=+ (Invalid|Misaligned|Error: |Race |Potential |Uninitialized|Program hit)' "$log"; then
            failed=1
            note "$tool" "$took" "FAILED, then stopped: $ok tests were ok, the log names errors"
        else
            note "$tool" "$took" "stopped by the limit: $ok tests were ok, no error until then"
        fi
        ;;
    *)
        failed=1
        note "$tool" "$took" "FAILED: $ok tests ok; ${said:-$(last)}"
        ;;
    esac
}

bench() { # PRESET
    part "$1" "${BENCH_LIMIT:-45}" stdbuf -oL ./build/bench_gpu --steps-only --preset="$1" --batch="$BATCH" --json="$LOGS/$1.json"
    case $code in
    0) note "$1" "$took" "timed" ;;
    124) note "$1" "$took" "stopped by the limit" ;;
    *)
        failed=1
        note "$1" "$took" "FAILED: $(last)"
        ;;
    esac
}

pytorch() {
    local pythons
    read -ra pythons <<< "$PYTHONS"
    if ! command -v python3 > /dev/null; then
        note pytorch 0 "left out: there is no python3 here"
        return
    fi
    part pytorch "${PYTORCH_LIMIT:-100}" env PYTHONUNBUFFERED=1 python3 scripts/bench_gpu_pytorch.py --steps-only \
        --batch="${PYTORCH_BATCH:-32}" --compile="${COMPILE:-blocks}" --json="$LOGS/bench_gpu.json" "${pythons[@]}"
    local steps
    steps=$(grep -c 'tokens/s' "$log" || true)
    case $code in
    0) if [ "$steps" = 0 ]; then note pytorch "$took" "$(last)"; else note pytorch "$took" "$steps steps timed"; fi ;;
    124) note pytorch "$took" "stopped by the limit: $steps steps timed" ;;
    *) note pytorch "$took" "$steps steps timed; it ended with an error: $(last)" ;;
    esac
}

compare() {
    if [ -z "$DATA" ]; then
        note compare 0 "left out: no DATA given"
        return
    fi
    part compare "${COMPARE_LIMIT:-75}" env STEPS="${STEPS:-50}" CPU_STEPS="${CPU_STEPS:-2}" OUT="$LOGS/compare" scripts/compare_gpu_cpu.sh "$DATA"
    case $code in
    0) note compare "$took" "$(last)" ;;
    124) note compare "$took" "stopped by the limit (the CPU's steps take longest: CPU_STEPS=1)" ;;
    *)
        failed=1
        note compare "$took" "FAILED: $(last)"
        ;;
    esac
}

mkdir -p "$LOGS"
rm -f "$LOGS"/*.log "$LOGS"/*.json
if [ "${SKIP_BUILD:-}" != 1 ]; then
    make build/test_gpu build/test_gpu_racecheck build/bench_gpu train_gptcu train_gpt > "$LOGS/build.log" 2>&1 || fail "the build failed: $LOGS/build.log"
fi
for program in build/test_gpu build/test_gpu_racecheck build/bench_gpu train_gptcu train_gpt; do
    [ -x "$program" ] || fail "$program does not exist: copy it here, or run without SKIP_BUILD"
done
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null || echo "nvidia-smi does not name the card"

touch "$LOGS/bench_gpu.json"
for name in $PARTS; do
    case $name in
    tests) tests ;;
    pytorch) pytorch ;;
    compare) compare ;;
    memcheck) sanitizer memcheck "${MEMCHECK_LIMIT:-25}" ./build/test_gpu "$FILTER" ;;
    racecheck) sanitizer racecheck "${RACECHECK_LIMIT:-40}" ./build/test_gpu_racecheck "$RACE_FILTER" ;;
    c4-301m | gpt2-124m)
        bench "$name"
        # whole lines only: the program may have been stopped in the middle of one
        if [ -f "$LOGS/$name.json" ]; then grep '}$' "$LOGS/$name.json" >> "$LOGS/bench_gpu.json" || true; fi
        ;;
    *) fail "PARTS: there is no part '$name'" ;;
    esac
done

{
    echo
    printf '%-10s %5s  %s\n' part s result
    printf '%s\n' "${rows[@]}"
    awk '
        function text(key) { return match($0, "\"" key "\": \"[^\"]*") ? substr($0, RSTART + length(key) + 5, RLENGTH - length(key) - 5) : "" }
        function number(key) { return match($0, "\"" key "\": [-+.0-9e]*") ? substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) + 0 : 0 }
        text("what") != "step" { next }
        {
            name = sprintf("%-10s %-9s B %3d", text("preset"), text("kind"), number("batch"))
            if (!(name in seen)) names[++count] = name
            seen[name] = 1
        }
        text("library") == "" { rate[name] = number("tokens_per_s"); mfu[name] = 100 * number("mfu"); next }
        { theirs[name] = number("tokens_per_s"); library = text("library") " compiled by " text("compile") }
        END {
            if (count) printf "\n%-28s %10s %7s %12s %7s   %s\n", "step", "tokens/s", "MFU %", "PyTorch", "ours", library
            for (i = 1; i <= count; i++) {
                name = names[i]
                printf "%-28s %10s %7s %12s %7s\n", name, name in rate ? sprintf("%.0f", rate[name]) : "-", name in mfu ? sprintf("%.1f", mfu[name]) : "-",
                    name in theirs ? sprintf("%.0f", theirs[name]) : "-", name in theirs && name in rate ? sprintf("%.2f x", rate[name] / theirs[name]) : "-"
            }
        }' "$LOGS/bench_gpu.json"
    echo
    if [ "$failed" = 0 ]; then echo "nothing failed; logs: $LOGS"; else echo "error: something failed; logs: $LOGS"; fi
} | tee "$LOGS/table.txt"
exit "$failed"
