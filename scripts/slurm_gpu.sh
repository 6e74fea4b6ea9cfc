#!/usr/bin/env bash
# Trains c4-301m on GPU nodes under Slurm, with one rank for each GPU.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 scripts/slurm_gpu.sh [options of ./train_gptcu]
#
# slurm_cpu.sh explains how the job ends and puts itself into the queue again.
#SBATCH --job-name=c4-301m-gpu
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"

DATA=${DATA:-data/c4}
OUT=${OUT:-runs/c4-301m}
cores=$((SLURM_CPUS_ON_NODE / SLURM_NTASKS_PER_NODE))

srun --cpus-per-task="$cores" --cpu-bind=cores --kill-on-bad-exit=1 \
    ./train_gptcu --preset=c4-301m --dtype=bf16 --data="$DATA" --out="$OUT" --resume=auto "$@" &
wait $! || wait $!
if tail -n 5 "slurm-$SLURM_JOB_ID.txt" | grep -q '^RESUME:'; then scontrol requeue "$SLURM_JOB_ID"; fi
