#!/usr/bin/env bash
# ab.sh: trains models that differ in one option, each with several seeds, and compares them.
#
#   scripts/ab.sh --vary attn=standard,laser --seeds 5 -- --preset=demo --data=data/demo
#
# What stands after -- are options of ./train_gpt that all runs share. Each value of --vary is an arm of the experiment. Runs of
# different arms with the same seed are pairs: they read the same data in the same order and, where the arms have the same list
# of tensors, begin with the same values. At the end ./report compares the arms by these pairs; docs/experiments.md says how.
#
#   --vary NAME=A,B[,...]   the option of ./train_gpt that is varied, and its values: the arms (two or more; the first is the one
#                           that the others are compared with)
#   --seeds N | A,B,...     the seeds 1 to N, or a list of seeds with a comma in it (default 3)
#   --out DIR               the folder of all runs, one folder in it for each (default runs/ab)
#   --sweep NAME=A,B[,...]  first trains each arm with each of these values with the first seed, and takes for each arm the value
#                           with the lowest final validation loss; that run counts as the arm's first seed
#   --jobs N                so many runs side by side; the processor's cores are divided among them (default 1, or that of --gpus)
#   --gpus N                the runs use N GPUs, each run its own N / jobs (through CUDA_VISIBLE_DEVICES)
#   --program FILE          the trainer (default ./train_gpt); ./train_gptcu trains on a GPU
#   --launcher "COMMAND"    what stands before the trainer, such as "mpirun -np 2"
#   --dry-run               checks everything, prints the commands and how long they would take, and trains nothing
#   --help                  prints this
#
# The same command goes on after an interruption: runs that are finished are not repeated, the others go on from their last
# checkpoint. Seeds, arms and values of --sweep may be added to a folder; every other setting must be the one that the folder was
# made with. Ctrl-C (or SIGTERM, SIGUSR1, SIGXCPU) lets each run save a checkpoint, and prints the command that goes on. A run that
# fails after its first step, for example because it diverges, does not end the others. Exit code: 0 all runs are finished, 1
# something failed, 2 an option is wrong, 130 interrupted.
set -u
users=${LC_ALL:-} # for the report, which draws with characters that the terminal can show
export LC_ALL=C   # numbers have a decimal point, whatever the user's language

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; }
say() { printf '\n== %s\n' "$*"; }
wrong() { printf 'error: %s (see scripts/ab.sh --help)\n' "$*" >&2 && exit 2; }
stop() { printf 'error: %s\n' "$*" >&2 && exit 1; }
quoted() { # WORD...: as a shell reads them, without quotes where none are needed
    local word
    for word; do
        case $word in '' | *[!A-Za-z0-9_./:,=+@%-]*) printf " '%s'" "${word//\'/\'\\\'\'}" ;; *) printf ' %s' "$word" ;; esac
    done
}
words() { awk -v s="$1" 'BEGIN {
    if (s < 90) printf "%.0f s", s; else if (s < 5400) printf "%.0f min", s / 60
    else if (s < 129600) printf "%.1f h", s / 3600; else printf "%.1f days", s / 86400 }'; } # SECONDS

# ---- the command line ----
again=$(quoted "$0" "$@") again=${again# }
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
vary='' seeds=3 out=runs/ab sweep='' jobs='' gpus='' program=./train_gpt launcher='' dry=''
[ "$root" = "$PWD" ] || program=$root/train_gpt
known=' vary seeds out sweep jobs gpus program launcher '
while [ $# != 0 ] && [ "$1" != -- ]; do
    case $1 in
        --help | -h) usage && exit 0 ;;
        --dry-run) dry=yes && shift && continue ;;
        --*=*) name=${1%%=*} value=${1#*=} && shift ;;
        --*)
            name=$1 value=${2---}
            case $known in *" ${name#--} "*) [ "$value" != -- ] || wrong "$name: a value is missing" ;; esac
            shift
            if [ $# != 0 ]; then shift; fi
            ;;
        *) wrong "'$1': expected an option, or -- and then options of the trainer" ;;
    esac
    case $name in
        --vary) vary=$value ;;
        --seeds) seeds=$value ;;
        --out) out=${value%/} ;;
        --sweep) sweep=$value ;;
        --jobs) jobs=$value ;;
        --gpus) gpus=$value ;;
        --program) program=$value ;;
        --launcher) launcher=$value ;;
        *)
            for word in $known; do
                case --$word in "$name"*) wrong "unknown option $name; did you mean --$word?" ;; esac
                case $name in "--$word"*) wrong "unknown option $name; did you mean --$word?" ;; esac
            done
            wrong "unknown option $name; expected one of${known// / --}dry-run; options of the trainer stand after --"
            ;;
    esac
