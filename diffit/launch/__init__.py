"""Where a training runs: on this machine or as a SLURM job."""
