#!/usr/bin/env bash
# reproduce_c4_301m.sh [OPTION...]: the two curves of the LASER paper on C4, from nothing: a model of 301 million parameters,
# trained with standard attention and with LASER.
#
#   C4 (scripts/fetch_c4.sh) -> tokens (./prepare) -> training with standard attention -> training with LASER
#   -> a report (./report) with the paper's end points drawn in
#
#   --on=WHERE             gpu, gpus=8 (cards of this machine), cpu (this machine), slurm-gpu or slurm-cpu (jobs of Slurm, with
#                          scripts/slurm_gpu.sh and slurm_cpu.sh). Default: the GPUs of this machine, or cpu if it has none
#   --nodes=N              with --on=slurm-gpu or slurm-cpu: nodes of each job (default 1)
#   --scale=1/1000         everything with a smaller model and less training; see below (default 1)
#   --text=FILE... FILE... files in C4's format (JSON lines, also .gz) instead of downloading C4
#   --tokenizer=FILE       a SentencePiece model or a tokenizer.json instead of a vocabulary of 32,000 tokens that is learned
#                          from the text; data/README.md says which model the paper's framework uses
#   --data=DIR             shards that ./prepare has written already: nothing is downloaded or tokenized
#   --out=DIR              the folder for everything (default runs/c4-301m, at a smaller scale runs/c4-301m-1-1000)
#   --batch=N              sequences of a micro-step on each GPU or process (default: 32 on a GPU, 8,192 tokens on a CPU)
#   --seed=N               the start of all random numbers (default 1)
#   --laser-shift=causal   what LASER subtracts from V before exp(V): causal, or sequence as in the paper (./train_gpt --help)
#   --url=ADDRESS          where fetch_c4.sh finds the files of C4
#   --yes                  does not ask before it begins
#   --dry-run              says what everything needs, and ends
#
# It first says how much disk, memory and time everything needs, and asks. The time is that of a step which ./train_gpt --dry-run
# measures. It can be interrupted at any moment, by Ctrl-C, by a crash or by SIGKILL: the same command goes on from there, and the
# models that come out have the same bits as without the interruption. With Slurm it submits a job for each attention and ends;
# given again, the same command says how far they are, and writes the report when both are done.
#
# --scale=s with s below 1 makes the model's parameters about s times as many and the tokens of training s^1.5 times as many; both
# together take about s^2.5 times the computation. In detail, with L layers, H heads of size D, width C = H D, an MLP of 2 C, T
# tokens in a sequence, V in the vocabulary, and B sequences in a step:
#   L, D and T  x s^0.2      C and V  x s^0.4      B  x s^0.6      steps  x s^0.7      learning rate  x s^(-1/6)
# each rounded to a number that computes well (B to a power of two). So 1/1000 has 0.4 million parameters, 5.2 million tokens and
# takes some minutes on two cores. The loss that it reaches says nothing about the paper's, so no end point is drawn.
#
# Settings: REPRODUCE_PROGRAMS=folder, a folder with the programs, which are then not built; DEPS=skip, nothing is installed.
set -euo pipefail
users=${LC_ALL:-} # for the report, which draws with characters that the terminal can show
export LC_ALL=C   # numbers have a decimal point, whatever the user's language
from=$PWD
cd "$(dirname "$0")/.."

steps_full=160000
published="$steps_full:2.641:paper standard,$steps_full:2.595:paper LASER,$steps_full:2.673:paper LASER 16 layers"
h200_rate=243400 # tokens/s of one H200 with standard attention, and how much longer a step with LASER takes: docs/gpu.md
h200_laser=1.037

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit "${code:-1}"
}
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; }
from_there() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$from" "$1" ;; esac; } # a path of the user's folder

