"""A run on disk: its record, checkpoints, legs, log and lock.

results/runs/{run}/state/run.json                   what the run is; changing it is refused
results/runs/{run}/state/checkpoint-000000115008.pt two newest, each with its sha256 beside it
results/runs/{run}/state/milestones/115/            what was published, kept apart from the workflow's outputs,
                                                    which Snakemake deletes before it runs a rule again
results/runs/{run}/state/legs.json                  each start of its training: code, commit, time, SLURM job
results/runs/{run}/state/submission.json            the SLURM job that was submitted last, see diffit/launch/
results/runs/{run}/state/code/{sha256}/diffit/      the package as such jobs run it
results/runs/{run}/state/lock                       who changes it now, see diffit/runs/run_lock.py
"""
