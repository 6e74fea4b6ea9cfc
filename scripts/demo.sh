#!/bin/sh
# demo.sh: from nothing to two trained language models that differ only in --attn. Run by `make demo`.
#
#   text -> tokens -> train standard, train laser (same seed, same data, same order) -> table, curves,
#   runs/demo/report.html, runs/demo/loss.png -> some lines that each of them writes
#
# The text and the tokens are kept in data/ and used again; training starts anew each time, or goes on where it was
# interrupted. Settings: DEMO_STEPS=N trains for N steps; DEMO_OPTIONS="options of train_gpt"; DEMO_SEED=N; TEXT=path
# trains on a text of yours;
# DEPS=skip installs nothing; DEMO_HOME=folder puts data/ and runs/ there; DEMO_PROGRAMS=folder uses the programs there as
# they are. POSIX sh.
set -eu
users=${LC_ALL:-} # the report draws with what the terminal can show
export LC_ALL=C # numbers have a point, whatever the user's language
cd "$(dirname "$0")/.."

home=${DEMO_HOME:-.} programs=${DEMO_PROGRAMS:-.}
text=$home/data/text data=$home/data/demo runs=$home/runs/demo seed=${DEMO_SEED:-1}
began=$(date +%s)

say() { printf '\n== %s\n' "$*"; }
stop() {
    printf 'demo: stopped: %s\n' "$*" >&2
    exit 1
}
trap 'echo; echo "demo: interrupted; make demo goes on from there" >&2; exit 130' INT TERM

get_text() {
    if [ -s "$text/SOURCE" ] && { [ -z "${TEXT:-}" ] || [ "$(cat "$text/SOURCE")" = "your text, $TEXT" ]; }; then
        say "Text: $(cat "$text/SOURCE"), fetched before (remove $text to choose again)"
        return
    fi
    say "Text: looking for some megabytes of English"
    scripts/get_text.sh "$text" || stop "no text"
}

prepare() {
    if [ -s "$data/shards.json" ] && [ -z "$(find -L "$text" -newer "$data/shards.json")" ]; then
        say "Tokens: prepared before, in $data"
        return
    fi
    say "Tokens: learning a vocabulary of 2,048 from the text, then writing it as numbers to $data"
    # stories are divided by lines of their own; other text is cut at blank lines
    if [ -s "$text/stories.txt" ]; then
        "$programs/prepare" --out="$data" --overwrite --vocab=2048 --separator='<|endoftext|>' "$text"/*.txt
    elif [ -e "$text/mine" ]; then
        "$programs/prepare" --out="$data" --overwrite --vocab=2048 "$text/mine"
    else
        "$programs/prepare" --out="$data" --overwrite --vocab=2048 "$text"/*.txt
    fi || stop "the text could not be prepared; the reason stands above"
}

# The entropy of the validation stories in nats per token, when the text has a known entropy; else nothing.
entropy() {
    [ -s "$text/stories-validation.json" ] || return 0
    nats=$(sed -n 's/.*"nats": *\([0-9.]*\).*/\1/p' "$text/stories-validation.json")
    awk -v nats="$nats" '/"val"/ { inside = 1 }
        inside && /"tokens"/ { gsub(/[^0-9]/, ""); printf "--floor=%.6f", nats / $0; exit }' "$data/shards.json"
}

train() { # ATTENTION
    out=$runs/$1
    options="--preset=demo --attn=$1 --data=$data --seed=$seed ${DEMO_OPTIONS:-}"
    if [ -n "${DEMO_STEPS:-}" ]; then
        part=$((DEMO_STEPS / 8 > 0 ? DEMO_STEPS / 8 : 1))
        options="$options --steps=$DEMO_STEPS --warmup=$part --val-every=$part"
    fi
    settings="$options, data $(cksum < "$data/shards.json")"
    # a run that was begun with other settings or data makes room for a new one
    if [ "$(cat "$out.settings" 2> /dev/null)" != "$settings" ]; then rm -rf "$out"; fi
    if [ -e "$out/summary.json" ]; then
        say "Training with $1 attention: done before the interruption"
        return
    fi
    mkdir -p "$runs"
    printf '%s\n' "$settings" > "$out.settings"
    say "Training with $1 attention: ./train_gpt $options --out=$out"
    # shellcheck disable=SC2086 # options are words
    "$programs/train_gpt" $options --out="$out" --resume=auto || stop "training with $1 attention failed; the reason stands above"
    [ -e "$out/summary.json" ] || stop "training was interrupted; make demo goes on from there"
}

report() {
    say "What came out"
    rm -f "$runs/report.html"
    # shellcheck disable=SC2046 # nothing or one word
    LC_ALL=$users "$programs/report" --out="$runs/report.html" --png="$runs/loss.png" $(entropy) "$runs/standard" "$runs/laser" ||
        [ -s "$runs/report.html" ] || stop "no report; the reason stands above"
}

# ---- how the models are made to write: ten lines from each ----
sample() { # ATTENTION
    if [ -s "$text/stories.txt" ]; then prompt='In the town of'; elif [ -e "$text/mine" ]; then prompt=''; else prompt='It was'; fi
    say "Ten lines by the model with $1 attention"
    "$programs/generate" --prompt="$prompt" --tokens=320 --temperature=0.8 --seed="$seed" "$runs/$1" > "$runs/$1.txt" ||
        stop "the model with $1 attention cannot write; the reason stands above"
    # a young model writes odd bytes: none of them may command the terminal
    LC_ALL=C tr -d '\000-\010\013-\037\177' < "$runs/$1.txt" | awk 'NF' | fold -s -w 76 | head -n 10 | sed 's/^/  /'
}

if [ -z "${DEMO_PROGRAMS:-}" ]; then
    scripts/deps.sh || stop "something the build needs is missing"
    make -s -j"$(getconf _NPROCESSORS_ONLN)" all || stop "the programs could not be built"
fi
get_text
prepare
if [ -e "$runs/finished" ]; then rm -rf "$runs/finished" "$runs/standard" "$runs/laser"; fi # the last demo is over
train standard
train laser
report
sample standard
sample laser
touch "$runs/finished"
seconds=$(($(date +%s) - began))
say "Done in $((seconds / 60)) min $((seconds % 60)) s. Open $runs/report.html in a browser; loss.png is beside it."
