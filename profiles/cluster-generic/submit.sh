#!/bin/sh
# submit.sh THREADS MEGABYTES MINUTES GPUS RULE SCRIPT: submit a job and print its id.
set -eu
mkdir -p .snakemake/slurm_logs
partition=cpu
[ "$4" -eq 0 ] || partition=gpu
sbatch --parsable --requeue --job-name="capscope-$5" --comment="$5" --partition="$partition" \
  --cpus-per-task="$1" --mem="$2" --time="$3" --gpus="$4" \
  --output=".snakemake/slurm_logs/$5-%j.log" "$6"
