#!/usr/bin/env bash
# ablations.sh: trains the demo's model with each option of docs/ablations.md, and compares it with the model without the option.
#
#   scripts/ablations.sh --data=data/mine
#   scripts/ablations.sh --data=data/mine --only=laser,muon --jobs=4 -- --embd=512 --heads=8
#
# Each row of the table below is trained with several seeds, as is the row that it is compared with. Runs with the same seed read
# the same data in the same order. Where a row has several learning rates, the first seed tries each of them, and the rate with
# the lowest validation loss serves the other seeds; a row without rates has the rate of the row that it is compared with. The last
# thing printed is the table of docs/results.md. What stands after -- are options of ./train_gpt that all runs share.
#
#   --data=DIR        a folder that ./prepare wrote
#   --out=DIR         the folder of the runs (default runs/ablations)
#   --seeds=N         the seeds 1 to N (default 3)
#   --only=A,B,...    only these rows, and those that they are compared with
#   --jobs=N          so many runs side by side, which divide the processor's cores (default 1)
#   --steps=N         the steps of each run (default 300, as in make demo)
#   --program=FILE    the trainer (default ./train_gpt)
#   --table           trains nothing: prints the table of the runs that are finished
#   --help            prints this
#
# The same command goes on after an interruption: finished runs are not repeated, and the others go on from their last checkpoint. A
# run that diverges is a result, "failed" in the table; what else ends a run also ends the script. Exit code: 0 all runs are finished,
# 1 something failed or was interrupted, 2 an option is wrong.
set -u
export LC_ALL=C

# NAME | compared with | options of the trainer | learning rates to try (none: the best one of the row it is compared with)
rows='
standard        |          |                                                       | 5e-4 1e-3 2e-3 4e-3
laser           | standard | --attn=laser                                          | 5e-4 1e-3 2e-3 4e-3
diff            | standard | --attn=diff                                           | 1e-3 2e-3 4e-3
diff-laser      | diff     | --attn=diff-laser                                     | 1e-3 2e-3 4e-3 8e-3
scale-dim       | standard | --attn-scale=dim                                      |
laser-scale-dim | laser    | --attn=laser --attn-scale=dim                         |
grad-scale-2    | standard | --attn-grad-scale=2                                   |
grad-scale-4    | standard | --attn-grad-scale=4                                   |
laser-grad-half | laser    | --attn=laser --attn-grad-scale=0.5                    |
qk-norm         | standard | --qk-norm=yes                                         |
laser-qk-norm   | laser    | --attn=laser --qk-norm=yes                            |
laser-clamp     | laser    | --attn=laser --laser-shift=clamp                      |
laser-beta-half | laser    | --attn=laser --laser-beta=0.5                         |
laser-beta-2    | laser    | --attn=laser --laser-beta=2                           |
scale-head      | standard | --attn-scale=head                                     |
muon            | standard | --optimizer=muon                                      | 4e-3 8e-3 1.6e-2
lamb            | standard | --optimizer=lamb                                      | 1e-2 2e-2 4e-2
attn-softcap    | standard | --attn-softcap=50                                     | 5e-4 1e-3 2e-3
logit-softcap   | standard | --logit-softcap=30                                    | 5e-4 1e-3 2e-3
layernorm       | standard | --norm=layernorm                                      | 5e-4 1e-3 2e-3
crmsnorm        | standard | --norm=crmsnorm                                       | 2.5e-4 5e-4 1e-3
peri            | standard | --norm-place=peri                                     | 2e-3 4e-3 8e-3
z-loss          | standard | --z-loss=1e-4                                         |
relu2           | standard | --activation=relu2                                    |
tie-no          | standard | --tie=no                                              |
xavier          | standard | --init-weights=xavier                                 | 1e-3 2e-3 4e-3
embed-scale     | standard | --embed-scale=yes                                     | 5e-4 1e-3 2e-3
bias-mlp        | standard | --bias=mlp                                            |
bias-all        | standard | --bias=all                                            |
decay-all       | standard | --decay=all                                           |
'

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; }
wrong() { printf 'error: %s (see scripts/ablations.sh --help)\n' "$*" >&2 && exit 2; }
stop() { printf 'error: %s\n' "$*" >&2 && exit 1; }

