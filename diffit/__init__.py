"""Reproduction of DiffiT: Diffusion Vision Transformers for Image Generation (ECCV 2024)."""
