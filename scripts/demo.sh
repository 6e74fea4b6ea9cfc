#!/bin/sh
# demo.sh: trains two language models that differ only in --attn, and compares them. `make demo` runs it.
#
#   text -> tokens -> train standard, train laser (same seed, same data, same order) -> table, curves,
#   runs/demo/report.html, runs/demo/loss.png -> some lines of text by each model
#
# The text and the tokens are kept in data/ and used again the next time. Training begins anew each time; only if it was
# interrupted, it continues from there. At the beginning two steps are timed, and the script prints how long everything will take.
#
# Settings: DEMO_STEPS=N, the steps of each model; DEMO_OPTIONS="options of train_gpt"; DEMO_SEED=N; DEMO_TOKENS=N, the tokens
# of each sample; TEXT=path, a text of your own to train on; DEPS=skip, nothing is installed; DEMO_HOME=folder, the place of
# data/ and runs/; DEMO_PROGRAMS=folder, a folder with the programs, which are then not built. POSIX sh.
set -eu
users=${LC_ALL:-} # for the report, which draws with characters that the terminal can show
export LC_ALL=C # numbers have a decimal point, whatever the user's language
cd "$(dirname "$0")/.."

home=${DEMO_HOME:-.} programs=${DEMO_PROGRAMS:-.}
text=$home/data/text data=$home/data/demo runs=$home/runs/demo seed=${DEMO_SEED:-1}
began=$(date +%s)
steps=${DEMO_STEPS:-300} part=40 # part: the steps of the warmup, and those between two validations
if [ -n "${DEMO_STEPS:-}" ]; then part=$((steps / 8 > 0 ? steps / 8 : 1)); fi
common="--preset=demo --seed=$seed --steps=$steps --warmup=$part --val-every=$part --val-tokens=65536 ${DEMO_OPTIONS:-}"

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
    # stories are separated by lines <|endoftext|>; other text is cut at blank lines
    if [ -s "$text/stories.txt" ]; then
        "$programs/prepare" --out="$data" --overwrite --vocab=2048 --separator='<|endoftext|>' "$text"/*.txt
    elif [ -e "$text/mine" ]; then
        "$programs/prepare" --out="$data" --overwrite --vocab=2048 "$text/mine"
    else
        "$programs/prepare" --out="$data" --overwrite --vocab=2048 "$text"/*.txt
    fi || stop "the text could not be prepared; see the error above"
}

# If the text consists of generated stories: prints the option --floor with the entropy of the validation stories in nats per
# token.
entropy() {
    [ -s "$text/stories-validation.json" ] || return 0
    nats=$(sed -n 's/.*"nats": *\([0-9.]*\).*/\1/p' "$text/stories-validation.json")
    awk -v nats="$nats" '/"val"/ { inside = 1 }
        inside && /"tokens"/ { gsub(/[^0-9]/, ""); printf "--floor=%.6f", nats / $0; exit }' "$data/shards.json"
}

train() { # ATTENTION
    out=$runs/$1
    options="$common --attn=$1 --data=$data"
    settings="$options, data $(cksum < "$data/shards.json")"
    # a run with other settings or data is removed
    if [ "$(cat "$out.settings" 2> /dev/null)" != "$settings" ]; then rm -rf "$out"; fi
    if [ -s "$out/summary.json" ]; then
        say "Training with $1 attention: done before the interruption"
        return
    fi
    mkdir -p "$runs"
    printf '%s\n' "$settings" > "$out.settings"
    say "Training with $1 attention: ./train_gpt $options --out=$out"
    # shellcheck disable=SC2086 # options are words
    "$programs/train_gpt" $options --out="$out" --resume=auto || stop "training with $1 attention failed; see the error above"
    [ -s "$out/summary.json" ] || stop "training was interrupted; make demo goes on from there"
}

report() {
    say "What came out"
    rm -f "$runs/report.html"
    # shellcheck disable=SC2046 # no word, or one
    LC_ALL=$users "$programs/report" --out="$runs/report.html" --png="$runs/loss.png" $(entropy) "$runs/standard" "$runs/laser" ||
        [ -s "$runs/report.html" ] || stop "no report; see the error above"
}