# ---------------------------------------------------------------------------------------------------------- options
on='' nodes=1 scale=1 tokenizer='' data='' out='' batch='' seed=1 laser_shift=causal url='' yes='' dry_run='' texts=()
read_options() {
    local option
    for option; do
        case $option in
            --on=*) on=${option#*=} ;;
            --nodes=*) nodes=${option#*=} ;;
            --scale=*) scale=${option#*=} ;;
            --text=*) texts+=("$(from_there "${option#*=}")") ;;
            --tokenizer=*) tokenizer=$(from_there "${option#*=}") ;;
            --data=*) data=$(from_there "${option#*=}") ;;
            --out=*) out=$(from_there "${option#*=}") ;;
            --batch=*) batch=${option#*=} ;;
            --seed=*) seed=${option#*=} ;;
            --laser-shift=*) laser_shift=${option#*=} ;;
            --url=*) url=${option#*=} ;;
            --yes) yes=yes ;;
            --dry-run) dry_run=yes ;;
            --help | -h) usage && exit 0 ;;
            --*) code=2 fail "unknown option $option; expected --on= --nodes= --scale= --text= --tokenizer= --data= --out= --batch=" \
                "--seed= --laser-shift= --url= --yes --dry-run or --help" ;;
            *)
                [ ${#texts[@]} -gt 0 ] || code=2 fail "'$option' is no option; files of text stand after --text="
                texts+=("$(from_there "$option")")
                ;;
        esac
    done
}

check_number() { # NAME VALUE
    case $2 in '' | *[!0-9]* | 0?* | ??????????*) code=2 fail "--$1=$2: expected a whole number" ;; esac
}

