"""How much networks compute, counted without their weights in memory.

A multiply-add is two FLOPs; what is neither a matrix product nor a convolution counts nothing.
"""

import json
from collections.abc import Callable
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffit import nets, vae

INCEPTION_SIZE = 299


def flops(forward: Callable[[], object]) -> int:
    """FLOPs of what ``forward`` does with tensors and networks made under ``FakeTensorMode``."""
    # Attention's fused kernels are not all known to the counter; their plain form is made of matrix products.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        forward()
    return counter.get_total_flops()


@cache
def network(spec: str) -> tuple[int, int]:
    """FLOPs of one image's forward pass and number of parameters, of a network described as canonical JSON."""
    described = json.loads(spec)
    size = described.get("input_size", described.get("resolution"))
    with FakeTensorMode():
        net = nets.build(described)
        labels = torch.zeros(1, dtype=torch.int64) if described["kind"] in nets.LATENT else None
        x = torch.zeros(1, described["channels"], size, size)
        return flops(lambda: net(x, torch.zeros(1), labels)), sum(p.numel() for p in net.parameters())


@cache
def autoencoder(shape: str, resolution: int) -> tuple[int, int]:
    """FLOPs of encoding one image and of decoding it, for a VAE's shape as canonical JSON."""
    with FakeTensorMode():
        model = vae.build(json.loads(shape))
        image = torch.zeros(1, 3, resolution, resolution)
        latent = model.encode(image).latent_dist.mean
        return flops(lambda: model.encode(image).latent_dist.mean), flops(lambda: model.decode(latent).sample)


@cache
def inception() -> int:
    """FLOPs of Inception-v3 for one image."""
    from torchvision.models import inception_v3

    with FakeTensorMode():
        model = inception_v3(weights=None, init_weights=False).eval()
        return flops(lambda: model(torch.zeros(1, 3, INCEPTION_SIZE, INCEPTION_SIZE)))