done
[ $# = 0 ] || shift

# The options of the trainer, each as one word, also where a value stands in a word of its own.
options=()
while [ $# != 0 ]; do
    case $1 in
        --*=*) options+=("$1") ;;
        --*) if [ $# -gt 1 ] && [ "${2#--}" = "$2" ]; then options+=("$1=$2") && shift; else options+=("$1"); fi ;;
        *) wrong "'$1' after --: expected options of the trainer" ;;
    esac
    shift
done

whole() { # OPTION VALUE LEAST MOST
    case $2 in '' | *[!0-9]* | ????????*) ;; *) [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] && return ;; esac
    wrong "--$1=$2: expected a whole number from $3 to $4"
}

# Splits NAME=A,B into the variables `name` and `list`.
split_values() { # OPTION VALUE LEAST
    local one other i
    name=${2%%=*} name=${name#--}
    case $2 in ?*=?*) ;; *) wrong "--$1=$2: expected the name of an option and its values, as in --$1 attn=standard,laser" ;; esac
    IFS=, read -r -a list <<< "${2#*=}"
    [ ${#list[@]} -ge "$3" ] || wrong "--$1=$2: expected $3 or more values, with commas between them"
    for i in "${!list[@]}"; do
        one=${list[i]}
        [ -n "$one" ] || wrong "--$1=$2: value $((i + 1)) is empty"
        for other in "${list[@]:0:i}"; do [ "$other" != "$one" ] || wrong "--$1=$2: the value $one is there twice"; done
    done
    for i in ${options[@]+"${options[@]}"}; do
        case $i in
            --"$name" | --"$name"=*) wrong "$i stands after --, but --$1 gives --$name its values; leave it out after --" ;;
        esac
    done
}

[ -n "$vary" ] || wrong "--vary NAME=A,B is missing: which option makes the arms?"
split_values vary "$vary" 2
vary=$name arms=("${list[@]}")
values=('')
if [ -n "$sweep" ]; then
    split_values sweep "$sweep" 2
    sweep=$name values=("${list[@]}")
    [ "$sweep" != "$vary" ] || wrong "--sweep and --vary are both of --$vary; sweep another option"
fi
case $seeds in
    *,*)
        split_values seeds "seed=${seeds%,}" 1
        seed_list=("${list[@]}")
        for seed in "${seed_list[@]}"; do
            case $seed in *[!0-9]*) wrong "--seeds=$seeds: '$seed' is not a whole number" ;; esac
        done
        ;;
    *) whole seeds "$seeds" 1 100 && read -r -d '' -a seed_list <<< "$(seq "$seeds")" ;;
esac
[ -n "$out" ] || wrong "--out is empty"
if [ -n "$gpus" ]; then whole gpus "$gpus" 1 64; fi
jobs=${jobs:-${gpus:-1}}
whole jobs "$jobs" 1 64
if [ -n "$gpus" ] && [ "$jobs" -gt "$gpus" ]; then wrong "--jobs=$jobs: there are only $gpus GPUs for them"; fi
threads='' data=() has_data=''
for word in ${options[@]+"${options[@]}"}; do
    case $word in
        --seed | --seed=* | --out | --out=* | --resume | --resume=*) wrong "$word after --: scripts/ab.sh gives each run its own" ;;
        --dry-run | --dry-run=* | --help | --version) wrong "$word after --: scripts/ab.sh has --dry-run and --help of its own" ;;
        --threads=*) threads=given ;;
        --data=*) data+=("${word#*=}") has_data=yes ;;
        --config=*)
            has_data=yes
            [ -f "${word#*=}" ] || wrong "$word: there is no such file"
            ;;
    esac
