#!/usr/bin/env bash
# test_faults.sh: tests tiny runs with the faults that long runs meet on clusters. It takes a quarter of an hour and is not part of
# `make test`.
#
#   scripts/test_faults.sh                 300 SIGKILLs, 1,400 flipped bits, and one of each of the other faults
#   scripts/test_faults.sh --kills=30 --flips=140 --seed=7     fewer kills and flips, at other times and places
#   scripts/test_faults.sh --programs=build/san                the programs that `make SAN=1 all build/san/test_gpt` built
#
# It prints each fault and the message that the user saw, then a table of the kills and flips, and ends with `N passed, N
# failed`. It needs train_gpt, prepare, grammar and generate (make), and test_gpt for the tests with checkpoints of other programs
# and with pipes instead of files. Faults of several ranks need mpirun. The full disk is a tmpfs of 1 MiB if mounting is
# allowed, else a limit on the size of files.
# shellcheck disable=SC2012,SC2016,SC2046,SC2059,SC2086 # names are made here; options and the launcher are words
set -u
export LC_ALL=C # numbers have a decimal point, whatever the user's language
cd "$(dirname "$0")/.." || exit 1
source=$PWD programs=$PWD kills=300 flips=1400 seed=$$
for option; do
    case $option in
    --kills=*) kills=${option#*=} ;;
    --flips=*) flips=${option#*=} ;;
    --seed=*) seed=${option#*=} ;;
    --programs=*) programs=$(cd "${option#*=}" && pwd) || exit 2 ;;
    --help | -h)
        sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//;p;}' "scripts/${0##*/}"
        exit 0
        ;;
    *)
        echo "error: unknown option '$option'; expected --kills=N --flips=N --seed=N --programs=DIR or --help" >&2
        exit 2
        ;;
    esac
done
RANDOM=$((seed % 32768))
work=$(mktemp -d) || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RESILIENT_PAUSE=0
export ASAN_OPTIONS=detect_leaks=0 # MPI does not free all its memory at its end
passed=0 failed=0 table=''
trap 'umount "$work/full" 2> /dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
echo "programs in $programs, seed $seed"

