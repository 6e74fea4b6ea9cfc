#!/usr/bin/env bash
# run_resilient.sh: runs a training command again after a crash, from its last checkpoint.
#
#   scripts/run_resilient.sh [--tries=N] [--stall=SECONDS] COMMAND...
#   scripts/run_resilient.sh mpirun -np 8 ./train_gpt --data=data/c4 --out=runs/c4 --save-every=500
#
# COMMAND is train_gpt, or a launcher (mpirun, srun) followed by train_gpt. The option --resume=auto is added if it has no
# --resume. When the command fails, it is started again, until it has failed N times in a row (default 5) without writing a new
# checkpoint. A job that hangs counts as failed (mpirun may hang when a rank was killed): if the log of the run, whose time the
# trainer updates within each step, has not changed for SECONDS (default 1800; 0: wait for ever), the job is ended and, if it does
# not end, killed. With --verify-data in COMMAND or in the file of its --config this time begins with the first change of the log, because checking all data
# writes nothing there and may take longer. The command is not started again after
#
#   exit code 0     the run is finished, or a signal stopped it and it has written a checkpoint
#   exit code 2     an option is wrong
#   a finished run  its summary.json exists; only printed text may have been lost
#   a signal        SIGTERM, SIGUSR1, SIGXCPU, SIGINT and SIGHUP are passed on; the run writes a checkpoint and ends
#
# mpirun gets SIGUSR1 instead of any of these signals, because it passes SIGUSR1 on to its ranks. After a SIGTERM it would kill
# them within a second, even if they have not written their checkpoint. The exit code is that of the last run.
set -u

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; }
number() { # NAME VALUE LEAST
    case $2 in
    '' | *[!0-9]*) ;;
    *) if [ "$2" -ge "$3" ]; then return 0; fi ;;
    esac
    echo "error: --$1=$2: expected a number of at least $3" >&2
    exit 2
}
tries=5 stall=1800
while :; do
    case ${1:-} in
    --tries=*) tries=${1#--tries=} ;;
    --stall=*) stall=${1#--stall=} ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) break ;;
    esac
    shift
done
number tries "$tries" 1
number stall "$stall" 0
if [ $# -eq 0 ]; then
    echo "usage: scripts/run_resilient.sh [--tries=N] [--stall=SECONDS] COMMAND..." >&2
    exit 2
fi

out='' resume='' previous='' config='' verify='' # verify: the value of --verify-data
for word in "$@"; do
    case $word in
    --out=*) out=${word#--out=} ;;
    --config=*) config=${word#--config=} ;;
    --resume=* | --resume) resume=given ;;
    --verify-data) verify=yes ;;
    --verify-data=*) verify=${word#--verify-data=} ;;
    esac
    case $previous,$word in
    --out,*) out=$word ;;
    --config,*) config=$word ;;
    --verify-data,no | --verify-data,false | --verify-data,0) verify=no ;;
    esac
    previous=$word
done
# The command line is stronger than the file of --config, whose lines are `verify-data = yes` or JSON, "verify-data": true. A
# pipe is not read here, because the trainer could not read it again.
if [ -z "$verify" ] && [ -f "$config" ]; then
    verify=$(sed -n 's/#.*//; s/.*verify-data"\{0,1\}[[:space:]]*[=:][[:space:]]*"\{0,1\}\([a-z01]*\).*/\1/p' "$config" | tail -n 1)
fi
verifies=''
case $verify in yes | true | 1) verifies=yes ;; esac
if [ -z "$out" ]; then
    echo "error: the command has no --out=DIR: without checkpoints nothing can be resumed" >&2
    exit 2
fi
if [ -z "$resume" ]; then set -- "$@" --resume=auto; fi

child='' signalled='' launcher=''
case ${1##*/} in
mpirun | mpiexec | orterun | prterun) launcher=mpi ;;
esac
pass_on() { # SIGNAL
    local signal=$1
    # a second Ctrl-C is passed on as it is: it ends everything at once
    if [ -n "$launcher" ] && ! { [ "$1" = INT ] && [ "$signalled" = INT ]; }; then signal=USR1; fi
    signalled=$1
    if [ -n "$child" ]; then kill -s "$signal" "$child" 2> /dev/null; fi
}
for signal in TERM USR1 XCPU INT HUP; do
    # shellcheck disable=SC2064 # the signal of this turn of the loop
    trap "pass_on $signal" "$signal"
