"""SLURM for all packages: its commands, and the environment variables of a job."""
