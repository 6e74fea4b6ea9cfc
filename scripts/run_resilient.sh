#!/usr/bin/env bash
# run_resilient.sh: runs a training command again after a crash, from its last checkpoint.
#
#   scripts/run_resilient.sh [--tries=N] COMMAND...
#   scripts/run_resilient.sh mpirun -np 8 ./train_gpt --data=data/c4 --out=runs/c4 --save-every=500
#
# COMMAND is train_gpt or a launcher (mpirun, srun) with train_gpt among its words. --resume=auto is added where
# it is missing. When it fails, it is started again, until it has failed N times (default 5) in a row without a new
# checkpoint in between; then the last failure is final. These are not tried again:
#
#   exit code 0     finished, or stopped by a signal with a checkpoint written
#   exit code 2     a wrong option
#   after a signal  SIGTERM, SIGUSR1, SIGINT, SIGHUP are passed on: the run writes a checkpoint and ends
#
# mpirun gets SIGUSR1 for each of them: it passes that on, while at SIGTERM it kills its ranks after a second, whether
# their checkpoint is written or not. The exit code is the last run's.
set -u

tries=5
case ${1:-} in
--tries=*)
    tries=${1#--tries=}
    shift
    ;;
esac
case $tries in
'' | *[!0-9]* | 0)
    echo "error: --tries=$tries: expected a number of at least 1" >&2
    exit 2
    ;;
esac
if [ $# -eq 0 ]; then
    echo "usage: scripts/run_resilient.sh [--tries=N] COMMAND..." >&2
    exit 2
fi

out='' resume='' previous=''
for word in "$@"; do
    case $word in
    --out=*) out=${word#--out=} ;;
    --resume=* | --resume) resume=given ;;
    esac
    if [ "$previous" = --out ]; then out=$word; fi
    previous=$word
done
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
    # the second Ctrl-C ends everything at once
    if [ -n "$launcher" ] && ! { [ "$1" = INT ] && [ "$signalled" = INT ]; }; then signal=USR1; fi
    signalled=$1
    if [ -n "$child" ]; then kill -s "$signal" "$child" 2> /dev/null; fi
}
for signal in TERM USR1 INT HUP; do
    # shellcheck disable=SC2064 # the name of now
    trap "pass_on $signal" "$signal"
done

newest() { # the newest whole checkpoint
    local folder found=''
    for folder in "$out"/step-*; do
        if [ -e "$folder/DONE" ]; then found=$folder; fi
    done
    printf '%s' "${found##*/}"
}

failures=0
while :; do
    before=$(newest)
    # A job of its own: Ctrl-C then reaches this script alone, which passes it on.
    set -m
    "$@" &
    child=$!
    set +m
    if [ -n "$signalled" ]; then pass_on TERM; fi
    code=0
    wait "$child" || code=$?
    # a trapped signal ends wait, not the child
    while kill -0 "$child" 2> /dev/null; do
        code=0
        wait "$child" || code=$?
    done
    child=''
    if [ $code -eq 0 ] || [ $code -eq 2 ]; then exit $code; fi
    if [ -n "$signalled" ]; then
        echo "run_resilient: exit code $code after SIG$signalled: not started again" >&2
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
