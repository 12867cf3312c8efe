"""Parameters, FLOPs and components of networks.

One multiply-add counts as two FLOPs; only matrix products and convolutions count. Networks are built from fake tensors,
so nothing is computed and no weights are allocated.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffit import nets
from diffit.store.files import canonical

# Operations that multiply tokens with tokens; all other counted operations are linear layers or convolutions.
ATTENTION = ("bmm", "baddbmm")


@dataclass(frozen=True)
class Size:
    """Number of parameters, and FLOPs of one image's forward pass: in total, and of linear layers and convolutions."""

    parameters: int
    flops: int
    linear_flops: int


def size(spec: dict) -> Size:
    """The size of a network that is specified as for :func:`diffit.nets.build`."""
    return _size(canonical(spec))


@cache
def _size(spec: str) -> Size:
    with FakeTensorMode():
        net, inputs = _with_inputs(json.loads(spec))
        work = flops(lambda: net(*inputs))
    return Size(sum(p.numel() for p in net.parameters()), work.total(), work["linear"])


def flops(forward: Callable[[], object]) -> Counter:
    """FLOPs of a function that computes with fake tensors, by ``attention`` and ``linear``."""
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # it warns where Triton is not installed
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not support all fused attention kernels; the unfused form consists of matrix products.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        forward()
    work = Counter()
    for operation, count in counter.get_flop_counts()["Global"].items():
        work["attention" if operation.__name__.split(".")[0] in ATTENTION else "linear"] += count
    return work


def parts(spec: dict, part: str) -> list[tuple[str, str]]:
    """Names and output sizes of a network's components, in order of execution.

    For the U-shaped network, ``part`` is ``encoder`` (Table S.2) or ``decoder`` (Table S.3). For latent networks it is
    ``encoder`` and includes all components.
    """
    found: list[tuple[str, str, str]] = []
    with FakeTensorMode():
        net, inputs = _with_inputs(spec)
        components = _u_shaped_components(net) if spec["kind"] == "ushaped" else _latent_components(net)

        def record(module: nn.Module, _, output: torch.Tensor) -> None:
            half, name = components[module]
            # Feature maps are [B, C, H, W], tokens [B, N, C]; sizes are listed with channels last.
            shape = (*output.shape[2:], output.shape[1]) if output.ndim == 4 else output.shape[1:]
            found.append((half, name, " × ".join(map(str, shape))))

        for module in components:
            module.register_forward_hook(record)
        with torch.no_grad():
            net(*inputs)
    side = inputs[0].shape[2]
    before = [size for half, _, size in found if half == "encoder"] if part == "decoder" else []
    listed = [(name, size) for half, name, size in found if half == part]
    return [("Input", before[-1] if before else f"{side} × {side} × {spec['channels']}"), *listed]


def _u_shaped_components(net: nn.Module) -> dict[nn.Module, tuple[str, str]]:
    """The half (encoder or decoder) and name of a component, by the module that computes its output."""
    components = {net.tokenizer: ("encoder", "Tokenizer"), net.head: ("decoder", "Head")}
    components |= dict.fromkeys(net.downsamplers, ("encoder", "Downsampler"))
    components |= dict.fromkeys(net.upsamplers, ("decoder", "Upsampler"))
    for half in ("encoder", "decoder"):
        components |= {stage[-1]: (half, f"DiffiT ResBlock × {len(stage)}") for stage in getattr(net, half)}
    return components


def _latent_components(net: nn.Module) -> dict[nn.Module, tuple[str, str]]:
    blocks = f"DiffiT Transformer block × {len(net.blocks)}"
    return {
        net.x_embedder.proj: ("encoder", "Patches to tokens"),
        net.blocks[-1]: ("encoder", blocks),
        net.final_layer: ("encoder", "Norm, swish, linear, tokens to patches"),
    }


def _with_inputs(spec: dict) -> tuple[nn.Module, tuple]:
    """The network and the arguments of its forward pass for one image."""
    side = spec.get("input_size", spec.get("resolution"))
    labels = torch.zeros(1, dtype=torch.int64) if nets.takes_labels(spec["kind"]) else None
    return nets.build(spec), (torch.zeros(1, spec["channels"], side, side), torch.zeros(1), labels)
