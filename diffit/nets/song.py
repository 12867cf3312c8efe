"""The networks of Song et al. 2021 that Table 5 trains with and without TMSA: DDPM++ and NCSN++, as EDM describes them.

Both are U-nets of residual cells with self-attention at one resolution. DDPM++ resizes by averaging and repeating
pixels and embeds time by sines; NCSN++ resizes with the filter [1, 3, 3, 1], embeds it by random Fourier features, and
adds the image itself, downsampled, at each level of the encoder. With TMSA the self-attention layers are replaced,
nothing else.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffit.nets.layers import TMSA, positional_embedding

SMALLEST_GROUP = 4  # channels of a group in group normalization, and at most 32 groups
SKIP_SCALE = math.sqrt(0.5)
FOURIER_SCALE = 16.0
TINY = 1e-5  # the gain of initial weights that should give nearly nothing
FILTERS = {"ddpmpp": (1, 1), "ncsnpp": (1, 3, 3, 1)}


@dataclass(frozen=True)
class SongConfig:
    """Shape of a :class:`SongUNet`. Raises ValueError for values that do not go together."""

    resolution: int  # pixels along a side
    channels: int  # of the image
    form: str  # ddpmpp or ncsnpp
    width: int  # channels that a multiplier of 1 stands for
    multipliers: tuple[int, ...]  # of the width, one for each level, finest first
    blocks: int  # residual cells of a level; the decoder has one more
    attention_resolution: int  # where cells attend
    tmsa: bool  # whether TMSA stands in the place of self-attention
    dropout: float
    augment_labels: int  # of EDM's augmentation, 0 for none

    def __post_init__(self):
        if self.form not in FILTERS:
            raise ValueError(f"form {self.form!r} is none of {', '.join(FILTERS)}")
        for key in ("resolution", "channels", "width", "blocks", "attention_resolution"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} {getattr(self, key)} is not positive")
        if not self.multipliers or min(self.multipliers) <= 0:
            raise ValueError(f"multipliers {list(self.multipliers)} must name a positive factor for each level")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")
        halvings = len(self.multipliers) - 1
        if self.resolution % 2**halvings:
            raise ValueError(f"resolution {self.resolution} cannot be halved {halvings} times")
        if self.width % (2 * SMALLEST_GROUP):
            raise ValueError(f"width {self.width} is not a multiple of {2 * SMALLEST_GROUP}")
        if self.attention_resolution not in [self.resolution // 2**i for i in range(halvings + 1)]:
            raise ValueError(f"attention_resolution {self.attention_resolution} is not that of a level")

    @property
    def time_dim(self) -> int:
        """Width of the time token."""
        return 4 * self.width


def group_norm(dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, dim // SMALLEST_GROUP), dim, eps=1e-6)


class Filter(nn.Module):
    """Resizing by two with a separable filter: half the size, or twice."""

    def __init__(self, taps: tuple[int, ...], up: bool):
        super().__init__()
        line = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", kernel[None, None], persistent=False)
        self.up, self.padding = up, (len(taps) - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        options = {"stride": 2, "padding": self.padding, "groups": channels}
        return F.conv_transpose2d(x, 4 * kernel, **options) if self.up else F.conv2d(x, kernel, **options)


class SpatialAttention(nn.Module):
    """Self-attention with one head over the grid, without any position bias."""

    def __init__(self, dim: int):
        super().__init__()
        self.qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        height = x.shape[2]
        q, k, v = rearrange(self.qkv(x), "b (three c) h w -> three b (h w) c", three=3)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(attended, "b (h w) c -> b c h w", h=height))


class GridTMSA(TMSA):
    """TMSA over a whole feature map, with one head as the attention that it replaces."""

    def __init__(self, dim: int, time_dim: int, grid: int):
        super().__init__(dim, time_dim, 1, (grid, grid))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        height = x.shape[2]
        attended = super().forward(rearrange(x, "b c h w -> b (h w) c"), time)
        return rearrange(attended, "b (h w) c -> b c h w", h=height)


class Cell(nn.Module):
    """Norm, swish, convolution (resizing), time added, norm, swish, dropout, convolution; scaled sum with the input.

    Attention, where the cell has it, follows with a norm and a scaled sum of its own.
    """

    def __init__(
        self,
        before: int,
        after: int,
        config: SongConfig,
        grid: int,
        resize: Filter | None = None,
        attends: bool = False,
    ):
        super().__init__()
        self.resize = resize
        self.norm0, self.norm1 = group_norm(before), group_norm(after)
        self.conv0 = nn.Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(config.time_dim, after)
        self.dropout = nn.Dropout(config.dropout)
        self.conv1 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after or resize else None
        if attends:
            self.norm2 = group_norm(after)
            self.attention = GridTMSA(after, config.time_dim, grid) if config.tmsa else SpatialAttention(after)
        self.attends = attends

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Feature map [B, C, H, W], time token [B, T] -> [B, C', H', W']."""
        resize = self.resize or nn.Identity()
        h = self.conv0(resize(F.silu(self.norm0(x)))) + self.time(time)[:, :, None, None]
        h = self.conv1(self.dropout(F.silu(self.norm1(h))))
        x = (h + (self.skip(resize(x)) if self.skip else x)) * SKIP_SCALE
        if self.attends:
            x = (x + self.attention(self.norm2(x), time)) * SKIP_SCALE
        return x