# ---- ten lines of text by each model ----
sample() { # ATTENTION
    if [ -s "$text/stories.txt" ]; then prompt='In the town of'; elif [ -e "$text/mine" ]; then prompt=''; else prompt='It was'; fi
    say "Ten lines by the model with $1 attention"
    "$programs/generate" --prompt="$prompt" --samples=4 --tokens="${DEMO_TOKENS:-240}" --temperature=0.8 --seed="$seed" "$runs/$1" > "$runs/$1.txt" ||
        stop "the model with $1 attention cannot write; see the error above"
    # a model after few steps writes any bytes: control characters are removed, since they would change the terminal, those
    # of two bytes (C1) too
    controls=$(printf '\302[\200-\237]')
    LC_ALL=C tr -d '\000-\010\013-\037\177' < "$runs/$1.txt" | LC_ALL=C sed "s/$controls//g" | awk 'NF' | fold -s -w 76 |
        head -n 10 | sed 's/^/  /'
}

# Builds the programs. For each compiler command it prints only the source file; everything else that make prints, such as an
# error, is printed unchanged.
build() {
    say "Programs: compiling those that are not there; all of them take a minute or two on two cores"
    { make -j"$(getconf _NPROCESSORS_ONLN)" all 2>&1 || echo 'demo: make failed'; } | {
        failed=0
        while IFS= read -r line; do
            case $line in
                'demo: make failed') failed=1 ;;
                *' -o '*)
                    for word in $line; do case $word in *.c | *.cu) echo "   compiling $word" && break ;; esac done
                    ;;
                make*"Nothing to be done"*) ;;
                *) printf '%s\n' "$line" ;;
            esac
        done
        exit $failed
    }
}

# Prints how long training will take, from the times of the second and third step of a short run on generated stories. A
# validation takes a third of a training step's time for each token. Text, tokens, report and samples take about twenty seconds.
tell_time() {
    work=$runs/timing
    if [ -s "$runs/standard/summary.json" ] && [ ! -e "$runs/finished" ]; then return; fi # one of the two models is trained
    say "Time: three steps are trained, and the last two of them timed"
    rm -rf "$work"
    mkdir -p "$work"
    # shellcheck disable=SC2086 # options are words
    { "${GRAMMAR:-$programs/grammar}" --bytes=300000 --out="$work/stories.txt" &&
        "$programs/prepare" --quiet --out="$work/data" --vocab=300 "$work/stories.txt" &&
        "$programs/train_gpt" $common --attn=laser --data="$work/data" --vocab-size=2048 --steps=3 --warmup=1 \
            --val-every=0 --val-tokens=1024 --out="$work/run"; } > "$work/said" 2>&1 || {
        cat "$work/said" >&2
        stop "three steps could not be trained; see the error above"
    }
    val_tokens=65536
    for word in ${DEMO_OPTIONS:-}; do case $word in --val-tokens=*) val_tokens=${word#*=} ;; esac done
    awk -v steps="$steps" -v part="$part" -v val_tokens="$val_tokens" '
        function number(key, text) { text = $0; sub(".*\"" key "\": *", "", text); return text + 0 }
        function words(seconds) { return seconds < 90 ? sprintf("%.0f s", seconds) : sprintf("%.0f min", seconds / 60) }
        /"loss"/ { step = number("step"); at[step] = number("seconds"); tokens = number("tokens") / step }
        END {
            if (step != 3 || !(at[3] > at[1])) exit
            second = (at[3] - at[1]) / 2; validation = second * val_tokens / tokens / 3; rest = 20
            all = 2 * (steps * second + int((steps + part - 1) / part) * validation) + rest
            printf "a step takes %.2g s: two models in %d steps each, with everything else, take about %s\n", second, steps, words(all)
            five = int((300 - rest - 2 * 9 * validation) / (2 * second)) # up to nine validations
            if (five < 8) five = int((300 - rest) / (2 * (second + validation))) # one after each step
            if (all > 330 && five > 0) printf "DEMO_STEPS=%d make demo would take about five minutes\n", five
        }' "$work/run/log.jsonl"
    rm -rf "$work"
}

if [ -z "${DEMO_PROGRAMS:-}" ]; then
    scripts/deps.sh || stop "something the build needs is missing"
    build || stop "the programs could not be built; see the error above"
fi
tell_time
get_text
prepare
if [ -e "$runs/finished" ]; then rm -rf "$runs/finished" "$runs/standard" "$runs/laser"; fi # the last demo is finished
train standard
train laser
report
sample standard
sample laser
touch "$runs/finished"
seconds=$(($(date +%s) - began))
say "Done in $((seconds / 60)) min $((seconds % 60)) s. Open $runs/report.html in a browser; loss.png is beside it."