done
if [ "$vary" = data ]; then data+=("${arms[@]}") has_data=yes; fi
[ -n "$has_data" ] || wrong "--data=DIR is missing after --; it names a folder that ./prepare wrote"
for word in ${data[@]+"${data[@]}"}; do # "c4:0.9,books:0.1" are two folders
    [ ! -e "$word" ] || continue
    for part in ${word//,/ }; do [ -d "${part%%:*}" ] || wrong "--data=$word: there is no folder ${part%%:*}"; done
done
read -r -a launch <<< "$launcher"
if [ "$jobs" -gt 1 ] && [ -z "$threads" ]; then
    [ ${#launch[@]} = 0 ] || wrong "--jobs=$jobs with --launcher needs --threads=N after --: the threads of each rank"
    threads=$(($(getconf _NPROCESSORS_ONLN) / jobs))
    options+=("--threads=$((threads > 0 ? threads : 1))")
fi
command -v "$program" > /dev/null || stop "there is no program $program; make builds it, and --program names another"
report=$(dirname "$program")/report
[ -x "$report" ] || report=$root/report
[ -x "$report" ] || stop "there is no program $report; make builds it"

# ---- the runs ----

folder_of() { # ARM VALUE SEED: the name of the run's folder
    local arm=$1
    case $arm in [0-9.+-]*) arm=$vary=$arm ;; esac
    arm=$arm${2:+-$sweep=$2}-seed-$3
    printf '%s' "${arm//[^A-Za-z0-9_.=+-]/_}"
}

# Sets `command` to the command of a run, without --out.
command_of() { # ARM VALUE SEED
    command=(${launch[@]+"${launch[@]}"} "$program" ${options[@]+"${options[@]}"} "--$vary=$1" ${2:+"--$sweep=$2"} "--seed=$3")
}

is_finished() { grep -q '"final_val_loss"' "$out/$1/summary.json" 2> /dev/null; } # RUN

final_loss() { # RUN: its final validation loss; "failed" where it has none, or one that is not a number
    is_finished "$1" || { echo failed && return; }
    awk '/"final_val_loss"/ { sub(/.*"final_val_loss"[^:]*:[ \t]*/, ""); print /^[0-9.-]/ ? $0 + 0 : "failed"; exit }' \
        "$out/$1/summary.json"
}

short_loss() { # RUN: the same with four decimals
    local loss
    loss=$(final_loss "$1")
    if [ "$loss" = failed ]; then echo failed; else printf '%.4f' "$loss"; fi
}

# Two arms with the same folder would overwrite each other.
twice=$(for arm in "${arms[@]}"; do for value in "${values[@]}"; do folder_of "$arm" "$value" 1 && echo; done; done |
    sort | uniq -d | head -n 1)
[ -z "$twice" ] || wrong "two arms would have the folder $twice: their values differ only in special characters"

# ---- signals ----
interrupted='' # the signal that ends the script
slots=() slot_runs=() slot_began=() # of each run in progress: its process, its name, when it began and whether anew

pass_on() { # SIGNAL: to all runs in progress
    local pid signal=$1
    # mpirun passes SIGUSR1 on to its ranks; after a SIGTERM it would kill them before they have saved
    case ${launch[0]-} in *mpirun | *mpiexec | *orterun | *prterun) signal=USR1 ;; esac
    interrupted=$1
    for pid in ${slots[@]+"${slots[@]}"}; do [ -z "$pid" ] || kill -s "$signal" "$pid" 2> /dev/null; done
}
for signal in INT TERM HUP USR1 XCPU; do
    # shellcheck disable=SC2064 # the signal of this turn of the loop
    trap "pass_on $signal" "$signal"
done

# ---- checks, before anything is trained ----

# Options of the trainer that change no result, and so may differ from call to call.
free=' threads save-every keep keep-every profile verify-data sample-every sample-tokens temperature prompt recompute zero comm '
free+='comm-thread max-skipped analyze-every '

# What must stay the same in a folder: lines NAME=VALUE.
settings() {
    local word name part
    printf '%s\n' "the trainer=${program##*/}" "the launcher=${launcher:-none}"
    printf '%s\n' "the option of --vary=$vary" "the option of --sweep=${sweep:-none}"
    for word in ${options[@]+"${options[@]}"}; do # of an option that is there twice, the last counts
        name=${word%%=*}
        case $free in *" ${name#--} "*) ;; *) printf '%s\n' "$word" ;; esac
    done | awk -F= '{ if (!($1 in last)) name[++n] = $1; last[$1] = $0 } END { for (i = 1; i <= n; i++) print last[name[i]] }'
    for word in ${options[@]+"${options[@]}"}; do
        case $word in --config=*) printf 'the content of %s=%s\n' "${word#*=}" "$(cksum < "${word#*=}")" ;; esac
    done
    for word in ${data[@]+"${data[@]}"}; do
        for part in ${word//,/ }; do
            part=${part%%:*}
            if [ -f "$part/shards.json" ]; then printf 'the content of %s=%s\n' "$part" "$(cksum < "$part/shards.json")"; fi
        done
    done
}

# Prints how the settings differ from those in the file, in words.
differences() { # FILE
    awk -v file="$1" '
        { name = $0; sub(/=.*/, "", name); value = substr($0, length(name) + 2) }
        value == "" { value = index($0, "=") ? "empty" : "given" }
        FILENAME == file { was[name] = value; order[++n] = name; next }
        { now[name] = value; if (!(name in was)) order[++n] = name }
        END {
            for (i = 1; i <= n; i++) {
                name = order[i]
                a = name in was ? was[name] : "not given"; b = name in now ? now[name] : "not given"
                if (a == b || said++ >= 3) continue
                printf "%s%s", (said > 1 ? "; " : ""), name
                if (name ~ /^the content/) printf " has changed"; else printf " is %s here, and was %s", b, a
            }
            if (said > 3) printf "; and %d more", said - 3
        }' "$1" -
}

check_settings() {
    local different
    if [ -f "$out/ab.settings" ]; then
        different=$(settings | differences "$out/ab.settings")
        [ -z "$different" ] || wrong "$out was made with other settings: $different. Give the same ones, or another --out"
    elif [ -d "$out" ] && [ -n "$(ls -A "$out")" ]; then
        wrong "$out holds other files already; give another --out"
    fi
}

# Runs the trainer with --help or --dry-run after the options of a run, and leaves what it printed in `said`. Ends the script with
# the trainer's own message if it refuses them. With --help it is run without the launcher: mpirun takes its end for a crash.
try_options() { # --help|--dry-run ARM VALUE
    local code mode=$1
    shift
    command_of "$@" "${seed_list[0]}"
    if [ "$mode" = --help ]; then command=("${command[@]:${#launch[@]}}"); fi
    said=$("${command[@]}" "$mode" 2>&1 < /dev/null)
    code=$?
    [ -z "$interrupted" ] || exit 130
    [ $code != 0 ] || return 0
    grep -m 1 -e '^error: ' <<< "$said" >&2 || tail -n 2 <<< "$said" >&2
    exit $code
}

# How large the model of each arm is, and how long the trainer estimates that a run takes.
estimate() {
    local arm
    for arm in "${arms[@]}"; do
        try_options --dry-run "$arm" "${values[0]}"
        printf '%s, each run: %s, %s\n' "$vary=$arm" "$(sed -n 's/ (weight.*//; s/^parameters //p' <<< "$said" | head -n 1)" \
            "$(sed -n 's/, the run/ a step,/; s/.*step would take \(.*\)/about \1 in all/p' <<< "$said")"
        grep -e '^It does not fit' <<< "$said"
    done
}

# ---- running ----

failed_runs=() done_count=0 first_seconds=''

go_on() { # ends the script after an interruption
    printf '\nab: interrupted; %d of %d runs are finished. This goes on:\n  %s\n' "$(count_finished)" "$total" "$again" >&2
    exit 130
}

count_finished() {
    local count=0 name
    for name in "${all_runs[@]}"; do if is_finished "$name"; then count=$((count + 1)); fi; done
    echo $count
}

start_run() { # SLOT ARM VALUE SEED
    local slot=$1 name per devices visible anew=1
    shift
    name=$(folder_of "$@")
    command_of "$@"
    command+=("--out=$out/$name" --resume=auto)
    [ ! -s "$out/$name/log.jsonl" ] || anew=0
    if [ -n "$gpus" ]; then
        per=$((gpus / jobs))
        visible=${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((gpus - 1)))}
        devices=$(cut -d, -f$((slot * per + 1))-$((slot * per + per)) <<< "$visible")
        command=(env "CUDA_VISIBLE_DEVICES=$devices" "${command[@]}")
    fi
    # The run gets a process group of its own, so Ctrl-C reaches only this script, which passes it on.
    set -m
    if [ "$jobs" = 1 ]; then
        say "$name, run $((done_count + 1)) of $total:$(quoted "${command[@]}")"
        "${command[@]}" < /dev/null &
    else
        echo "$name: started"
        "${command[@]}" < /dev/null > "$out/output/$name.txt" 2>&1 &
    fi
    slots[slot]=$! slot_runs[slot]=$name slot_began[slot]="$SECONDS $anew"
    set +m
}

