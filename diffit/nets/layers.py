"""The layers of DiffiT: time embedding, TMSA, transformer block and residual cell.

Equation numbers refer to the paper. Parameters that also exist in the released latent network have the same names.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffit.nets.shapes import fit_window


def positional_embedding(positions: Tensor, dim: int, endpoint: bool = False) -> Tensor:
    """cos(w_k p), then sin(w_k p), of positions p [B] for k = 0, ..., n - 1 with n = dim/2: float32 [B, dim].

    w_k = 10000^(-k / n) as in ADM, or 10000^(-k / (n - 1)) with ``endpoint``, as in the networks of EDM.
    """
    half = dim // 2
    octaves = torch.arange(half, device=positions.device, dtype=torch.float32) / (half - endpoint)
    angles = positions.float()[:, None] * torch.exp(-math.log(10000) * octaves)  # [B, dim/2]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """The time token: x_t = W2 swish(W1 e + b1) + b2 with the positional embedding e (Section 3.2).

    If the network has augmentation labels a, then e = positional embedding + A a. A has no bias, so labels of zero (no
    augmentation) change nothing.

    Args:
        positional_dim: channels P of the positional embedding.
        dim: channels T of the time token.
        augment_labels: number of augmentation labels; 0 for none.
    """

    def __init__(self, positional_dim: int, dim: int, augment_labels: int = 0):
        super().__init__()
        self.positional_dim = positional_dim
        self.augment = nn.Linear(augment_labels, positional_dim, bias=False) if augment_labels else None
        self.mlp = nn.Sequential(nn.Linear(positional_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, noise: Tensor, augment: Tensor | None = None) -> Tensor:
        """Noise levels or timesteps [B], augmentation labels [B, A] or None -> time token [B, T]."""
        # Without autocast, because neighboring noise levels are equal in bfloat16.
        with torch.autocast(noise.device.type, enabled=False):
            embedding = self.embed(noise).to(self.mlp[0].weight.dtype)  # [B, P]
            if augment is not None:
                assert self.augment is not None, "this network was built without augmentation labels"
                embedding = embedding + self.augment(augment)
            return self.mlp(embedding)  # [B, T]

    def embed(self, noise: Tensor) -> Tensor:
        """Noise levels or timesteps [B] -> positional embedding, float32 [B, P]."""
        return positional_embedding(noise, self.positional_dim)


def relative_position_index(grid: tuple[int, int]) -> Tensor:
    """Row of the bias table for each (query, key) pair of tokens of an h × w grid: int64 [N, N], N = h w.

    For the offset (dy, dx) = query - key, the row is (dy + h - 1) (2w - 1) + dx + w - 1.
    """
    h, w = grid
    place = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).flatten(1)  # [2, N]
    dy, dx = place[:, :, None] - place[:, None, :]  # each [N, N]
    return (dy + h - 1) * (2 * w - 1) + dx + w - 1


class TMSA(nn.Module):
    """Time-dependent multi-head self-attention (Eq. 3-6).

    q = x_s W_qs + x_t W_qt, and likewise k and v (Eq. 3-5), for spatial tokens x_s and time token x_t. The output is
    Softmax(Q K^T / sqrt(d) + B) V (Eq. 6) with a learned relative position bias B per head, followed by a linear layer.

    Args:
        dim: channels C of the spatial tokens.
        time_dim: channels T of the time token.
        heads: number of attention heads.
        grid: height and width of a window in tokens; N = height · width.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int]):
        super().__init__()
        assert dim % heads == 0, f"{heads} heads do not divide {dim} channels"
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qkv_temb = nn.Linear(time_dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.register_buffer("relative_position_index", relative_position_index(grid), persistent=False)

    def position_bias(self) -> Tensor:
        """B in Eq. 6: [heads, N, N]."""
        tokens = len(self.relative_position_index)
        bias = self.relative_position_bias_table.index_select(0, self.relative_position_index.flatten())
        return rearrange(bias, "(q k) heads -> heads q k", q=tokens)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C], windows of an image in sequence, time token [B, T] -> [B·windows, N, C]."""
        q, k, v = self.project(x, time)
        return self.attend(q, k, v, self.position_bias()[None])

    def project(self, x: Tensor, time: Tensor) -> Tensor:
        """Queries, keys and values (Eq. 3-5): [3, B·windows, heads, N, d]."""
        qkv = self.qkv(x)  # [B·windows, N, 3C]
        # The time token is projected once per image and added in all its windows.
        qkv = rearrange(qkv, "(b windows) n c -> b (windows n) c", b=len(time)) + self.qkv_temb(time)[:, None]
        return self.split_heads(qkv, x.shape[1])

    def split_heads(self, qkv: Tensor, tokens: int) -> Tensor:
        """[B, windows·N, 3C] -> [3, B·windows, heads, N, d]."""
        return rearrange(
            qkv, "b (windows n) (three heads d) -> three (b windows) heads n d", three=3, heads=self.heads, n=tokens
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Eq. 6 and the output layer: q, k, v [B·windows, heads, N, d], bias [1 or B·windows, heads, N, N] -> tokens
        [B·windows, N, C]."""
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))  # [B·windows, heads, N, d]
        return self.proj(rearrange(x, "b heads n d -> b n (heads d)"))

    def weights(self, x: Tensor, time: Tensor) -> Tensor:
        """Attention weights, the softmax in Eq. 6, for figures: [B·windows, heads, N (query), N (key)]."""
        q, k, _ = self.project(x, time)
        return (q @ k.mT / math.sqrt(q.shape[-1]) + self.position_bias()[None]).softmax(dim=-1)