done

newest() { # prints the name of the newest complete checkpoint
    local folder found=''
    for folder in "$out"/step-*; do
        if [ -e "$folder/DONE" ]; then found=$folder; fi
    done
    printf '%s' "${found##*/}"
}

# ---- a job that hangs ----
stalled=$(mktemp) || exit 1 # not empty when the job was ended because it hung
trap 'rm -f "$stalled"' EXIT

log_state() { # prints the time and size of the log, by GNU's stat or BSD's
    stat -c '%Y %s' "$out/log.jsonl" 2> /dev/null || stat -f '%m %z' "$out/log.jsonl" 2> /dev/null
}

with_children() { # PID: prints the ids of this process and of all its descendants
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do with_children "$child"; done
}

end_job() { # PID: asks the job to save and end; kills what has not ended after a while
    local processes
    processes=$(with_children "$1")
    kill -s TERM "$1"
    for _ in $(seq $((${RESILIENT_GRACE:-30} * 5))); do
        kill -0 "$1" 2> /dev/null || break
        sleep 0.2
    done
    # shellcheck disable=SC2086 # a list of words; most of these processes have ended by now
    kill -s KILL -- $processes "-$1" 2> /dev/null
}

watch_log() { # PID STATE: ends the job when its log, which was in STATE before it started, has not changed for $stall seconds
    local state=$2 now sleeper='' moved=$SECONDS pause=$((stall / 10)) checking=$verifies
    if [ $pause -gt 30 ]; then pause=30; fi
    if [ $pause -lt 1 ]; then pause=1; fi
    trap 'kill "$sleeper" 2> /dev/null; exit' TERM
    while :; do
        sleep $pause > /dev/null 2>&1 &
        sleeper=$!
        wait $sleeper
        now=$(log_state)
        if [ "$now" != "$state" ]; then
            state=$now moved=$SECONDS checking=''
        elif [ -n "$checking" ]; then
            moved=$SECONDS # the trainer is still checking its data
        elif [ $((SECONDS - moved)) -ge "$stall" ]; then
            echo "run_resilient: $out/log.jsonl has not changed for $((SECONDS - moved)) s: the job is ended" >&2
            echo stalled > "$stalled"
            end_job "$1"
            return
        fi
    done
}

failures=0
while :; do
    : > "$stalled"
    before=$(newest) log_before=$(log_state)
    # The command gets a process group of its own, so Ctrl-C reaches only this script, which passes it on.
    set -m
    "$@" &
    child=$!
    set +m
    watcher=''
    if [ "$stall" -gt 0 ]; then
        watch_log "$child" "$log_before" &
        watcher=$!
    fi
    if [ -n "$signalled" ]; then pass_on TERM; fi
    code=0
    wait "$child" || code=$?
    # a signal that this script catches ends `wait`, but not the child
    while kill -0 "$child" 2> /dev/null; do
        code=0
        wait "$child" || code=$?
    done
    child=''
    if [ -s "$stalled" ]; then
        wait "$watcher" # until it has killed the remaining processes
        if [ $code -eq 0 ]; then code=1; fi
    elif [ -n "$watcher" ]; then
        kill "$watcher" 2> /dev/null
        wait "$watcher" 2> /dev/null
    fi
    if [ $code -eq 0 ] || [ $code -eq 2 ]; then exit $code; fi
    if [ -n "$signalled" ]; then
        echo "run_resilient: exit code $code after SIG$signalled: not started again" >&2
        exit $code
    fi
    if [ -s "$out/summary.json" ]; then
        echo "run_resilient: exit code $code, but the run in $out is finished" >&2
        exit $code
    fi
    after=$(newest)
    if [ "$after" = "$before" ]; then failures=$((failures + 1)); else failures=1; fi
    if [ $failures -ge "$tries" ]; then
        echo "run_resilient: exit code $code, $failures times in a row without a new checkpoint: giving up" >&2
        exit $code
    fi
    echo "run_resilient: exit code $code; starting again from ${after:-the beginning} ($failures of $tries without progress)" >&2
    sleep "${RESILIENT_PAUSE:-2}"
    if [ -n "$signalled" ]; then exit $code; fi
done
