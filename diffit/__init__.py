"""Reproduction of DiffiT: Diffusion Vision Transformers for Image Generation (ECCV 2024)."""

import os

# Set before torch is imported, because torch reads it when it loads its thread pool. With the default, threads spin
# while they wait for each other, and a job becomes 20 times slower as soon as another program uses one of its cores:
# sampling 128 digits on 2 busy cores took 100 s with spinning and 5 s with sleeping threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