class MLP(nn.Module):
    """Linear, GELU (tanh approximation, as in the released network), linear: [..., C] -> [..., C]."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))  # [..., C]


class DiffiTTransformer(nn.Module):
    """x^ = TMSA(LN(x_s), x_t) + x_s (Eq. 7), x = MLP(LN(x^)) + x^ (Eq. 8).

    LN has no parameters, as in the released network.
    """

    attention = TMSA

    def __init__(self, dim: int, time_dim: int, heads: int, grid: tuple[int, int], mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attn = self.attention(dim, time_dim, heads, grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(dim, round(dim * mlp_ratio))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Spatial tokens [B·windows, N, C], time token [B, T] -> [B·windows, N, C]."""
        x = self.attn(self.norm1(x), time) + x
        return self.mlp(self.norm2(x)) + x


def partition(x: Tensor, window: int) -> Tensor:
    """Cut a feature map [B, C, H, W] into windows: tokens [B·windows, window², C], windows of an image in sequence."""
    return rearrange(x, "b c (y h) (x w) -> (b y x) (h w) c", h=window, w=window)


def merge(tokens: Tensor, grid: int, window: int) -> Tensor:
    """Inverse of :func:`partition` for a square grid: [B, C, grid, grid]."""
    y = grid // window
    return rearrange(tokens, "(b y x) (h w) c -> b c (y h) (x w)", y=y, x=y, h=window)


class DiffiTResBlock(nn.Module):
    """x^ = Conv3x3(Swish(GN(x_s))) (Eq. 9), x = DiffiT-Transformer(x^, x_t) + x_s (Eq. 10), with local windows.

    The paper does not say where dropout is applied; we follow EDM and apply it before the convolution.
    """

    def __init__(
        self,
        dim: int,
        time_dim: int,
        *,
        grid: int,
        window: int,
        head_dim: int,
        mlp_ratio: float,
        groups: int,
        dropout: float,
        transformer: type[DiffiTTransformer] = DiffiTTransformer,
    ):
        super().__init__()
        self.grid, self.window = grid, fit_window(grid, window)
        self.norm = nn.GroupNorm(groups, dim)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.transformer = transformer(dim, time_dim, dim // head_dim, (self.window, self.window), mlp_ratio)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Feature map [B, C, H, W], time token [B, T] -> [B, C, H, W]."""
        h = self.conv(self.dropout(F.silu(self.norm(x))))  # [B, C, H, W]
        h = self.transformer(partition(h, self.window), time)  # [B·windows, window², C]
        return merge(h, self.grid, self.window) + x


def initialize_image_network(net: nn.Module) -> None:
    """Initialize the weights of an image-space network in place.

    Convolutions: normal with variance 1 / fan_in, which preserves the variance of their input. On digits this trains
    faster than Glorot initialization, which the linear layers use. Bias tables: truncated normal with std 0.02.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, TMSA):
            nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


@contextmanager
def cached_position_bias(net: nn.Module) -> Iterator[None]:
    """Context for sampling, in which every TMSA builds its position bias once instead of in each forward pass.

    The cached bias has no gradient and has the dtype that attention uses (under autocast, autocast's dtype). Discards
    the cached bias on exit and asserts that the tables did not change.
    """
    attentions = [module for module in net.modules() if isinstance(module, TMSA)]
    tables = [attention.relative_position_bias_table.detach().clone() for attention in attentions]
    for attention in attentions:
        attention.position_bias = _position_bias_once(attention)  # shadows the method until it is deleted
    try:
        yield
    finally:
        for attention in attentions:
            del attention.position_bias
    for attention, table in zip(attentions, tables, strict=True):
        # Tensor version counters would be cheaper to compare, but fused optimizers do not increment them.
        assert torch.equal(attention.relative_position_bias_table, table), (
            "a position bias table changed within cached_position_bias"
        )


@torch.no_grad()
def _position_bias_once(attention: TMSA) -> Callable[[], Tensor]:
    bias = attention.position_bias()
    device = bias.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else bias.dtype
    bias = bias.to(dtype).contiguous()  # [heads, N, N]
    return lambda: bias