result() { # NAME OK(0 is yes) SEEN
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    printf '%-4s %-34s %s\n' "$([ "$2" -eq 0 ] && echo ok || echo FAIL)" "$1" "$3"
}
# Adds a row to the table. It fails if one of the columns LOST to HUNG is not 0.
row() { # WHAT TRIED LOST ACCEPTED CRASHED HUNG NOTE
    local bad=$(($3 + $4 + $5 + $6))
    if [ $bad -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    table+=$(printf '%-4s %-42s %6d %6d %9d %8d %6d  %s' "$([ $bad -eq 0 ] && echo ok || echo FAIL)" "$1" "$2" "$3" "$4" "$5" "$6" "$7")$'\n'
}
# Whether a program was ended by a signal, or printed a message about a memory error or undefined behaviour.
crashed() { # CODE FILE
    [ "$1" -ge 128 ] || grep -aqE 'ERROR: AddressSanitizer|runtime error:|Segmentation fault|Bus error' "$2"
}
# Adds to the caller's `hung` or `crashes` if the program hung or crashed; returns true if it did neither.
count_failure() { # CODE FILE
    if [ "$1" -eq 124 ]; then
        hung=$((hung + 1))
    elif crashed "$1" "$2"; then
        crashes=$((crashes + 1))
        tail -n 3 "$2"
    else
        return 0
    fi
    return 1
}
seen() { # FILE PATTERN: prints the first line of FILE that has it, from there on and shortened
    grep -a -m 1 -o "$2.*" "$1" | tr -d '\r\033' | sed "s|$work/||g" | cut -c 1-150
}
curve() { sed 's/, "tokens_per_s.*//' "$1/log.jsonl"; }

"$programs/grammar" --bytes=200000 --seed=1 --out=text.txt > /dev/null 2>&1 || { echo "error: ./grammar is missing; run make" >&2; exit 1; }
"$programs/prepare" --out=data --vocab=300 --separator='<|endoftext|>' text.txt > /dev/null 2>&1 || { echo "error: ./prepare failed; run make" >&2; exit 1; }

steps=40
options="--data=data --layers=2 --heads=2 --head-dim=8 --embd=16 --mlp-hidden=32 --seq-len=32 --steps=$steps --warmup=4
    --val-every=10 --val-tokens=2000 --threads=1 --dtype=fp32 --total-batch=384"
trainer() { # RANKS: prints the command that starts a run of so many ranks
    if [ "$1" -eq 1 ]; then
        echo "$programs/train_gpt $options --batch=12"
    else
        echo "mpirun --oversubscribe --bind-to none -np $1 $programs/train_gpt $options --batch=$((12 / $1))"
    fi
}
most=3
if ! command -v mpirun > /dev/null || ! ldd "$programs/train_gpt" | grep -q libmpi; then
    most=1
    echo "note: train_gpt has no MPI here, so every run below is of one rank"
fi

for ranks in $(seq $most); do
    $(trainer "$ranks") --out=whole$ranks > whole$ranks.txt 2>&1 || { cat whole$ranks.txt; exit 1; }
done

# ---- random kills: of a job with one rank; of a job with two ranks, mpirun included; of one rank of two. Some of them come
# while the job saves a checkpoint ----
ranks_of() { # OUT: prints the ids of the run's trainers that are still running
    local rank
    for rank in $(pgrep -f -- "--out=$1 --save-every=1"); do
        if [ "$(readlink "/proc/$rank/exe")" = "$programs/train_gpt" ]; then echo "$rank"; fi
    done
}

# Waits until the job has ended, for a minute at most, and then kills what is left. Adds to hung or hung_mpirun if the trainer
# or mpirun had not ended.
await_job() { # PID OUT
    for _ in $(seq 600); do
        kill -0 "$1" 2> /dev/null || break
        sleep 0.1
    done
    if kill -0 "$1" 2> /dev/null; then
        if [ -n "$(ranks_of "$2")" ]; then hung=$((hung + 1)); else hung_mpirun=$((hung_mpirun + 1)); fi
        kill -9 -- "-$1" $(ranks_of "$2") 2> /dev/null
    fi
    wait "$1" 2> /dev/null
}

newest() { ls -d "$1"/step-*[0-9] 2> /dev/null | tail -n 1; }

# Starts the run and kills it at a random moment after it has written a new checkpoint (a kill before that would test nothing).
# False if the run ended before it was killed.
start_and_kill() { # RANKS WHOM OUT
    local first job
    first=$(newest $3)
    setsid $(trainer $1) --out=$3 --save-every=1 --keep=2 --resume=auto >> $3.txt 2>&1 &
    job=$!
    for _ in $(seq 1000); do
        if [ "$(newest $3)" != "$first" ]; then break; fi
        kill -0 $job 2> /dev/null || break
        sleep 0.01
    done
    sleep 0.0$((RANDOM % 10))$((RANDOM % 10))
    if [ $((RANDOM % 3)) -eq 0 ]; then # one kill in three comes while a checkpoint is being written
        for _ in $(seq 2000); do
            if [ -n "$(ls -d $3/*.tmp 2> /dev/null)" ]; then break; fi
            kill -0 $job 2> /dev/null || break
        done
    fi
    if ! kill -0 $job 2> /dev/null || [ -e $3/summary.json ]; then
        await_job $job $3
        return 1
    fi
    if [ $2 = one ]; then
        kill -9 $(ranks_of $3 | shuf -n 1) 2> /dev/null
    else
        kill -9 -- -$job $(ranks_of $3) 2> /dev/null
    fi
    await_job $job $3
    if [ -n "$(ls -d $3/*.tmp 2> /dev/null)" ]; then in_save=$((in_save + 1)); fi
}

kill_runs() { # WHAT RANKS WHOM KILLS
    local done_kills=0 run=0 lost=0 different=0 crashes=0 attempts out job
    local hung=0 hung_mpirun=0 in_save=0
    while [ $done_kills -lt $4 ]; do
        run=$((run + 1)) out=killed_$2_$3_$run attempts=0
        : > $out.txt
        while [ $attempts -lt 5 ] && [ $done_kills -lt $4 ] && [ ! -e $out/summary.json ]; do
            attempts=$((attempts + 1))
            if start_and_kill $2 $3 $out; then done_kills=$((done_kills + 1)); fi
        done
        if [ ! -e $out/summary.json ]; then # without further kills the run must reach its end
            setsid $(trainer $2) --out=$out --save-every=1 --keep=2 --resume=auto >> $out.txt 2>&1 &
            job=$!
            await_job $job $out
        fi
        if [ ! -e $out/summary.json ]; then
            lost=$((lost + 1))
            tail -n 3 $out.txt >&3
        elif ! cmp -s <(curve $out) <(curve whole$2); then
            different=$((different + 1))
            diff <(curve $out) <(curve whole$2) | head -n 4 >&3
        fi
        if crashed 0 $out.txt; then crashes=$((crashes + 1)); fi
        rm -rf $out
    done
    row "$1" $done_kills $lost $different $crashes $hung "$run runs, $in_save kills while saving, mpirun itself hung $hung_mpirun times"
}
exec 3>&2 2> /dev/null # so that the shell does not print a line for each job that is killed
if [ $most -gt 1 ]; then
    kill_runs "SIGKILL, one rank" 1 job $((kills - 2 * (kills / 3)))
    kill_runs "SIGKILL, two ranks and mpirun" 2 job $((kills / 3))
    kill_runs "SIGKILL, one of two ranks" 2 one $((kills / 3))
else
    kill_runs "SIGKILL, one rank" 1 job $kills
fi
exec 2>&3

# ---- flipped bits ----
flip() { # FILE: flips the bit $bit of the byte $place; a second call restores it
    local byte
    byte=$(od -An -tu1 -j $place -N 1 "$1")
    printf "\\$(printf %03o $((byte ^ (1 << bit))))" | dd of="$1" bs=1 seek=$place conv=notrunc 2> /dev/null
}
random_place() { # FILE: sets place and bit to random values
    place=$(((RANDOM * 32768 + RANDOM) % $(stat -c %s "$1"))) bit=$((RANDOM % 8))
}

# Flips a bit in one file of a checkpoint after the other. The trainer must refuse to continue from this checkpoint, and
# ./generate, which reads it too, must not crash.
flip_checkpoint() { # FLIPS
    local accepted=0 crashes=0 hung=0 tried=0 code file files
    $(trainer $most) --out=flipped --keep=1 > flipped.txt 2>&1 || { cat flipped.txt; exit 1; }
    files=(flipped/step-*/*)
    while [ $tried -lt $1 ]; do
        file=${files[tried % ${#files[@]}]}
        tried=$((tried + 1))
        random_place $file
        flip $file
        code=0
        timeout 60 $(trainer 1) --resume=$(dirname $file) > flip.txt 2>&1 || code=$?
        if [ $code -eq 0 ]; then
            accepted=$((accepted + 1))
            echo "accepted: bit $bit of byte $place of $file"
        else
            count_failure $code flip.txt
        fi
        if [ $((tried % 4)) -eq 0 ]; then
            code=0
            timeout 60 "$programs/generate" --tokens=2 --threads=1 flipped > flip.txt 2>&1 || code=$?
            count_failure $code flip.txt
        fi
        flip $file
    done
    $(trainer 1) --resume=$(dirname $file) > flip.txt 2>&1 || { echo "the flips were not put back"; crashes=$((crashes + 1)); }
    row "a bit of a checkpoint's ${#files[@]} files" $tried 0 $accepted $crashes $hung "1 in 4 read by generate as well"
}

# Flips a bit in one after the other of the files that an interrupted ./prepare leaves. The same command must refuse to continue,
# or end with the shards that a run without interruption writes.
flip_prepared() { # FLIPS
    local accepted=0 refused=0 crashes=0 hung=0 tried=0 code file files text i
    text="--quiet --tokenizer=data --shard-tokens=12000 --round-bytes=16000 --save-every=0 --threads=1 many.txt"
    for i in $(seq 20); do cat text.txt; done > many.txt
    "$programs/prepare" $text --out=prepared > prepared.txt 2>&1 || { cat prepared.txt; exit 1; }
    for i in $(seq 2 400); do
        rm -rf half
        timeout -s KILL 0.$(printf %03d $((i * 2))) "$programs/prepare" $text --out=half > /dev/null 2>&1
        if grep -qs '"tokens"' half/prepare.state.json && ls half/train_* > /dev/null 2>&1; then break; fi
    done 2> /dev/null
    files=()
    for file in half/*; do if [ -s $file ]; then files+=("$file"); fi; done # without the lock, which is empty
    while [ $tried -lt $1 ]; do
        rm -rf flipped_half && cp -r half flipped_half
        file=flipped_half/${files[tried % ${#files[@]}]#half/}
        tried=$((tried + 1))
        random_place $file
        flip $file
        code=0
        timeout 60 "$programs/prepare" $text --out=flipped_half > flip.txt 2>&1 || code=$?
        if [ $code -eq 0 ] && ! diff -r prepared flipped_half > /dev/null; then
            accepted=$((accepted + 1))
            echo "accepted: bit $bit of byte $place of $file"
        elif count_failure $code flip.txt && [ $code -ne 0 ]; then
            refused=$((refused + 1))
        fi
    done
    row "a bit of prepare's ${#files[@]} unfinished files" $tried 0 $accepted $crashes $hung "$refused refused, the others end with the right shards"
}
flip_checkpoint $((flips - flips / 4))
flip_prepared $((flips / 4))

# ---- checkpoints of other programs, pipes instead of files: tests of test_gpt, which may be built with the sanitizers ----
cases() { # WHAT FILTER
    local code=0 count
    if [ ! -x "$programs/test_gpt" ]; then
        echo "note: there is no test_gpt in $programs, so '$1' was left out (make test_gpt)"
        return
    fi
    (cd "$source" && TEST_BINARY_DIR=$programs timeout 600 "$programs/test_gpt" --filter="$2") > cases.txt 2>&1 || code=$?
    if [ $code -eq 3 ]; then
        echo "note: test_gpt has no test called '$2'"
        return
    fi
    count=$(grep -oE '^[0-9]+ passed' cases.txt | cut -d' ' -f1)
    if [ $code -ne 0 ]; then grep -aE 'FAIL|expected|ERROR' cases.txt | head -n 5; fi
    row "$1" "${count:-0}" 0 $((code == 1)) $((code >= 128)) $((code == 124)) "tests '$2' of test_gpt"
}
cases "foreign and crafted checkpoints" hostile
cases "pipes, devices, folders as files" files_,no_program_waits

# ---- another number of ranks ----
if [ $most -gt 1 ]; then
    $(trainer 3) --out=moved --save-every=10 --keep=0 > moved.txt 2>&1
    rm -r moved/step-00000020 moved/step-00000030 moved/step-00000040 moved/summary.json
    cp -r moved missing
    $(trainer 2) --out=moved --resume=auto >> moved.txt 2>&1
    worst=$(paste <(curve moved | grep '"loss"' | sed 's/.*"loss": \([^,]*\).*/\1/') \
        <(curve whole3 | grep '"loss"' | sed 's/.*"loss": \([^,]*\).*/\1/') |
        awk '{ d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > most) most = d; n++ } END { printf "%d losses, largest relative difference %.1e", n, most; exit !(n == '$steps' && most < 1e-5) }')
    result "3 ranks, then 2" $? "$worst"
    rm missing/step-00000010/optimizer-00001-of-00003.safetensors
    $(trainer 3) --out=missing --resume=auto > missing.txt 2>&1
    code=$?
    result "an optimizer part is missing" $((code == 1 ? 0 : 1)) "exit $code: $(seen missing.txt 'warning: .*optimizer-00001')"
fi

# ---- a damaged byte in every region of every file of a checkpoint: the trainer must use the next older checkpoint ----
$(trainer $most) --out=hurt --save-every=20 --keep=0 > hurt.txt 2>&1
unnoticed=0 tried=0 wrong=0
for path in hurt/step-00000040/*; do
    size=$(stat -c %s "$path") file=${path##*/}
    for place in 0 9 $((size / 4)) $((size / 2)) $((size * 3 / 4)) $((size - 2)); do
        rm -rf copy && cp -r hurt copy && rm -f copy/summary.json
        byte=$(od -An -tu1 -j $place -N 1 "$path")
        printf "\\$(printf %03o $((byte ^ 1)))" | dd of="copy/step-00000040/$file" bs=1 seek=$place conv=notrunc 2> /dev/null
        tried=$((tried + 1))
        $(trainer 1) --out=copy --resume=auto > copy.txt 2>&1
        if ! grep -q "passed over for an older checkpoint" copy.txt || ! grep -q "resumed    copy/step-00000020" copy.txt; then
            unnoticed=$((unnoticed + 1))
        fi
        [ -e copy/summary.json ] || wrong=$((wrong + 1))
    done
done
result "a flipped bit in every region" $((unnoticed + wrong)) "$tried places in all files: $unnoticed unnoticed, $wrong did not go on; $(seen copy.txt 'is damaged')"
truncate -s -1 hurt/step-00000040/model.safetensors
$(trainer 1) --out=hurt --resume=hurt/step-00000040 > cut.txt 2>&1
code=$?
result "a checkpoint cut short, by name" $((code == 1 ? 0 : 1)) "exit $code: $(seen cut.txt 'warning: ')"
rm hurt/summary.json && truncate -s +1 hurt/step-00000040/model.safetensors
$(trainer 1) --out=hurt --resume=hurt/step-00000020 --lr=1 > other.txt 2>&1
code=$?
result "other options" $((code == 1 ? 0 : 1)) "exit $code: $(seen other.txt 'error: .*--lr')"

# ---- disks ----
mkdir full
limit=true
if mount -t tmpfs -o size=1m none full 2> /dev/null; then kind="a tmpfs of 1 MiB"; else kind="ulimit -f" limit="ulimit -f 40"; fi
$(trainer 1) --out=full/run --save-every=10 --keep=0 > full.txt 2>&1
rm -rf full/run/step-000000[234]0 full/run/summary.json
if [ "$limit" = true ]; then dd if=/dev/zero of=full/fill bs=1k 2> /dev/null; dd if=/dev/null of=full/fill bs=1k seek=$(($(stat -c %s full/fill) / 1024 - 20)) 2> /dev/null; fi
(
    $limit
    trap '' XFSZ
    $(trainer 1) --out=full/run --save-every=10 --resume=auto
) > full.txt 2>&1
code=$?
warnings=$(grep -c "warning: no checkpoint of step" full.txt)
result "disk full while saving ($kind)" $((code == 1 && warnings == 3 && $(grep -c '40/40' full.txt) > 0 ? 0 : 1)) \
    "exit $code after all steps, $warnings warnings: $(seen full.txt 'warning: no checkpoint of step 20')"
rm -f full/fill
$(trainer 1) --out=full/run --resume=auto > full2.txt 2>&1
cmp -s <(curve full/run) <(curve whole1)
result "space again" $? "$(seen full2.txt 'resumed'), the curve is the uninterrupted one"

$(trainer 1) --out=/proc/run > readonly.txt 2>&1
code=$?
result "a run folder that cannot be written" $((code == 1 ? 0 : 1)) "exit $code: $(seen readonly.txt 'error: ')"

# ---- the data changes during the run ----
disturb() { # NAME COMMAND: starts a run without end, and the command after its fifth step
    cp -r data data_$1
    $programs/train_gpt $options --batch=12 --data=data_$1 --out=$1 --steps=10000000 > $1.txt 2>&1 &
    pid=$!
    for _ in $(seq 1000); do
        if grep -q '"step": 5,' $1/log.jsonl 2> /dev/null; then break; fi
        sleep 0.01
    done
    eval "$2"
    wait $pid
    code=$?
}
disturb deleted 'rm data_deleted/train_*.bin; sleep 0.3; kill -TERM $pid'
result "a shard deleted during the run" $code "exit $code, trained on: $(seen deleted.txt 'RESUME: ')"
disturb shrunk 'for f in data_shrunk/train_*.bin; do : > $f; done'
result "a shard cut during the run" $((code == 1 ? 0 : 1)) "exit $code: $(seen shrunk.txt 'error: ')"

# ---- signals ----
for signal in USR1 TERM INT; do
    disturb stop$signal "kill -$signal \$pid"
    result "SIG$signal" $code "exit $code: $(seen stop$signal.txt 'RESUME: ')"
done
if [ $most -gt 1 ]; then
    $(trainer 2) --steps=10000000 --out=stopped2 > stopped2.txt 2>&1 &
    pid=$!
    for _ in $(seq 1000); do
        if grep -q '"step": 5,' stopped2/log.jsonl 2> /dev/null; then break; fi
        sleep 0.01
    done
    kill -USR1 "$(pgrep -P $pid train_gpt | tail -n 1)"
    wait $pid
    code=$?
    result "SIGUSR1 to one of two ranks" $code "exit $code: $(seen stopped2.txt 'RESUME: ')"
fi
"$source/scripts/run_resilient.sh" --tries=2 $(trainer 1) --out=resilient --lr=nonsense > resilient.txt 2>&1
code=$?
result "run_resilient.sh, a wrong option" $((code == 2 ? 0 : 1)) "exit $code: $(seen resilient.txt 'error: ')"

# ---- losses that are not finite: the learning rate is so large that every model diverges ----
$(trainer 1) --out=diverged --lr=10 --beta2=0 --adam-eps=1e-30 --clip=0 --weight-decay=10 --warmup=0 --schedule=constant \
    --steps=2000 --val-every=0 --max-skipped=3 > diverged.txt 2>&1
code=$?
result "divergence" $((code == 1 && $(grep -c 'largest magnitudes by layer' diverged.txt) == 1 ? 0 : 1)) \
    "exit $code: $(seen diverged.txt 'First not finite')"

printf '\n     %-42s %6s %6s %9s %8s %6s\n%s' '' tried lost accepted crashed hung "$table"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
