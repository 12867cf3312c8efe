"""DiT (Peebles and Xie 2023), the base model of Fig. 7 (b) and Table 9, with its own modulation or with TMSA.

Tokens, embeddings and outputs are those of latent DiffiT, which was built after it. A block of DiT's own scales, shifts
and gates attention and MLP by six vectors that a linear map makes of time and label (adaLN-Zero), and its attention has
no position bias. With TMSA a block is DiffiT's; our reading is that the modulation of the last layer stays, since the
text replaces the mechanism of the blocks.
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
    """Shape of a :class:`DiT`. Raises ValueError for values that do not go together."""

    conditioning: str  # adaln-zero or tmsa

    def __post_init__(self):
        super().__post_init__()
        if self.conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning {self.conditioning!r} is none of {', '.join(CONDITIONINGS)}")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens [B, N, D], shift and scale [B, D]."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Multi-head self-attention without position bias."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))


class AdaLNZeroBlock(nn.Module):
    """x += gate · SA(modulated LN(x)), x += gate · MLP(modulated LN(x)); the gates begin as zero."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(dim, round(dim * mlp_ratio))
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Tokens [B, N, D], time and label [B, D] -> like x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(time)).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class ModulatedFinalLayer(FinalLayer):
    """Tokens to patches of the output: layer norm, modulated, linear."""

    def __init__(self, dim: int, channels: int, patch: int):
        super().__init__(dim, channels, patch)
        self.modulation = nn.Linear(dim, 2 * dim)

    def forward(self, tokens: Tensor, grid: int, time: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(time)).chunk(2, dim=1)
        return self.unpatchify(self.linear(modulate(self.norm(tokens), shift, scale)), grid)


class DiT(LatentDiffiT):
    """Predicts what :class:`LatentDiffiT` predicts, from the same arguments."""

    def build_blocks(self) -> nn.ModuleList:
        c = self.config
        if c.conditioning == "tmsa":
            return super().build_blocks()
        return nn.ModuleList(AdaLNZeroBlock(c.hidden_size, c.num_heads, c.mlp_ratio) for _ in range(c.depth))

    def build_final_layer(self) -> nn.Module:
        c = self.config
        return ModulatedFinalLayer(c.hidden_size, 2 * c.channels, c.patch_size)

    def finish(self, x: Tensor, time: Tensor) -> Tensor:
        return self.final_layer(x, self.config.grid, time)

    def initialize_weights(self) -> None:
        """As in latent DiffiT; modulations begin as zero, so that a block of DiT's own begins as the identity."""
        super().initialize_weights()
        for module in self.modules():
            if isinstance(module, AdaLNZeroBlock | ModulatedFinalLayer):
                nn.init.zeros_(module.modulation.weight)
