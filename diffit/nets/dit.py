"""DiT (Peebles and Xie 2023), the baseline of Figure 7 (b) and Table 9, with adaptive layer norm or with TMSA.

Latent DiffiT was derived from DiT, so tokens, embeddings and outputs are the same. DiT's own block (adaLN-Zero) shifts,
scales and gates attention and MLP with six vectors, which a linear layer computes from the time and label embedding.
Its attention has no position bias. With TMSA, the blocks are those of latent DiffiT. We assume that the last layer
keeps its modulation, because the paper only describes a replacement in the blocks.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffit.nets.latent import FinalLayer, LatentConfig, LatentDiffiT
from diffit.nets.layers import MLP

CONDITIONINGS = ("adaln-zero", "tmsa")


@dataclass(frozen=True)
class DiTConfig(LatentConfig):
    """Shape of a :class:`DiT`. Raises ValueError for invalid or inconsistent values."""

    conditioning: str  # adaln-zero or tmsa

    def __post_init__(self):
        super().__post_init__()
        if self.conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning is {self.conditioning!r}; choose one of {', '.join(CONDITIONINGS)}")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, for tokens x [B, N, D] and shift and scale [B, D]."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Multi-head self-attention without position bias: tokens [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))


class AdaLNZeroBlock(nn.Module):
    """x <- x + g1 SA(LN(x) (1 + s1) + b1), x <- x + g2 MLP(LN(x) (1 + s2) + b2).

    A linear layer computes the shifts b, scales s and gates g from swish(time and label embedding). It is initialized
    with zeros, so the block is the identity before training.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(dim, round(dim * mlp_ratio))
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Tokens [B, N, D], time and label embedding [B, D] -> tokens [B, N, D]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(time)).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class ModulatedFinalLayer(FinalLayer):
    """Tokens to output patches: layer norm, modulation by time and label, linear layer."""

    def __init__(self, dim: int, channels: int, patch: int):
        super().__init__(dim, channels, patch)
        self.modulation = nn.Linear(dim, 2 * dim)

    def forward(self, tokens: Tensor, grid: int, time: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(time)).chunk(2, dim=1)
        return self.unpatchify(self.linear(modulate(self.norm(tokens), shift, scale)), grid)


class DiT(LatentDiffiT):
    """DiT; arguments and outputs are those of :class:`LatentDiffiT`."""

    def build_blocks(self) -> nn.ModuleList:
        """The transformer blocks, adaLN-Zero or TMSA."""
        c = self.config
        if c.conditioning == "tmsa":
            return super().build_blocks()
        return nn.ModuleList(AdaLNZeroBlock(c.hidden_size, c.num_heads, c.mlp_ratio) for _ in range(c.depth))

    def build_final_layer(self) -> nn.Module:
        """The modulated layer that maps tokens to output patches."""
        c = self.config
        return ModulatedFinalLayer(c.hidden_size, 2 * c.channels, c.patch_size)

    def decode_tokens(self, x: Tensor, time: Tensor) -> Tensor:
        """Last tokens [B, N, D], time and label embedding [B, D] -> output [B, 2C, H, W]."""
        return self.final_layer(x, self.config.grid, time)

    def initialize_weights(self) -> None:
        """Initialize as latent DiffiT, and all modulation layers with zeros."""
        super().initialize_weights()
        for module in self.modules():
            if isinstance(module, AdaLNZeroBlock | ModulatedFinalLayer):
                nn.init.zeros_(module.modulation.weight)
