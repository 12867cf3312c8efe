"""Reproduction of DiffiT: Diffusion Vision Transformers for Image Generation (ECCV 2024)."""

import os

# Read when torch loads its thread pool, so it must be set before. Threads that spin while they wait for each other
# make a job twenty times slower as soon as another program takes one of their cores: sampling 128 digits on 2 busy
# cores took 100 s spinning and 5 s sleeping.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
