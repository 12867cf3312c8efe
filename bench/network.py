"""What several benchmarks share: the latent network, and a reference implementation of attention."""

import copy
from dataclasses import asdict

import torch
from einops import rearrange
from torch import Tensor, nn

from diffit.nets.inspect import size
from diffit.nets.latent import LatentConfig, LatentDiffiT
from diffit.nets.layers import TMSA

WIDTH, HEADS = 1152, 16
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEPTH = 28 if DEVICE.type == "cuda" else 2  # all blocks of the network have the same cost
CLASSES, CHANNELS, FACTOR = 1000, 4, 8


def latent(resolution: int) -> LatentDiffiT:
    """The network for images of this resolution with ``DEPTH`` blocks and a last layer that is not 0."""
    config = LatentConfig(resolution // FACTOR, CHANNELS, 2, WIDTH, DEPTH, HEADS, 4, CLASSES)
    torch.manual_seed(0)
    net = LatentDiffiT(config)
    nn.init.normal_(net.final_layer.linear.weight, std=0.02)
    return net.to(DEVICE)


def forward_flops(config: LatentConfig) -> int:
    """FLOPs of a forward pass for one image; one multiply-add is two FLOPs."""
    return size({"kind": "latent", **asdict(config)}).flops


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax(Q K^T / sqrt(d) + B) V with explicit weights: q, k, v [B, heads, N, d], bias [heads, N, N]."""
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, heads, N, N]
    return (weights + bias).softmax(-1) @ v


def gathered_bias(attn: TMSA) -> Tensor:
    """The position bias [heads, N, N], gathered from its table as in Swin's code in every forward pass."""
    tokens = len(attn.relative_position_index)
    bias = attn.relative_position_bias_table[attn.relative_position_index.flatten()]
    return bias.view(tokens, tokens, -1).permute(2, 0, 1).contiguous()


class ExplicitTMSA(TMSA):
    """TMSA over the whole grid with :func:`attention` and :func:`gathered_bias`."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Tokens [B, N, C], time token [B, T] -> [B, N, C]."""
        qkv = self.qkv(x) + self.qkv_temb(time)[:, None]
        q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        return self.proj(rearrange(attention(q, k, v, gathered_bias(self)), "b heads n d -> b n (heads d)"))


def reference(net: nn.Module) -> nn.Module:
    """A copy of the network with the same weights and explicit attention."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, TMSA):
            module.__class__ = ExplicitTMSA  # only forward differs
    return net
