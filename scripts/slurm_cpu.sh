#!/usr/bin/env bash
# c4-301m on CPU nodes under Slurm: one rank a socket, all cores of it as threads.
#
#   sbatch --nodes=16 scripts/slurm_cpu.sh [options of ./train_gpt]
#
# Ten minutes before the time limit Slurm sends SIGUSR1: the trainer writes a checkpoint and ends, and this job queues
# itself again until the last step is done.
#SBATCH --job-name=c4-301m
#SBATCH --ntasks-per-socket=1
#SBATCH --ntasks-per-node=2
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"

DATA=${DATA:-data/c4}   # on a file system that all nodes see, as OUT is
OUT=${OUT:-runs/c4-301m}
cores=$((SLURM_CPUS_ON_NODE / SLURM_NTASKS_PER_NODE))

# srun's default would be one core a rank; --kill-on-bad-exit ends the job when a rank is lost. Signals go to the ranks.
srun --cpus-per-task="$cores" --cpu-bind=cores --kill-on-bad-exit=1 \
    ./train_gpt --preset=c4-301m --dtype=bf16 --data="$DATA" --out="$OUT" --resume=auto "$@" &
wait $! || wait $! # a signal to this script ends the first wait early
if tail -n 5 "slurm-$SLURM_JOB_ID.txt" | grep -q '^RESUME:'; then scontrol requeue "$SLURM_JOB_ID"; fi
