"""The layers that replace DiffiT's own layers in the paper's ablations.

Tables 6 and 7 vary where time enters a transformer block, Table 8 the time embedding, Table 4 the stages of encoder and
decoder, and Section I.1 the resizing of feature maps. If the paper is ambiguous, the docstring states our assumption.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffit.nets.layers import MLP, TMSA, DiffiTTransformer, TimeEmbedding


class SelfAttention(TMSA):
    """Self-attention with position bias, without time in queries, keys and values."""

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        del self.qkv_temb

    def project(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C] -> queries, keys and values [3, B·windows, heads, N, d]."""
        return self.split_heads(rearrange(self.qkv(x), "(b windows) n c -> b (windows n) c", b=len(time)), x.shape[1])


class TimeInPositionBias(SelfAttention):
    """Table 6, F: time enters only through the relative position bias, B = table + W x_t + b.

    We assume one time-dependent value per offset and head. One value per head would have no effect, because the softmax
    is invariant to a constant that is the same for all keys.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        self.table_temb = nn.Linear(time_dim, self.relative_position_bias_table.numel())

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C], time token [B, T] -> [B·windows, N, C]."""
        q, k, v = self.project(x, time)
        return self.attend(q, k, v, self._bias(time, len(x)))

    def weights(self, x: Tensor, time: Tensor) -> Tensor:
        """Attention weights for figures: [B·windows, heads, N (query), N (key)]."""
        q, k, _ = self.project(x, time)
        return (q @ k.mT / math.sqrt(q.shape[-1]) + self._bias(time, len(x))).softmax(dim=-1)

    def _bias(self, time: Tensor, windows: int) -> Tensor:
        """Time token [B, T] -> bias [B·windows, heads, N, N]; all windows of an image have the same bias."""
        tokens = len(self.relative_position_index)
        table = rearrange(self.table_temb(time), "b (offsets heads) -> b offsets heads", heads=self.heads)
        time_bias = table.index_select(1, self.relative_position_index.flatten())
        time_bias = rearrange(time_bias, "b (q k) heads -> b heads q k", q=tokens)
        return (self.position_bias()[None] + time_bias).repeat_interleave(windows // len(time), dim=0)


class SeparateAttention(SelfAttention):
    """Table 7, separate: the sum of attention over the spatial tokens and attention over the time token.

    Attention over a single token returns its value, so the second term is a linear function of the time token.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        self.v_temb = nn.Linear(time_dim, dim)

    def project(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C], time token [B, T] -> q, k and v [3, B·windows, heads, N, d]."""
        q, k, v = super().project(x, time)
        time_value = rearrange(self.v_temb(time), "b (heads d) -> b heads 1 d", heads=self.heads)
        # The attention weights of a query sum to 1, so adding the time value to every value adds it to the output.
        return torch.stack([q, k, v + time_value.repeat_interleave(len(x) // len(time), dim=0)])


class TimeTokenAttention(SelfAttention):
    """Table 7, another reading of separate: the time token is one more token of the sequence.

    Each window has a key and a value of the time token after those of its N spatial tokens, k_t = x_t W_kt + b and
    v_t = x_t W_vt + b. It needs no query: all blocks receive the same time token, so its output is not used. The
    relative position bias has no offset to the time token; its column there is 0.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__(dim, time_dim, heads, grid)
        self.kv_temb = nn.Linear(time_dim, 2 * dim)

    def position_bias(self) -> Tensor:
        """B in Eq. 6 with a last column for the time token: [heads, N, N + 1]."""
        return F.pad(super().position_bias(), (0, 1))

    def project(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spatial tokens [B·windows, N, C], time token [B, T] -> queries [B·windows, heads, N, d], keys and values
        [B·windows, heads, N + 1, d]."""
        q, *spatial = super().project(x, time)
        of_time = rearrange(self.kv_temb(time), "b (two heads d) -> two b heads 1 d", two=2, heads=self.heads)
        of_time = of_time.repeat_interleave(len(x) // len(time), dim=1)  # [2, B·windows, heads, 1, d]
        k, v = (torch.cat(pair, dim=2) for pair in zip(spatial, of_time, strict=True))
        return q, k, v


class BiasTransformer(DiffiTTransformer):
    """Transformer block with time in the position bias (Table 6, F)."""

    attention = TimeInPositionBias


class SeparateTransformer(DiffiTTransformer):
    """Transformer block with separate attention over the time token (Table 7)."""

    attention = SeparateAttention


class TimeTokenTransformer(DiffiTTransformer):
    """Transformer block with time as one more token of the sequence (Table 7)."""

    attention = TimeTokenAttention


class MLPTransformer(DiffiTTransformer):
    """Table 6, G: x^ = SA(LN(x_s)) + x_s, x = MLP(LN(x^) + x_t W + b) + x^, with self-attention SA without time."""

    attention = SelfAttention

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int], mlp_ratio: float):
        super().__init__(dim, time_dim, heads, grid, mlp_ratio)
        self.mlp_temb = nn.Linear(time_dim, dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C], time token [B, T] -> [B·windows, N, C]."""
        x = self.attn(self.norm1(x), time) + x
        time_shift = self.mlp_temb(time).repeat_interleave(len(x) // len(time), dim=0)  # [B·windows, C]
        return self.mlp(self.norm2(x) + time_shift[:, None]) + x


TRANSFORMERS = {
    "tmsa": DiffiTTransformer,
    "separate": SeparateTransformer,
    "time-token": TimeTokenTransformer,
    "time-in-bias": BiasTransformer,
    "time-in-mlp": MLPTransformer,
}


# ------------------------------------------------------------------------------------------------------ Table 8


class FourierEmbedding(TimeEmbedding):
    """Table 8, Fourier: the embedding e = [cos(2 pi f c), sin(2 pi f c)] of noise levels c (Song et al. 2021).

    The frequencies f are fixed, drawn from N(0, scale²), and saved with the weights.
    """

    def __init__(self, positional_dim: int, dim: int, augment_labels: int = 0, scale: float = 16):
        super().__init__(positional_dim, dim, augment_labels)
        self.register_buffer("frequencies", scale * torch.randn(positional_dim // 2))

    def embed(self, noise: Tensor) -> Tensor:
        """Noise levels [B] -> float32 [B, P]."""
        angles = 2 * math.pi * noise.float()[:, None] * self.frequencies.float()  # [B, P/2]
        return torch.cat([angles.cos(), angles.sin()], dim=1)


TIME_EMBEDDINGS = {"positional": TimeEmbedding, "fourier": FourierEmbedding}


# ------------------------------------------------------------------------------------------------------ Table 4


class AddTime(nn.Module):
    """Time embedding of Table 4, A to C: x + s (W x_t + b) + p.

    s is a learned factor per channel; p is the learned position embedding that the tokens of a vision transformer need.
    """

    def __init__(self, dim: int, time_dim: int, grid: int):
        super().__init__()
        self.project = nn.Linear(time_dim, dim)
        self.scale = nn.Parameter(torch.ones(dim))
        self.position = nn.Parameter(0.02 * torch.randn(dim, grid, grid))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Feature map [B, C, H, W], time token [B, T] -> [B, C, H, W]."""
        return x + (self.project(time) * self.scale)[:, :, None, None] + self.position


class ViTBlock(nn.Module):
    """Block of the original vision transformer (Dosovitskiy et al. 2021) over the whole grid, without time."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp, self.dropout = MLP(dim, round(dim * mlp_ratio)), nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Feature map [B, C, H, W] -> [B, C, H, W]; the time token is ignored."""
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
    """Bilinear resizing by a factor, instead of a strided convolution or of upsampling followed by a convolution.

    A 1×1 convolution changes the number of channels if necessary; otherwise the layer has no parameters.
    """

    def __init__(self, before: int, after: int, factor: float):
        super().__init__()
        self.factor = factor
        self.channels = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H·factor, W·factor]."""
        return self.channels(F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False))
