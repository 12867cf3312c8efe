"""How PyTorch computes float32 products on GPUs at the moment."""

import torch


def tf32_products() -> tuple[bool, bool]:
    """Whether matrix products and convolutions may use TF32. The settings exist without a GPU as well."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
