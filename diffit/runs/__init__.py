"""The state of a run on disk.

results/runs/{run}/state/run.json                   the identity of the run; a training that differs is refused
results/runs/{run}/state/checkpoint-000000115008.pt the two newest checkpoints, each with its sha256 in a sidecar
results/runs/{run}/state/milestones/64/             the milestones, separate from the workflow's outputs, which
                                                    Snakemake deletes before it runs a rule again
results/runs/{run}/state/legs.json                  each leg (start of the training): code, commit, time, SLURM job
results/runs/{run}/state/log.jsonl                  the training log, see diffit/runs/metrics_log.py
results/runs/{run}/state/submission.json            the last submitted SLURM job, see diffit/launch/submission.py
results/runs/{run}/state/code/{sha256}/diffit/      the copy of the package that SLURM jobs run
results/runs/{run}/state/lock                       the process that changes the state, see diffit/runs/run_lock.py
"""
