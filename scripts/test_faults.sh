#!/usr/bin/env bash
# test_faults.sh: what clusters do to a run, done to tiny ones. Takes some minutes; not part of `make test`.
#
#   scripts/test_faults.sh [KILLS]        KILLS random SIGKILLs, default 50
#
# For people: it prints what each fault was and what the user saw, and ends with `N passed, N failed`. It needs train_gpt,
# prepare and grammar beside it (make). Faults of many ranks need mpirun; the full disk is a tmpfs of 1 MiB when mounting
# is allowed, else a limit on the size of files.
# shellcheck disable=SC2012,SC2016,SC2046,SC2059,SC2086 # names are made here; options and the launcher are words
set -u
export LC_ALL=C # numbers have a point, whatever the user's language
cd "$(dirname "$0")/.." || exit 1
programs=$PWD kills=${1:-50}
work=$(mktemp -d) || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RESILIENT_PAUSE=0
passed=0 failed=0
trap 'umount "$work/full" 2> /dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1

result() { # NAME OK(0 is yes) SEEN
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    printf '%-4s %-34s %s\n' "$([ "$2" -eq 0 ] && echo ok || echo FAIL)" "$1" "$3"
}
seen() { # FILE PATTERN: the first line that has it, shortened
    grep -a -m 1 -o "$2.*" "$1" | tr -d '\r\033' | sed "s|$work/||g" | cut -c 1-150
}
curve() { sed 's/, "tokens_per_s.*//' "$1/log.jsonl"; }

"$programs/grammar" --bytes=200000 --seed=1 --out=text.txt > /dev/null 2>&1 || { echo "error: ./grammar is missing; run make" >&2; exit 1; }
"$programs/prepare" --out=data --vocab=300 --separator='<|endoftext|>' text.txt > /dev/null 2>&1 || { echo "error: ./prepare failed; run make" >&2; exit 1; }

steps=40
options="--data=data --layers=2 --heads=2 --head-dim=8 --embd=16 --mlp-hidden=32 --seq-len=32 --steps=$steps --warmup=4
    --val-every=10 --val-tokens=2000 --threads=1 --dtype=fp32 --total-batch=384"
trainer() { # RANKS: how a run of that many ranks is started
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

# ---- random kills: of one rank, of the whole job, while a checkpoint is written ----
exec 3>&2 2> /dev/null # the shell would report each job that is killed
lost=0 different=0 slow=0 done_kills=0 run=0 in_save=0
while [ $done_kills -lt "$kills" ]; do
    ranks=$((run % most + 1)) run=$((run + 1)) out=killed$run attempts=0
    : > $out.txt
    # until this run has its end: started, killed, started again from what is there
    while [ ! -e $out/summary.json ]; do
        attempts=$((attempts + 1))
        if [ $attempts -gt 60 ]; then break; fi
        setsid $(trainer $ranks) --out=$out --save-every=1 --keep=2 --resume=auto >> $out.txt 2>&1 &
        job=$!
        if [ $attempts -le 5 ] && [ $done_kills -lt "$kills" ]; then
            first=$(ls -d $out/step-*[0-9] 2> /dev/null | tail -n 1)
            for _ in $(seq 400); do # until it has saved something new: a kill before that tests nothing
                if [ "$(ls -d $out/step-*[0-9] 2> /dev/null | tail -n 1)" != "$first" ]; then break; fi
                kill -0 $job 2> /dev/null || break
                sleep 0.01
            done
            sleep 0.0$((RANDOM % 10))$((RANDOM % 10))
            if [ $((done_kills % 3)) -eq 0 ]; then # while a checkpoint is written
                for _ in $(seq 2000); do
                    if [ -n "$(ls -d $out/*.tmp 2> /dev/null)" ]; then break; fi
                    kill -0 $job 2> /dev/null || break
                done
            fi
            if kill -0 $job 2> /dev/null && [ ! -e $out/summary.json ]; then
                began=$SECONDS
                if [ $((done_kills % 2)) -eq 0 ] && [ $ranks -gt 1 ]; then
                    kill -9 "$(pgrep -P $job train_gpt | shuf -n 1)" 2> /dev/null # one rank
                else
                    kill -9 -- -$job 2> /dev/null # the job, and the ranks that mpirun started
                    for rank in $(pgrep -f -- "--out=$out --save-every=1"); do
                        if [ "$(readlink "/proc/$rank/exe")" = "$programs/train_gpt" ]; then kill -9 "$rank"; fi
                    done
                fi
                done_kills=$((done_kills + 1))
                wait $job 2> /dev/null
                if [ $((SECONDS - began)) -gt 30 ]; then slow=$((slow + 1)); fi
                if [ -n "$(ls -d $out/*.tmp 2> /dev/null)" ]; then in_save=$((in_save + 1)); fi
                continue
            fi
        fi
        wait $job 2> /dev/null
    done
    if [ ! -e $out/summary.json ]; then
        lost=$((lost + 1))
        tail -n 3 $out.txt
    elif ! cmp -s <(curve $out) <(curve whole$ranks); then
        different=$((different + 1))
        diff <(curve $out) <(curve whole$ranks) | head -n 4
    fi
done
exec 2>&3
result "random SIGKILLs" $((lost + different + slow)) \
    "$done_kills kills in $run runs of 1 to $most ranks, $in_save while saving: $lost runs cannot resume, $different curves differ, $slow jobs took over 30 s to end"

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

# ---- damage: a byte in every region of every file, then the next older checkpoint is used ----
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

# ---- the data changes in mid-run ----
disturb() { # NAME COMMAND: an endless run, the command after its fifth step
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
result "a shard deleted in mid-run" $code "exit $code, trained on: $(seen deleted.txt 'RESUME: ')"
disturb shrunk 'for f in data_shrunk/train_*.bin; do : > $f; done'
result "a shard cut in mid-run" $((code == 1 ? 0 : 1)) "exit $code: $(seen shrunk.txt 'error: ')"

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
"$programs/scripts/run_resilient.sh" --tries=2 $(trainer 1) --out=resilient --lr=nonsense > resilient.txt 2>&1
code=$?
result "run_resilient.sh, a wrong option" $((code == 2 ? 0 : 1)) "exit $code: $(seen resilient.txt 'error: ')"

# ---- numbers that are none: a learning rate that no model survives ----
$(trainer 1) --out=diverged --lr=10 --beta2=0 --adam-eps=1e-30 --clip=0 --weight-decay=10 --warmup=0 --schedule=constant \
    --steps=2000 --val-every=0 --max-skipped=3 > diverged.txt 2>&1
code=$?
result "divergence" $((code == 1 && $(grep -c 'largest magnitudes by layer' diverged.txt) == 1 ? 0 : 1)) \
    "exit $code: $(seen diverged.txt 'First not finite')"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