# Sets s, the scale as a number, and `gpus`, the number of cards of this machine that are used.
check_options() {
    local file
    case $scale in
        '' | *[!0-9./]* | */*/* | */ | /* | *.*.*) s=0 ;;
        *) s=$(awk -v x="$scale" 'BEGIN {
            n = split(x, part, "/"); bottom = n > 1 ? part[2] : 1
            if (bottom > 0) printf "%.12g", part[1] / bottom }') ;;
    esac
    awk -v s="$s" 'BEGIN { exit !(s >= 1e-6 && s <= 1) }' || code=2 fail "--scale=$scale: expected a number from 1/1000000 to 1, such as 1/1000 or 0.001"
    check_number nodes "$nodes" && check_number seed "$seed"
    [ "$nodes" -gt 0 ] || code=2 fail "--nodes=0: expected at least 1"
    if [ -n "$batch" ]; then check_number batch "$batch" && { [ "$batch" -gt 0 ] || code=2 fail "--batch=0: expected at least 1"; }; fi
    case $laser_shift in causal | sequence) ;; *) code=2 fail "--laser-shift=$laser_shift: expected causal or sequence" ;; esac
    if [ -z "$on" ]; then on=$(cards_here); fi
    case $on in
        gpu) gpus=1 ;;
        gpus=*)
            gpus=${on#gpus=}
            check_number on "$gpus"
            [ "$gpus" -gt 0 ] || code=2 fail "--on=$on: expected at least 1"
            ;;
        cpu | slurm-gpu | slurm-cpu) gpus=0 ;;
        *) code=2 fail "--on=$on: expected gpu, gpus=8, cpu, slurm-gpu or slurm-cpu" ;;
    esac
    [ -z "$data" ] || [ ${#texts[@]} -eq 0 ] || code=2 fail "--data= and --text=: shards need no text; give one of the two"
    [ -z "$data" ] || [ -z "$tokenizer" ] || code=2 fail "--data= and --tokenizer=: shards have a tokenizer; give one of the two"
    [ -z "$data" ] || [ -e "$data/shards.json" ] || fail "--data=$data: there is no shards.json; ./prepare writes it last"
    for file in ${texts[@]+"${texts[@]}"} ${tokenizer:+"$tokenizer"}; do
        [ -e "$file" ] || fail "there is no file '$file'; name a file that exists"
    done
    out=${out:-$PWD/runs/c4-301m$([ "$s" = 1 ] || printf -- '-%s' "${scale//\//-}")}
}

cards_here() { # prints gpu, gpus=N or cpu
    local count
    count=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU') || true
    if [ "${count:-0}" -gt 1 ]; then echo "gpus=$count"; elif [ "${count:-0}" = 1 ]; then echo gpu; else echo cpu; fi
}

# ---------------------------------------------------------------------------------------------------------- sizes
# Sets the sizes of the model and of the training at this scale: layers head_dim heads seq_len sequences vocab steps warmup lr
# val_every val_tokens save_every, and from them tokens and parameters.
choose_sizes() {
    read -r layers head_dim heads seq_len sequences vocab steps warmup lr val_every val_tokens save_every tokens parameters \
        <<< "$(awk -v s="$s" '
        function whole(x, unit, least,    n) { n = unit * int(x / unit + 0.5); return n < least ? least : n }
        BEGIN {
        L = whole(32 * s^0.2, 1, 1); D = whole(128 * s^0.2, 8, 8); H = whole(1024 * s^0.4 / D, 1, 1); C = H * D
        T = whole(1024 * s^0.2, 16, 16); V = whole(32000 * s^0.4, 64, 320)
        B = 2 ^ whole(log(1024 * s^0.6) / log(2), 1, 0)
        steps = whole(160000 * s^0.7, 1, 10)
        warmup = whole(2000 * s^0.7, 1, steps < 400 ? int(steps / 10) : 40)
        printf "%d %d %d %d %d %d %d %d %.3g %d %d %d %.0f %.0f\n", L, D, H, T, B, V, steps, warmup, 1e-3 * s^(-1/6),
            s == 1 ? 500 : whole(steps / 40, 1, 5), whole(1048576 * s^0.5, 1, 1), s == 1 ? 500 : whole(steps / 20, 1, 5),
            steps * T * B, L * 8 * C * C + V * C
        }')"
    ranks=1 program_name=train_gpt
    case $on in
        gpu | gpus=*) ranks=$gpus program_name=train_gptcu ;;
        slurm-gpu) ranks=$((8 * nodes)) program_name=train_gptcu ;;
        slurm-cpu) ranks=$((2 * nodes)) ;;
    esac
    [ $((sequences % ranks)) -eq 0 ] ||
        fail "--on=$on: a step has $sequences sequences, which $ranks processes cannot share equally; use another number of them"
    if [ -z "$batch" ]; then
        batch=$((sequences / ranks))
        if [ $program_name = train_gptcu ] && [ $batch -gt 32 ]; then batch=32; fi
        if [ $program_name = train_gpt ]; then while [ $((batch * seq_len)) -gt 8192 ]; do batch=$((batch / 2)); done; fi
    fi
}

# Prints the options of the trainer that do not depend on the attention.
model_options() {
    printf '%s ' --preset=c4-301m --batch="$batch" --seed="$seed" --laser-shift="$laser_shift"
    if [ "$s" != 1 ]; then
        printf '%s ' --layers="$layers" --heads="$heads" --head-dim="$head_dim" --embd=$((heads * head_dim)) \
            --mlp-hidden=$((2 * heads * head_dim)) --seq-len="$seq_len" --total-batch=$((sequences * seq_len)) --steps="$steps" \
            --warmup="$warmup" --lr="$lr" --val-every="$val_every" --val-tokens="$val_tokens" --save-every="$save_every"
    fi
    if [ $program_name = train_gptcu ]; then printf '%s ' --dtype=bf16; fi
}

# ---------------------------------------------------------------------------------------------------------- what is needed
# Sets files, the number of training files of C4 that hold so many tokens (a file has about 152 million), and `need`, the bytes of the text,
# of its tokens, and of three checkpoints of each run (two are kept, and a third is being written).
count_disk() {
    local text=0 file size
    validation_files=8
    if [ "$s" != 1 ]; then validation_files=1; fi
    files=$(awk -v tokens="$tokens" 'BEGIN { n = int(tokens / 152e6) + 1; if (n > 1024) n = 1024; print n }')
    for file in ${texts[@]+"${texts[@]}"}; do
        size=$(wc -c < "$file" | tr -d ' ')
        case $file in *.gz | *.zst) text=$((text + size * 26 / 10)) ;; *) text=$((text + size)) ;; esac
    done
    need=$(awk -v given="$text" -v files="$files" -v shards="$data" -v s="$s" -v parameters="$parameters" 'BEGIN {
        downloads = given > 0 || shards != "" ? 0 : files * 298e6 + (s == 1 ? 320e6 : 40e6)
        text = shards != "" ? 0 : given > 0 ? given : 2.6 * downloads # bytes of JSON lines
        printf "%.0f", downloads + text * 2 / (s == 1 ? 4.4 : 2.5) + 2 * 3 * 12 * parameters }')
}

check_disk() {
    local free have=0 there=$out
    while [ ! -d "$there" ]; do there=$(dirname "$there"); done # a folder that is not made yet will lie on its parent's disk
    free=$(df -Pk "$there" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')
    if [ -d "$out" ]; then have=$(du -sk "$out" | awk '{ printf "%.0f", $1 * 1024 }'); fi
    awk -v need="$need" -v have="$have" -v free="$free" -v out="$out" 'BEGIN {
        printf "   disk       %.4g GB in %s", need / 1e9, out
        if (have > 0) printf ", of which %.4g GB are there", have / 1e9
        printf "; %.4g GB are free\n", free / 1e9
        exit !(need - have <= free) }' ||
        fail "there is not enough space in '$out'; name a folder on a larger disk with --out=, or train at a smaller --scale="
}

rates_of_h200() {
    rate_source='computed from the measured rate of one H200 (docs/gpu.md)'
    rate_standard=$((h200_rate * ranks))
    rate_laser=$(awk -v r=$rate_standard -v l=$h200_laser 'BEGIN { printf "%.0f", r / l }')
}

# Prints the larger of a number of bytes and those in the line of standard input that begins with PATTERN and ends in `N MiB`.
largest() { # PATTERN BYTES
    awk -v pattern="$1" -v most="$2" '$0 ~ pattern && $NF == "MiB" { m = $(NF - 1) * 1048576; if (m > most) most = m }
        END { printf "%.0f", most }'
}

# Sets rate_standard and rate_laser, tokens/s of all processes together, and memory and gpu_memory, bytes of each process.
measure() {
    local attention said launcher=()
    rate_source="measured here, by ./$program_name --dry-run" memory=0 gpu_memory=0
    if [ "$on" = slurm-gpu ]; then
        rates_of_h200
        return
    fi
    if [ "$gpus" -gt 1 ]; then launcher=(mpirun -n "$gpus"); fi
    for attention in standard laser; do
        # shellcheck disable=SC2046 # options are words
        said=$(${launcher[@]+"${launcher[@]}"} "$programs/$program_name" --dry-run --attn=$attention --vocab-size="$vocab" \
            $(model_options) 2>&1 < /dev/null) || {
            said=$(grep -v -e '^[- ]*$' <<< "$said" | grep -m 1 -e 'error' -e 'mpirun' || tail -n 1 <<< "$said")
            if [ -z "$dry_run" ] || [ $program_name = train_gpt ]; then fail "./$program_name --dry-run failed: $said"; fi
            printf '   no step could be measured here: %s\n' "$said"
            rates_of_h200
            return
        }
        case $said in *'does not fit'*) [ "$on" = slurm-cpu ] || fail "the model does not fit into the memory of this machine;" \
            "give a smaller --batch= (now $batch) or --scale=" ;; esac
        printf -v "rate_$attention" '%s' "$(awk '/ tokens\/s, / { print $1 }' <<< "$said")"
        memory=$(largest '^all ' "$memory" <<< "$said") gpu_memory=$(largest '^on the GPU ' "$gpu_memory" <<< "$said")
    done
    if [ "$on" = slurm-cpu ]; then
        rate_source="as if $nodes nodes were each as fast as this machine, by ./train_gpt --dry-run"
        rate_standard=$(awk -v r="$rate_standard" -v n="$nodes" 'BEGIN { print r * n }')
        rate_laser=$(awk -v r="$rate_laser" -v n="$nodes" 'BEGIN { print r * n }')
    fi
    case ${rate_standard:-0},${rate_laser:-0} in 0,* | *,0) fail "./$program_name --dry-run timed no step" ;; esac
}

# Prints the sizes, and the time of both runs in days of a device, or in minutes where that is less than a day.
print_needs() {
    local device=CPU devices=$nodes
    if [ $program_name = train_gptcu ]; then device=GPU devices=$ranks; fi
    awk -v L="$layers" -v H="$heads" -v D="$head_dim" -v T="$seq_len" -v V="$vocab" -v parameters="$parameters" -v steps="$steps" \
        -v tokens="$tokens" -v standard="$rate_standard" -v laser="$rate_laser" -v source="$rate_source" -v memory="$memory" \
        -v gpu_memory="$gpu_memory" -v device=$device -v devices="$devices" '
        function duration(x) {
            if (x < 90) return sprintf("%.0f s", x)
            return x < 5400 ? sprintf("%.0f min", x / 60) : x < 172800 ? sprintf("%.1f hours", x / 3600) : sprintf("%.1f days", x / 86400)
        }
        BEGIN {
            million = (tokens < 1e9) ? "million" : "billion"
            printf "   model      %d layers, %d heads of %d, T %d, vocabulary %d: %.3g million parameters\n", L, H, D, T, V, parameters / 1e6
            printf "   training   %d steps of %d tokens, %.4g %s in all, once with each attention\n", steps, tokens / steps,
                tokens / (tokens < 1e9 ? 1e6 : 1e9), million
            a = tokens / standard; b = tokens / laser
            printf "   time       standard %s, LASER %s", duration(a), duration(b)
            if ((a + b) * devices > 43200) printf ": %.1f %s-days together", (a + b) * devices / 86400, device
            printf "\n              (%.0f and %.0f tokens/s, %s)\n", standard, laser, source
            if (memory > 0) printf "   memory     %.3g GiB for each process", memory / 1073741824
            if (gpu_memory > 0) printf ", %.3g GiB on its GPU", gpu_memory / 1073741824
            if (memory > 0) printf "\n"
        }'
}

print_text() {
    if [ -n "$data" ]; then
        printf '   data       %s, as it is\n' "$data"
    elif [ ${#texts[@]} -gt 0 ]; then
        printf '   text       %d file(s) of your own\n' ${#texts[@]}
    else
        printf '   text       downloads %d of the 1,024 training files of C4 and %s of its 8 validation files\n' "$files" "$validation_files"
    fi
}

ask() {
    local answer
    if [ -n "$yes" ]; then return; fi
    if [ ! -t 0 ]; then code=2 fail "nobody can be asked whether to begin: there is no terminal; give --yes"; fi
    printf '\nBegin? [y/N] '
    read -r answer || answer=''
    case $answer in y | Y | yes) ;; *) fail "not begun" ;; esac
}

# ---------------------------------------------------------------------------------------------------------- going on
# The folder belongs to one reproduction: what it holds was made with the settings in the file `settings`, and a command with
# others would mix two of them.
settings() {
    printf '%s\n' "scale=$s" "seed=$seed" "laser-shift=$laser_shift" "tokenizer=$tokenizer" "data=$data" ${texts[@]+"${texts[@]/#/text=}"}
}

check_settings() {
    if [ ! -e "$out/settings" ]; then return; fi
    if [ "$(settings)" != "$(cat "$out/settings")" ]; then
        diff "$out/settings" <(settings) | sed -n 's/^</found   /p; s/^>/expected/p' >&2 || true
        fail "'$out' holds a reproduction with other settings (above); choose another --out="
    fi
}

# Refuses to work beside another copy of this script in the same folder. A copy that was killed may have left programs at work
# there; they are asked to save and end, so that this one can go on.
take_folder() {
    local owner pattern pid pids
    owner=$(cat "$out/process" 2> /dev/null) || owner=''
    if [ -n "$owner" ] && [ "$owner" != $$ ] && ps -p "$owner" -o args= 2> /dev/null | grep -q 'reproduce_c4_301m'; then
        fail "process $owner is at work in '$out' already; wait for it, or end it"
    fi
    pattern=$(printf '%s' "$out" | sed 's/[][\.*^$+?(){}|]/\\&/g')
    pattern="(train_gpt(cu)?|prepare|run_resilient\.sh) .*--out=$pattern/(data|standard|laser)( |$)|(fetch_c4\.sh|curl) .*$pattern/text(/| |$)"
    pids=$(pgrep -f -- "$pattern") || true
    if [ -n "$pids" ]; then
        say "An earlier start was killed, but left programs at work: they are asked to save and end"
        for pid in $pids; do kill -s TERM "$pid" 2> /dev/null || true; done
        for _ in $(seq 1 600); do
            pgrep -f -- "$pattern" > /dev/null || break
            sleep 0.5
        done
        if pgrep -f -- "$pattern" > /dev/null; then fail "these processes did not end: $(pgrep -f -- "$pattern" | tr '\n' ' ')"; fi
    fi
    printf '%s\n' $$ > "$out/process"
}

# ---------------------------------------------------------------------------------------------------------- running
child='' stopped=''
# Runs a program in the background, so that a signal to this script is passed on at once. `group`: the signal goes to all processes
# that the program has started; a trainer's launcher passes it on itself.
run() { # group | alone COMMAND...
    local kind=$1
    shift
    set -m # the program gets a process group of its own, so that Ctrl-C reaches only this script
    "$@" < /dev/null &
    child=$!
    set +m
    if [ "$kind" = group ]; then child=-$child; fi
    code=0
    wait "${child#-}" || code=$?
    while kill -0 "${child#-}" 2> /dev/null; do # a signal that this script catches ends `wait`, but not the program
        code=0
        wait "${child#-}" || code=$?
    done
    child=''
    if [ -n "$stopped" ]; then interrupted; fi
    return $code
}
interrupted() {
    printf '\nreproduce: interrupted; the same command goes on from there\n' >&2
    exit 130
}
# shellcheck disable=SC2317 # a trap calls it
stop() {
    stopped=yes
    if [ -n "$child" ]; then kill -s TERM -- "$child" 2> /dev/null || true; else interrupted; fi
}

build() {
    local targets=(train_gpt prepare report)
    if [ -n "${REPRODUCE_PROGRAMS:-}" ]; then return; fi
    case $on in gpu | gpus=*) targets+=(train_gptcu) ;; esac
    say "Programs: ${targets[*]}"
    scripts/deps.sh || fail "something the build needs is missing"
    if make -s "${targets[@]}" 2> >(grep -v '^ptxas info' >&2); then return; fi
    # the time on a GPU can be computed without its trainer
    [ -n "$dry_run" ] || fail "the programs could not be built; see the error above"
}

fetch() {
    say "Text: downloading C4 to $out/text"
    run group scripts/fetch_c4.sh --files=0-$((files - 1)) --validation=0-$((validation_files - 1)) ${url:+--url="$url"} "$out/text" ||
        fail "C4 was not downloaded; see the error above"
}

tokenize() {
    local vocabulary=(--vocab="$vocab") sources=("$out/text")
    if [ -e "$out/data/shards.json" ]; then return; fi # the text may be gone by now
    if [ ${#texts[@]} -gt 0 ]; then sources=("${texts[@]}"); else fetch; fi
    if [ -n "$tokenizer" ]; then vocabulary=(--tokenizer="$tokenizer"); fi
    say "Tokens: writing the text as numbers to $out/data"
    run group "$programs/prepare" --out="$out/data" "${vocabulary[@]}" "${sources[@]}" ||
        fail "the text could not be prepared; see the error above"
}

train() { # ATTENTION
    local launcher=()
    if [ -s "$out/$1/summary.json" ]; then return; fi
    case $on in
        slurm-*)
            submit "$1"
            return
            ;;
    esac
    if [ "$gpus" -gt 1 ]; then launcher=(mpirun -n "$gpus"); fi
    say "Training with $1 attention, in $out/$1"
    # shellcheck disable=SC2046 # options are words
    run alone scripts/run_resilient.sh ${launcher[@]+"${launcher[@]}"} "$programs/$program_name" $(model_options) --attn="$1" \
        --data="$data" --out="$out/$1" --resume=auto || fail "training with $1 attention failed; see the error above"
    [ -s "$out/$1/summary.json" ] || fail "training with $1 attention was stopped; the same command goes on from there"
}

# Puts the run into Slurm's queue, unless it is there already.
submit() { # ATTENTION
    local job words=() kind=${on#slurm-}
    job=$(cat "$out/$1.job" 2> /dev/null) || job=''
    if [ -n "$job" ] && [ -n "$(squeue -h -j "$job" 2> /dev/null)" ]; then
        say "Training with $1 attention: job $job, $(tail -n 1 "$out/$1/log.jsonl" 2> /dev/null || echo 'not begun')"
        return
    fi
    words=(sbatch --parsable --nodes="$nodes")
    if [ "$kind" = gpu ]; then words+=(--gpus-per-node=8 --ntasks-per-node=8); fi
    # shellcheck disable=SC2046 # options are words
    job=$(DATA=$data OUT=$out/$1 "${words[@]}" "scripts/slurm_$kind.sh" $(model_options) --attn="$1") ||
        fail "the job was not accepted; see the error above"
    printf '%s\n' "${job%%;*}" > "$out/$1.job"
    say "Training with $1 attention: job ${job%%;*} is in Slurm's queue; it continues itself until it is done"
}

report() {
    local marks=()
    if [ ! -s "$out/standard/summary.json" ] || [ ! -s "$out/laser/summary.json" ]; then
        say "When both jobs are done, the same command writes the report"
        return
    fi
    say "What came out"
    if [ "$s" = 1 ]; then marks=(--mark="$published"); fi
    LC_ALL=$users "$programs/report" --out="$out/report.html" --png="$out/loss.png" ${marks[@]+"${marks[@]}"} \
        "$out/standard" "$out/laser" || fail "no report; see the error above"
    if [ "$s" = 1 ]; then
        printf '\nThe losses of the paper are for each token of its own vocabulary of 32,000; with another vocabulary a token stands for\n'
        printf 'more or less text, and losses differ for that reason alone. docs/results.md says what is known about the settings.\n'
    else
        printf '\nThis model is smaller than the paper'\''s, so the published losses (2.641 and 2.595) are not drawn.\n'
    fi
    say "Done: $out/report.html and $out/loss.png"
}

# A function, so that the shell has read all of this file before it begins: runs take days, and a shell that reads on in a file
# that was replaced meanwhile would do anything.
main() {
    read_options "$@"
    check_options
    programs=${REPRODUCE_PROGRAMS:-.}
    choose_sizes
    count_disk
    if [ -d "$out" ]; then check_settings; fi
    build
    say "The two curves of the LASER paper at scale $scale, on ${on/=/ }"
    if [ ! -e "$out/settings" ] || [ -n "$dry_run" ]; then
        measure
        print_needs
        print_text
        check_disk
        if [ -n "$dry_run" ]; then exit 0; fi
        ask
        mkdir -p "$out"
        settings > "$out/settings.new"
        mv "$out/settings.new" "$out/settings"
    else
        print_text
        check_disk
    fi
    take_folder
    trap stop INT TERM HUP
    if [ -z "$data" ]; then
        tokenize
        data=$out/data
    fi
    train standard
    train laser
    report
    rm -f "$out/process"
}
{ main "$@"; exit; }
