"""SLURM as every part of the package sees it: its commands and the variables that it sets in a job."""