# After a run has ended: says so, and after the first one how long the rest takes.
end_run() { # SLOT EXIT_CODE
    local slot=$1 code=$2 name=${slot_runs[$1]} began anew left left_seconds
    read -r began anew <<< "${slot_began[$slot]}"
    slots[slot]=''
    if is_finished "$name"; then
        done_count=$((done_count + 1))
        [ "$jobs" = 1 ] || echo "$name: validation loss $(short_loss "$name") ($done_count of $total runs)"
        if [ "$anew" = 1 ] && [ -z "$first_seconds" ] && [ $done_count -lt "$total" ]; then
            first_seconds=$((SECONDS - began)) left=$((total - done_count))
            left_seconds=$((((left + jobs - 1) / jobs) * first_seconds))
            echo "one run took $(words $first_seconds): the other $left take about $(words $left_seconds)"
        fi
    elif [ "$code" = 0 ]; then # a signal from elsewhere stopped it: a job scheduler's
        [ -n "$interrupted" ] || pass_on TERM
    else
        failed_runs+=("$name")
        done_count=$((done_count + 1))
        [ "$jobs" = 1 ] || tail -n 3 "$out/output/$name.txt" >&2
        # without a step something is wrong that the other runs would meet as well
        if [ -n "$interrupted" ]; then return; fi
        if ! grep -q '"loss"' "$out/$name/log.jsonl" 2> /dev/null; then
            fatal="$name failed before its first step (exit code $code); see the message above"
            pass_on TERM
        else
            echo "ab: $name failed (exit code $code); the other runs go on" >&2
        fi
    fi
}