# ---- the command line ----
data='' out=runs/ablations seeds=3 only='' jobs=1 steps=300 program=./train_gpt table_only=''
while [ $# != 0 ] && [ "$1" != -- ]; do
    word=$1 && shift
    case $word in
        --data=*) data=${word#*=} ;;
        --out=*) out=${word#*=} out=${out%/} ;;
        --seeds=*) seeds=${word#*=} ;;
        --only=*) only=${word#*=} ;;
        --jobs=*) jobs=${word#*=} ;;
        --steps=*) steps=${word#*=} ;;
        --program=*) program=${word#*=} ;;
        --table) table_only=yes ;;
        --help | -h) usage && exit 0 ;;
        *) wrong "unknown option '$word'" ;;
    esac
done
[ $# = 0 ] || shift
common=("$@")
for word in ${common[@]+"${common[@]}"}; do
    case ${word%%=*} in
        --data | --steps) wrong "$word after --: it stands before --" ;;
        --lr | --seed | --out | --resume) wrong "$word after --: scripts/ablations.sh gives each run its own" ;;
        --dry-run | --help | --version) wrong "$word after --: with it nothing is trained" ;;
    esac
done
whole() { # OPTION VALUE LEAST MOST
    case $2 in '' | *[!0-9]* | ????????*) ;; *) [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] && return ;; esac
    wrong "--$1=$2: expected a whole number from $3 to $4"
}
whole seeds "$seeds" 2 100
whole jobs "$jobs" 1 64
whole steps "$steps" 8 1000000
[ -n "$out" ] || wrong "--out is empty"
[ -n "$data$table_only" ] || wrong "--data=DIR is missing; it names a folder that ./prepare wrote"
[ -z "$table_only" ] || [ -d "$out" ] || wrong "--out=$out: there is no such folder"
[ -z "$data" ] || [ -d "$data" ] || wrong "--data=$data: there is no such folder"
report=$(dirname "$program")/report
command -v "$program" > /dev/null || stop "there is no program $program; make builds it, and --program names another"
[ -x "$report" ] || stop "there is no program $report; make builds it"

# The arrays name, base, options and rates: one element for each row.
name=() base=() options=() rates=()
row_of() { # NAME: sets `row`; 1 if there is none
    for row in "${!name[@]}"; do [ "${name[row]}" != "$1" ] || return 0; done
    return 1
}
while IFS='|' read -r one two three four; do
    read -r one <<< "$one" # without the blanks around it
    [ -n "$one" ] || continue
    read -r two <<< "$two"
    name+=("$one") base+=("$two") options+=("$three") rates+=("$four")
done <<< "$rows"

# The rows to train: `wanted` holds " NAME NAME ... ".
wanted=' '
for one in ${only//,/ }; do
    row_of "$one" || wrong "--only=$only: there is no row '$one'; the rows are ${name[*]}"
    case $wanted in *" $one "*) ;; *) wanted+="$one " ;; esac
    while [ -n "${base[row]}" ]; do
        one=${base[row]}
        case $wanted in *" $one "*) ;; *) wanted+="$one " ;; esac
        row_of "$one"
    done
