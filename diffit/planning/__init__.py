"""Plans, costs, preflight checks and accounting of SLURM jobs."""
