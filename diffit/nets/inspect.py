"""What follows from the networks themselves: their size, what they compute, and the parts that they are made of.

A multiply-add is two FLOPs. Only matrix products and convolutions are counted. Nothing is computed and no weights are
held: networks are built of fake tensors.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffit import nets
from diffit.store.files import canonical

# Products of tokens with tokens; all else that is counted is a linear layer or a convolution.
ATTENTION = ("bmm", "baddbmm")


@dataclass(frozen=True)
class Size:
    """Parameters of a network, and FLOPs of one image's forward pass: all, and those of its linear layers."""

    parameters: int
    flops: int
    linear_flops: int


def size(spec: dict) -> Size:
    """The size of a network, described as :func:`diffit.nets.build` takes it."""
    return _size(canonical(spec))


@cache
def _size(spec: str) -> Size:
    with FakeTensorMode():
        net, inputs = _with_inputs(json.loads(spec))
        work = flops(lambda: net(*inputs))
    return Size(sum(p.numel() for p in net.parameters()), work.total(), work["linear"])


def flops(forward: Callable[[], object]) -> Counter:
    """FLOPs of ``forward``, which computes with fake tensors: ``attention`` and ``linear``."""
    # The counter does not know all fused kernels of attention; their plain form is made of matrix products.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        forward()
    work = Counter()
    for operation, count in counter.get_flop_counts()["Global"].items():
        work["attention" if operation.__name__.split(".")[0] in ATTENTION else "linear"] += count
    return work


def parts(spec: dict, part: str) -> list[tuple[str, str]]:
    """Components of a network with their output sizes, in order.

    Of the U-shaped network those of its ``encoder`` or its ``decoder`` (Tables S.2 and S.3), of a latent one all.
    """
    found: list[tuple[str, str, str]] = []
    with FakeTensorMode():
        net, inputs = _with_inputs(spec)
        steps = _u_shaped(net) if spec["kind"] == "ushaped" else _latent(net)

        def note(module: nn.Module, _, output: torch.Tensor) -> None:
            where, name = steps[module]
            # Maps are [B, C, H, W], tokens [B, N, C]; both are told with their channels last.
            shape = (*output.shape[2:], output.shape[1]) if output.ndim == 4 else output.shape[1:]
            found.append((where, name, " × ".join(map(str, shape))))

        for module in steps:
            module.register_forward_hook(note)
        with torch.no_grad():
            net(*inputs)
    side = inputs[0].shape[2]
    before = [size for where, _, size in found if where == "encoder"] if part == "decoder" else []
    listed = [(name, size) for where, name, size in found if where == part]
    return [("Input", before[-1] if before else f"{side} × {side} × {spec['channels']}"), *listed]


def _u_shaped(net: nn.Module) -> dict[nn.Module, tuple[str, str]]:
    """The modules whose outputs are shown, with their half and their name."""
    steps = {net.tokenizer: ("encoder", "Tokenizer"), net.head: ("decoder", "Head")}
    steps |= dict.fromkeys(net.downsamplers, ("encoder", "Downsampler"))
    steps |= dict.fromkeys(net.upsamplers, ("decoder", "Upsampler"))
    for where in ("encoder", "decoder"):
        steps |= {stage[-1]: (where, f"DiffiT ResBlock × {len(stage)}") for stage in getattr(net, where)}
    return steps


def _latent(net: nn.Module) -> dict[nn.Module, tuple[str, str]]:
    blocks = f"DiffiT Transformer block × {len(net.blocks)}"
    return {
        net.x_embedder.proj: ("encoder", "Patches to tokens"),
        net.blocks[-1]: ("encoder", blocks),
        net.final_layer: ("encoder", "Norm, swish, linear, tokens to patches"),
    }


def _with_inputs(spec: dict) -> tuple[nn.Module, tuple]:
    """The network and what it takes for one image."""
    side = spec.get("input_size", spec.get("resolution"))
    labels = torch.zeros(1, dtype=torch.int64) if nets.takes_labels(spec["kind"]) else None
    return nets.build(spec), (torch.zeros(1, spec["channels"], side, side), torch.zeros(1), labels)