done
[ -n "$only" ] || wanted=" ${name[*]} "
[ "$wanted" != ' ' ] || wrong "--only=$only names no row"
is_wanted() { case $wanted in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# ---- the runs ----
part=$((steps * 2 / 15 > 0 ? steps * 2 / 15 : 1)) # steps of warmup: 40 of 300, as in make demo
threads=$(($(getconf _NPROCESSORS_ONLN) / jobs))
run_folder() { printf '%s/%s-lr-%s-seed-%s' "$out" "$1" "$2" "$3"; } # NAME RATE SEED

# Sets `command` to what trains a row with a learning rate and a seed, without --out.
command_of() { # NAME RATE SEED
    local words
    row_of "$1"
    read -r -a words <<< "${options[row]}"
    command=("$program" --preset=demo "--data=$data" "--steps=$steps" "--warmup=$part" --val-every=0 --val-tokens=65536
        "--threads=$((threads > 0 ? threads : 1))" "--lr=$2" "--seed=$3" ${common[@]+"${common[@]}"} ${words[@]+"${words[@]}"})
}

final_loss() { # RUN: its final validation loss; nothing if it is not finished, "failed" if it has no finite loss
    [ -s "$1/failed" ] && echo failed && return
    [ -s "$1/summary.json" ] || return
    awk '/"final_val_loss"/ { sub(/.*"final_val_loss"[^:]*:[ \t]*/, ""); print /^[0-9.-]/ ? $0 + 0 : "failed"; exit }' \
        "$1/summary.json"
}

# Trains one run, unless it is finished. 1: it did not begin, was interrupted or ended otherwise, but it has not diverged.
train() { # NAME RATE SEED
    local run code loss said command child='' stopped=''
    run=$(run_folder "$@") said=$out/output/$1-lr-$2-seed-$3.txt
    [ -z "$(final_loss "$run")" ] || return 0
    command_of "$@"
    # the trainer saves a checkpoint
    trap 'stopped=yes; [ -z "$child" ] || kill -TERM $child' TERM HUP USR1 XCPU
    "${command[@]}" "--out=$run" --resume=auto < /dev/null > "$said" 2>&1 &
    child=$!
    [ -z "$stopped" ] || kill -TERM $child
    while kill -0 $child 2> /dev/null; do wait $child; done
    wait $child
    code=$?
    if [ $code != 0 ] && grep -q 'the run has diverged' "$said"; then
        tail -n 1 "$said" > "$run/failed"
    elif [ $code != 0 ]; then
        printf '%s ended with exit code %s:\n%s\n' "${run##*/}" $code "$(grep '^error: ' "$said" || tail -n 3 "$said")" >&2
        return 1
    fi
    loss=$(final_loss "$run")
    printf '%s: %s\n' "${run##*/}" "${loss:-interrupted}"
    [ -n "$loss" ]
}

failed='' # why no further run is begun; empty: there is no reason
stop_runs() {
    failed=interrupted
    # shellcheck disable=SC2046 # a process is a word
    kill -TERM $(jobs -p) 2> /dev/null
}

# Waits until one of the runs ends. A signal ends `wait` too, with a code above 128, while the runs still save.
wait_for_run() {
    local code=129
    while [ $code -gt 128 ]; do
        wait -n
        code=$?
    done
    [ $code = 0 ] || failed=${failed:-yes}
    running=$((running - 1))
}

# Trains the runs of standard input, a line "NAME RATE SEED" each, `jobs` of them at a time.
train_all() {
    local one rate seed running=0
    while [ -z "$failed" ] && read -r one rate seed; do
        [ $running -lt "$jobs" ] || wait_for_run
        [ -z "$failed" ] || break
        train "$one" "$rate" "$seed" &
        running=$((running + 1))
    done
    while [ $running -gt 0 ]; do wait_for_run; done
    [ -z "$failed" ] || stop "a run could not begin, or was interrupted; the same command goes on from here"
}

best_rate() { # NAME: the learning rate with the lowest loss of the first seed
    local rate loss
    row_of "$1"
    [ -n "${rates[row]// /}" ] || row_of "${base[row]}"
    for rate in ${rates[row]}; do
        loss=$(final_loss "$(run_folder "${name[row]}" "$rate" 1)")
        [ -z "$loss" ] || [ "$loss" = failed ] || echo "$loss $rate"
    done | sort -g | awk 'NR == 1 { print $2 }'
}

# A folder must not mix runs of different lengths, texts or models.
check_settings() { # SETTINGS
    if [ -f "$out/settings" ] && [ "$(cat "$out/settings")" != "$1" ]; then
        wrong "$out was made with other settings ($(cat "$out/settings")) than these ($1). Give the same ones, or another --out"
    elif [ ! -f "$out/settings" ] && [ -n "$(ls -A "$out" 2> /dev/null)" ]; then
        wrong "$out holds other files already; give another --out"
    fi
}

# What the trainer refuses in a row that has not begun is said now, and not after hours of other rows.
check_rows() {
    local one said code command
    for one in "${name[@]}"; do
        if ! is_wanted "$one" || compgen -G "$out/$one-lr-*" > /dev/null; then continue; fi
        command_of "$one" 1e-3 1
        said=$("${command[@]}" --dry-run 2>&1 < /dev/null)
        code=$?
        [ $code = 0 ] && continue
        printf 'error: the row %s: %s\n' "$one" "$(sed -n 's/^error: //p' <<< "$said" | head -n 1)" >&2
        exit $code
    done
}

train_everything() {
    local one rate seed i settings
    settings="--steps=$steps ${common[*]-}, text $(cksum 2> /dev/null < "$data/shards.json")"
    check_settings "$settings"
    check_rows
    { mkdir -p "$out/output" && printf '%s\n' "$settings" > "$out/settings"; } 2> /dev/null ||
        stop "--out=$out: cannot write there; give another folder"
    if command -v flock > /dev/null; then # the runs inherit the lock: it lasts until the last of them has saved
        exec 9> "$out/output/lock"
        flock -n 9 || stop "another scripts/ablations.sh trains in $out; wait until it ends, or give another --out"
    fi
    trap stop_runs INT TERM HUP USR1 XCPU
    train_all < <(for i in "${!name[@]}"; do
        for rate in ${rates[i]}; do ! is_wanted "${name[i]}" || echo "${name[i]} $rate 1"; done
    done)
    train_all < <(for one in "${name[@]}"; do
        is_wanted "$one" || continue
        rate=$(best_rate "$one")
        [ -n "$rate" ] || printf 'note: %s: no run with seed 1 gave it a learning rate; no other seed is trained\n' "$one" >&2
        for ((seed = 1; seed <= seeds && ${#rate} > 0; seed++)); do echo "$one $rate $seed"; done
    done)
}

# ---- the table ----

# The row that compares one row with its base, by ./report. Without a rate every one that was tried has failed, or none was tried.
print_row() { # NAME
    local rate base_rate csv=$out/output/arms.csv one runs=() losses=()
    rate=$(best_rate "$1")
    for one in "$out/$1"-lr-*-seed-*; do
        if [ -n "$rate" ]; then [ "${one%-seed-*}" = "$out/$1-lr-$rate" ]; else [ "$(final_loss "$one")" = failed ]; fi || continue
        runs+=("$one") losses+=("$(final_loss "$one" | awk '{ if ($1 == "failed") print; else printf "%.4f", $1 }')")
    done
    [ -n "$(printf %s "${losses[@]}")" ] || return 0 # no run of the row is finished
    row_of "$1"
    read -r one <<< "${options[row]}"
    # shellcheck disable=SC2016 # backquotes of Markdown
    printf '| %s | %s | %s |' "${one:+\`}${one:-none}${one:+\`}" "$rate" "${losses[*]}"
    if [ -z "${base[row]}" ]; then
        printf ' | | |\n'
        return
    fi
    base_rate=$(best_rate "${base[row]}")
    "$report" --out= --csv="$csv" "$out/${base[row]}-lr-$base_rate"-seed-* "${runs[@]}" > "$out/output/report.txt" 2>&1 ||
        : > "$csv" # no run of both is finished
    # Counted from the end of the last line, because the first field, the name of the arm, may contain commas. The line of the row
    # that the others are compared with has no difference: then no run of this row, or of its base, is finished.
    awk -F, -v base="${base[row]}" '{ last = $0 } END {
        $0 = last
        printf " %s |", base
        if (NF > 7 && $(NF - 7) != "") printf " %+.4f |", $(NF - 7); else printf " |"
        if (NF > 7 && $(NF - 6) != "") printf " %+.4f to %+.4f |\n", $(NF - 6), $(NF - 5); else print " |" }' "$csv"
}

print_table() {
    local one
    printf '| options | rate | final validation loss, seeds 1, 2, ... | compared with | difference | 95 %% interval |\n'
    printf '| --- | --- | --- | --- | --- | --- |\n'
    for one in "${name[@]}"; do ! is_wanted "$one" || print_row "$one"; done
}

[ -n "$table_only" ] || train_everything
print_table
