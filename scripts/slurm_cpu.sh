#!/usr/bin/env bash
# Trains c4-301m on CPU nodes under Slurm, with one rank on each socket and a thread on each of its cores.
#
#   sbatch --nodes=16 scripts/slurm_cpu.sh [options of ./train_gpt]
#
# Ten minutes before the time limit Slurm sends SIGUSR1. The trainer then writes a checkpoint and ends, and this job puts itself
# into the queue again, until the last step is done.
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

DATA=${DATA:-data/c4}   # DATA and OUT are on a file system that all nodes see
OUT=${OUT:-runs/c4-301m}
cores=$((SLURM_CPUS_ON_NODE / SLURM_NTASKS_PER_NODE))

# By default srun would give each rank one core. --kill-on-bad-exit ends the job when a rank has died. srun passes signals to
# the ranks.
srun --cpus-per-task="$cores" --cpu-bind=cores --kill-on-bad-exit=1 \
    ./train_gpt --preset=c4-301m --dtype=bf16 --data="$DATA" --out="$OUT" --resume=auto "$@" &
wait $! || wait $! # a signal to this script ends the first wait before srun has ended
if tail -n 5 "slurm-$SLURM_JOB_ID.txt" | grep -q '^RESUME:'; then scontrol requeue "$SLURM_JOB_ID"; fi