class SongUNet(nn.Module):
    """DDPM++ or NCSN++.

    ``checkpoint_blocks`` keeps only the inputs of the cells for the backward pass and computes the rest again.
    """

    def __init__(self, config: SongConfig, checkpoint_blocks: bool = False):
        super().__init__()
        c = self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        fourier, taps = c.form == "ncsnpp", FILTERS[c.form]
        embedded = c.width * (2 if fourier else 1)
        self.register_buffer("frequencies", FOURIER_SCALE * torch.randn(c.width) if fourier else None)
        self.augment = nn.Linear(c.augment_labels, embedded, bias=False) if c.augment_labels else None
        self.mlp = nn.Sequential(nn.Linear(embedded, c.time_dim), nn.SiLU(), nn.Linear(c.time_dim, c.time_dim))

        dims = [c.width * multiplier for multiplier in c.multipliers]
        self.tokenizer = nn.Conv2d(c.channels, dims[0], 3, padding=1)
        self.encoder, self.shrink, self.inputs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        widths, dim, image = [dims[0]], dims[0], c.channels
        for level, after in enumerate(dims):
            grid, cells = c.resolution // 2**level, nn.ModuleList()
            if level:
                cells.append(Cell(dim, dim, c, grid, resize=Filter(taps, up=False)))
                if fourier:  # each level's image is made of the one before
                    self.shrink.append(Filter(taps, up=False))
                    self.inputs.append(nn.Conv2d(image, dim, 3, padding=1))
                    image = dim
                widths.append(dim)
            for _ in range(c.blocks):
                cells.append(Cell(dim, after, c, grid, attends=grid == c.attention_resolution))
                dim = after
                widths.append(dim)
            self.encoder.append(cells)

        self.middle, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(dims))):
            grid, cells = c.resolution // 2**level, nn.ModuleList()
            if level == len(dims) - 1:
                self.middle.append(Cell(dim, dim, c, grid, attends=True))
                self.middle.append(Cell(dim, dim, c, grid))
            else:
                cells.append(Cell(dim, dim, c, grid, resize=Filter(taps, up=True)))
            for number in range(c.blocks + 1):
                attends = number == c.blocks and grid == c.attention_resolution
                cells.append(Cell(dim + widths.pop(), dims[level], c, grid, attends=attends))
                dim = dims[level]
            self.decoder.append(cells)
        self.head = nn.Sequential(group_norm(dim), nn.SiLU(), nn.Conv2d(dim, c.channels, 3, padding=1))
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Every weight in one place: Glorot's rule, and nearly zero where a sum should begin as its other part."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, TMSA):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
        for module in self.modules():
            if isinstance(module, Cell):
                nn.init.xavier_uniform_(module.conv1.weight, gain=TINY)
                if module.attends:
                    nn.init.xavier_uniform_(module.attention.proj.weight, gain=TINY)
        nn.init.xavier_uniform_(self.head[-1].weight, gain=TINY)

    def forward(self, x: Tensor, noise: Tensor, augment: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], noise levels [B], augmentation labels [B, A] or None -> [B, C, H, W]."""
        time = self._time(noise, augment)  # [B, T]
        image, x = x, self.tokenizer(x)
        skips = [x]
        for level, cells in enumerate(self.encoder):
            for number, cell in enumerate(cells):
                x = self._run(cell, x, time)
                if level and not number and self.inputs:
                    image = self.inputs[level - 1](self.shrink[level - 1](image))
                    x = image = (x + image) * SKIP_SCALE
                skips.append(x)
        for cell in self.middle:
            x = self._run(cell, x, time)
        for cells in self.decoder:
            for cell in cells:
                x = self._run(cell, x if cell.resize else torch.cat([x, skips.pop()], dim=1), time)
        return self.head(x)

    def _time(self, noise: Tensor, augment: Tensor | None) -> Tensor:
        with torch.autocast(noise.device.type, enabled=False):
            if self.frequencies is None:
                embedding = positional_embedding(noise, self.config.width)
            else:
                angles = 2 * math.pi * noise.float()[:, None] * self.frequencies.float()
                embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
            embedding = embedding.to(self.mlp[0].weight.dtype)
            if augment is not None:
                assert self.augment is not None, "this network was built without augmentation labels"
                embedding = embedding + self.augment(augment)
            return F.silu(self.mlp(embedding))

    def _run(self, cell: Cell, x: Tensor, time: Tensor) -> Tensor:
        return checkpoint(cell, x, time, use_reentrant=False) if self.checkpoint_blocks else cell(x, time)