fatal=''
run_all() { # "ARM VALUE SEED" with \037 between: one word a run
    local queue=("$@") next=0 slot busy run arm value seed code
    while :; do
        busy=0
        for ((slot = 0; slot < jobs; slot++)); do
            if [ -n "${slots[slot]-}" ] && ! kill -0 "${slots[slot]}" 2> /dev/null; then
                wait "${slots[slot]}" 2> /dev/null
                code=$?
                end_run "$slot" "$code"
            fi
            while [ -z "${slots[slot]-}" ] && [ -z "$interrupted" ] && [ "$next" -lt ${#queue[@]} ]; do
                IFS=$'\037' read -r arm value seed <<< "${queue[next]}"
                next=$((next + 1))
                run=$(folder_of "$arm" "$value" "$seed")
                if is_finished "$run"; then done_count=$((done_count + 1)); else start_run "$slot" "$arm" "$value" "$seed"; fi
            done
            if [ -n "${slots[slot]-}" ]; then busy=1; fi
        done
        [ $busy = 1 ] || break
        sleep "${AB_PAUSE:-0.2}" > /dev/null 2>&1
    done
    [ -z "$fatal" ] || stop "$fatal"
    [ -z "$interrupted" ] || go_on
}

# ---- the sweep ----

# Sets best[arm] to the value with the lowest loss, prints the table, and warns of a best value at an end of the list.
choose() {
    local arm value loss lowest i ends
    say "Sweep of --$sweep with seed ${seed_list[0]}: final validation loss; * is taken for its arm"
    printf '%-16s' "$sweep"
    printf ' %10s' "${values[@]}"
    echo
    ends=$(printf '%s\n' "${values[@]}" | sort -g | sed -n '1p;$p')
    for i in "${!arms[@]}"; do
        arm=${arms[i]} lowest=''
        for value in "${values[@]}"; do
            loss=$(final_loss "$(folder_of "$arm" "$value" "${seed_list[0]}")")
            [ "$loss" != failed ] || continue
            if [ -z "$lowest" ] || awk "BEGIN { exit !($loss < $lowest) }"; then lowest=$loss best[i]=$value; fi
        done
        [ -n "$lowest" ] || stop "every run of $vary=$arm in the sweep failed; see the messages above"
        printf '%-16s' "$arm"
        for value in "${values[@]}"; do
            loss=$(short_loss "$(folder_of "$arm" "$value" "${seed_list[0]}")")
            printf ' %10s' "$loss$([ "$value" != "${best[i]}" ] || echo '*')"
        done
        echo
    done
    for i in "${!arms[@]}"; do
        case ${best[i]} in *[!0-9.e+-]*) continue ;; esac # not a number: the list has no ends
        if grep -qxF -e "${best[i]}" <<< "$ends"; then
            echo "warning: the best --$sweep of ${arms[i]}, ${best[i]}, is at an end of the list: a better one may lie" \
                "beyond it; add one to --sweep" >&2
        fi
    done
}

# ---- the experiment ----

add_run() { # ARM VALUE SEED: to the queue
    queue+=("$1"$'\037'"$2"$'\037'"$3") all_runs+=("$(folder_of "$@")")
}

print_queue() {
    local run
    for run in ${queue[@]+"${queue[@]}"}; do
        IFS=$'\037' read -r arm value seed <<< "$run"
        command_of "$arm" "$value" "$seed"
        printf ' %s --out=%s\n' "$(quoted "${command[@]}")" "$out/$(folder_of "$arm" "$value" "$seed")"
    done
}

total=$((${#arms[@]} * (${#values[@]} + ${#seed_list[@]} - 1)))
for arm in "${arms[@]}"; do
    for value in "${values[@]}"; do try_options --help "$arm" "$value"; done
done
check_settings
list() { (IFS=, && echo "$*"); } # WORD...: with commas between them
swept=${sweep:+", --$sweep=$(list "${values[@]}") with seed ${seed_list[0]}"}
say "$total runs: --$vary=$(list "${arms[@]}"), seeds $(list "${seed_list[@]}")$swept, in $out; $jobs at a time"
estimate
if [ -z "$dry" ]; then
    mkdir -p "$out/output" || exit 1
    settings > "$out/ab.settings" || exit 1
fi

queue=() best=() all_runs=() reported=()
if [ -n "$sweep" ]; then
    for value in "${values[@]}"; do
        for arm in "${arms[@]}"; do add_run "$arm" "$value" "${seed_list[0]}"; done
    done
    if [ -n "$dry" ]; then
        print_queue
        for i in "${!arms[@]}"; do best[i]=BEST; done
    else
        run_all "${queue[@]}"
        choose
    fi
    queue=()
fi
for seed in "${seed_list[@]}"; do
    for i in "${!arms[@]}"; do
        reported+=("$out/$(folder_of "${arms[i]}" "${best[i]-}" "$seed")")
        if [ -z "$sweep" ] || [ "$seed" != "${seed_list[0]}" ]; then add_run "${arms[i]}" "${best[i]-}" "$seed"; fi
    done
done
if [ -n "$dry" ]; then
    print_queue
    exit 0
fi
run_all ${queue[@]+"${queue[@]}"}

say "What came out"
rm -f "$out/report.html"
shown=()
for run in "${reported[@]}"; do if [ -s "$run/log.jsonl" ]; then shown+=("$run"); fi; done
LC_ALL=$users "$report" --out="$out/report.html" --csv="$out/arms.csv" --png="$out/loss.png" "${shown[@]}" ||
    [ -s "$out/report.html" ] || stop "no report; see the error above"
if [ ${#failed_runs[@]} != 0 ]; then
    stop "${#failed_runs[@]} of $total runs failed: ${failed_runs[*]}; the same command tries them again"
fi
