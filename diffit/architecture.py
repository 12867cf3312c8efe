"""What follows from the networks themselves: their size, what they compute, and the parts that they are made of."""

from collections import Counter

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffit import nets

# The products of tokens with tokens; all else that is counted is a linear layer or a convolution.
ATTENTION = ("bmm", "baddbmm")


def sizes(spec: dict) -> dict[str, float]:
    """Millions of parameters, and billions of multiply-adds of one image's forward pass, all and of linear layers.

    ``spec`` is a network as :func:`diffit.nets.build` takes it. Nothing is computed and no weights are held.
    """
    with FakeTensorMode():
        net, inputs = _with_inputs(spec)
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            net(*inputs)
    work = Counter()
    for operation, flops in counter.get_flop_counts()["Global"].items():
        attention = operation.__name__.split(".")[0] in ATTENTION
        work["attention" if attention else "linear"] += flops
    return {
        "parameters": sum(p.numel() for p in net.parameters()) / 1e6,
        "multiply_adds": work.total() / 2e9,
        "linear_multiply_adds": work["linear"] / 2e9,
    }


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
    labels = torch.zeros(1, dtype=torch.int64) if spec["kind"] in nets.LATENT else None
    return nets.build(spec), (torch.zeros(1, spec["channels"], side, side), torch.zeros(1), labels)
