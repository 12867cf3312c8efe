"""The parts that the paper's ablations put in the place of DiffiT's own, one small class each.

Table 6 and 7 vary where time enters a transformer block, Table 8 how it is embedded, Table 4 the stages of encoder and
decoder, Section I.1 how feature maps are resized. Where the paper leaves a reading open, the class says which is ours.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffit.nets.layers import MLP, TMSA, DiffiTTransformer, TimeEmbedding


class SelfAttention(TMSA):
    """Self-attention with a position bias, whose queries, keys and values know nothing of time."""

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        del self.qkv_temb

    def project(self, x: Tensor, time: Tensor) -> Tensor:
        return self.split_heads(rearrange(self.qkv(x), "(b windows) n c -> b (windows n) c", b=len(time)), x.shape[1])


class TimeInPositionBias(SelfAttention):
    """Table 6, F: time enters by the relative position bias alone.

    Our reading: the time token is mapped to the entries of the bias table, one for each offset and head, and added to
    them. A value for each head alone would be the same for all keys, so that the softmax would not see it.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        self.table_temb = nn.Linear(time_dim, self.relative_position_bias_table.numel())

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        q, k, v = self.project(x, time)
        return self.attend(q, k, v, self._bias(time, len(x)))

    def weights(self, x: Tensor, time: Tensor) -> Tensor:
        q, k, _ = self.project(x, time)
        return (q @ k.mT / math.sqrt(q.shape[-1]) + self._bias(time, len(x))).softmax(dim=-1)

    def _bias(self, time: Tensor, windows: int) -> Tensor:
        """[B·windows, heads, N, N], the same in all windows of an image."""
        tokens = len(self.relative_position_index)
        table = rearrange(self.table_temb(time), "b (offsets heads) -> b offsets heads", heads=self.heads)
        of_time = table.index_select(1, self.relative_position_index.flatten())
        of_time = rearrange(of_time, "b (q k) heads -> b heads q k", q=tokens)
        return (self.position_bias()[None] + of_time).repeat_interleave(windows // len(time), dim=0)


class SeparateAttention(SelfAttention):
    """Table 7, separate: attention over the spatial tokens and over the time token apart, summed.

    A token that attends to itself alone gives its own value, so the time token's part is a linear map of it.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        self.v_temb = nn.Linear(time_dim, dim)

    def project(self, x: Tensor, time: Tensor) -> Tensor:
        q, k, v = super().project(x, time)
        of_time = rearrange(self.v_temb(time), "b (heads d) -> b heads 1 d", heads=self.heads)
        # Each query's weights sum to one, so what is added to every value is added to the result.
        return torch.stack([q, k, v + of_time.repeat_interleave(len(x) // len(time), dim=0)])


class BiasTransformer(DiffiTTransformer):
    """A transformer block with time in its position bias (Table 6, F)."""

    attention = TimeInPositionBias


class SeparateTransformer(DiffiTTransformer):
    """A transformer block with the time token attended to apart (Table 7)."""

    attention = SeparateAttention


class MLPTransformer(DiffiTTransformer):
    """Table 6, G: x^ = SA(LN(x_s)) + x_s, x = MLP(LN(x^) + x_t W) + x^, where SA knows nothing of time."""

    attention = SelfAttention

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int], mlp_ratio: float):
        super().__init__(dim, time_dim, heads, grid, mlp_ratio)
        self.mlp_temb = nn.Linear(time_dim, dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C], time token [B, T] -> like x."""
        x = self.attn(self.norm1(x), time) + x
        of_time = self.mlp_temb(time).repeat_interleave(len(x) // len(time), dim=0)  # [B·windows, C]
        return self.mlp(self.norm2(x) + of_time[:, None]) + x


TRANSFORMERS = {
    "tmsa": DiffiTTransformer,
    "separate": SeparateTransformer,
    "time-in-bias": BiasTransformer,
    "time-in-mlp": MLPTransformer,
}


# ------------------------------------------------------------------------------------------------------ Table 8


class FourierEmbedding(TimeEmbedding):
    """Table 8, Fourier: noise levels at fixed random frequencies, as Song et al. 2021 embed them, through the MLP.

    The frequencies are normal with standard deviation ``scale`` (16) and a part of the weights.
    """

    def __init__(self, positional_dim: int, dim: int, augment_labels: int = 0, scale: float = 16):
        super().__init__(positional_dim, dim, augment_labels)
        self.register_buffer("frequencies", scale * torch.randn(positional_dim // 2))

    def embed(self, noise: Tensor) -> Tensor:
        angles = 2 * math.pi * noise.float()[:, None] * self.frequencies.float()  # [B, P/2]
        return torch.cat([angles.cos(), angles.sin()], dim=1)


TIME_EMBEDDINGS = {"positional": TimeEmbedding, "fourier": FourierEmbedding}


# ------------------------------------------------------------------------------------------------------ Table 4


class AddTime(nn.Module):
    """Time as Table 4's A to C have it: projected, scaled by a learned factor for each channel, added to each token.

    What a vision transformer's tokens need as well, a learned position embedding, is added here too.
    """

    def __init__(self, dim: int, time_dim: int, grid: int):
        super().__init__()
        self.project = nn.Linear(time_dim, dim)
        self.scale = nn.Parameter(torch.ones(dim))
        self.position = nn.Parameter(0.02 * torch.randn(dim, grid, grid))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Feature map [B, C, H, W], time token [B, T] -> like x."""
        return x + (self.project(time) * self.scale)[:, :, None, None] + self.position


class ViTBlock(nn.Module):
    """A block of the original vision transformer over the whole grid (Dosovitskiy et al. 2021), without time."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp, self.dropout = MLP(dim, round(dim * mlp_ratio)), nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Feature map [B, C, H, W] -> like x; the time token is not looked at."""
        height = x.shape[2]
        tokens = rearrange(x, "b c h w -> b (h w) c")
        q, k, v = rearrange(
            self.qkv(self.norm1(tokens)), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads
        )
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")
        tokens = tokens + self.dropout(self.proj(attended))
        tokens = tokens + self.dropout(self.mlp(self.norm2(tokens)))
        return rearrange(tokens, "b (h w) c -> b c h w", h=height)


# -------------------------------------------------------------------------------------------------- Section I.1


class Resize(nn.Module):
    """Bilinear resizing by a factor in the place of a strided convolution or an upsampler's.

    Where the number of channels changes as well, a 1×1 convolution changes it; elsewhere there is nothing to learn.
    """

    def __init__(self, before: int, after: int, factor: float):
        super().__init__()
        self.factor = factor
        self.channels = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H·factor, W·factor]."""
        return self.channels(F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False))
