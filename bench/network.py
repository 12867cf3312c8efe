"""What several benchmarks share: the latent network at its width, and attention as it is written down."""

import copy

import torch
from einops import rearrange
from torch import Tensor, nn

from diffit.nets.latent import LatentConfig, LatentDiffiT
from diffit.nets.layers import TMSA

WIDTH, HEADS = 1152, 16
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEPTH = 28 if DEVICE.type == "cuda" else 2  # all blocks of the network cost the same
CLASSES, CHANNELS, FACTOR = 1000, 4, 8


def latent(resolution: int) -> LatentDiffiT:
    """The network for images of this resolution, cut to ``DEPTH`` blocks, with weights that are no longer zero."""
    config = LatentConfig(resolution // FACTOR, CHANNELS, 2, WIDTH, DEPTH, HEADS, 4, CLASSES)
    torch.manual_seed(0)
    net = LatentDiffiT(config)
    nn.init.normal_(net.final_layer.linear.weight, std=0.02)
    return net.to(DEVICE)


def operations(config: LatentConfig) -> float:
    """Floating-point operations of a forward pass of one image, two to a multiply-add."""
    tokens, width = config.grid**2, config.hidden_size
    linear = tokens * (4 + 2 * config.mlp_ratio) * width**2  # qkv, proj and the MLP
    block = linear + 2 * tokens**2 * width + 3 * width**2  # attention, and the time token's projection
    ends = 3 * tokens * width * config.patch_size**2 * config.channels  # one patch in, two out
    return 2 * (config.depth * block + ends)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax(Q K^T / sqrt(d) + B) V step by step: [B, heads, N, d] three times, [heads, N, N] -> [B, heads, N, d]."""
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, heads, N, N]
    return (weights + bias).softmax(-1) @ v


def gathered(attn: TMSA) -> Tensor:
    """The position bias [heads, N, N] from its table, as Swin's code and its descendants take it in every pass."""
    tokens = len(attn.relative_position_index)
    bias = attn.relative_position_bias_table[attn.relative_position_index.flatten()]
    return bias.view(tokens, tokens, -1).permute(2, 0, 1).contiguous()


class ExplicitTMSA(TMSA):
    """TMSA over the whole grid by :func:`attention` and :func:`gathered`."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Tokens [B, N, C], time token [B, T] -> like x."""
        qkv = self.qkv(x) + self.qkv_temb(time)[:, None]
        q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        return self.proj(rearrange(attention(q, k, v, gathered(self)), "b heads n d -> b n (heads d)"))


def reference(net: nn.Module) -> nn.Module:
    """A copy with the same weights whose attention is explicit."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, TMSA):
            module.__class__ = ExplicitTMSA  # nothing but forward differs
    return net
