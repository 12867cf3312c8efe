"""DDPM++ and NCSN++ (Song et al. 2021) as in EDM, for Table 5, with self-attention or with TMSA.

Both are U-nets of residual cells with self-attention at one resolution. DDPM++ resizes by averaging and repeating
pixels and has a sinusoidal time embedding. NCSN++ resizes with the filter [1, 3, 3, 1], embeds time by random Fourier
features, and adds the input image to each level of the encoder, convolved and then downsampled. With self-attention,
both compute what EDM's networks compute with the same weights. The variants with TMSA replace the self-attention layers
and change nothing else.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffit.nets import shapes
from diffit.nets.layers import TMSA, positional_embedding
from diffit.nets.shapes import SMALLEST_GROUP

SKIP_SCALE = math.sqrt(0.5)
FOURIER_SCALE = 16.0
NEARLY_ZERO_GAIN = 1e-5  # of the initial weights of layers whose output is added to another branch
ATTENTION_GAIN = math.sqrt(0.2)  # of the initial weights of queries, keys and values
FILTERS = {"ddpmpp": (1, 1), "ncsnpp": (1, 3, 3, 1)}


@dataclass(frozen=True)
class SongConfig:
    """Shape of a :class:`SongUNet`. Raises ValueError for invalid or inconsistent values."""

    resolution: int  # height and width of the images in pixels
    channels: int  # of the image
    form: str  # ddpmpp or ncsnpp
    width: int  # channels at multiplier 1
    multipliers: tuple[int, ...]  # channels divided by width, one per level, finest level first
    blocks: int  # residual cells per level of the encoder; the decoder has one more per level
    attention_resolution: int  # resolution of the level whose cells have attention
    tmsa: bool  # whether TMSA replaces self-attention
    dropout: float
    augment_labels: int  # 9 with EDM's augmentation, 0 without

    def __post_init__(self):
        if self.form not in FILTERS:
            raise ValueError(f"form is {self.form!r}; choose one of {', '.join(FILTERS)}")
        for key in ("resolution", "channels", "width", "blocks", "attention_resolution"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} {getattr(self, key)} is not positive")
        if not self.multipliers or min(self.multipliers) <= 0:
            raise ValueError(f"multipliers {list(self.multipliers)} must be a nonempty list of positive factors")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")
        shapes.check_song(vars(self))

    @property
    def time_dim(self) -> int:
        """Channels T of the time token."""
        return 4 * self.width


def group_norm(dim: int) -> nn.GroupNorm:
    """Group normalization of ``dim`` channels with EDM's number of groups."""
    return nn.GroupNorm(min(32, dim // SMALLEST_GROUP), dim, eps=1e-6)


class ResizingFilter(nn.Module):
    """Down- or upsampling by 2 with a separable filter: [B, C, H, W] -> [B, C, H/2, W/2] or [B, C, 2H, 2W].

    If the input is already ``padded``, the filter adds no padding of its own.
    """

    def __init__(self, taps: tuple[int, ...], up: bool, padded: bool = False):
        super().__init__()
        line = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", kernel[None, None], persistent=False)
        self.up, self.padding = up, 0 if padded else (len(taps) - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        options = {"stride": 2, "padding": self.padding, "groups": channels}
        return F.conv_transpose2d(x, 4 * kernel, **options) if self.up else F.conv2d(x, kernel, **options)


class SpatialAttention(nn.Module):
    """Self-attention with one head over the whole feature map, without position bias; ignores the time token."""

    def __init__(self, dim: int):
        super().__init__()
        self.qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        height = x.shape[2]
        q, k, v = rearrange(self.qkv(x), "b (three c) h w -> three b (h w) c", three=3)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(attended, "b (h w) c -> b c h w", h=height))


class GridTMSA(TMSA):
    """TMSA over a whole feature map, with one head, as in the self-attention that it replaces."""

    def __init__(self, dim: int, time_dim: int, grid: int):
        super().__init__(dim, time_dim, 1, (grid, grid))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        height = x.shape[2]
        attended = super().forward(rearrange(x, "b c h w -> b (h w) c"), time)
        return rearrange(attended, "b (h w) c -> b c h w", h=height)


class ResidualCell(nn.Module):
    """h = Conv(R(Swish(GN(x)))) + W x_t + b, y = (Conv(Dropout(Swish(GN(h)))) + S(x)) / sqrt(2).

    R is the identity or resizing by 2. The skip S is R, followed by a 1×1 convolution if shapes change. With attention,
    the output is (y + Attention(GN(y), x_t)) / sqrt(2), otherwise y.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: SongConfig,
        grid: int,
        resize: ResizingFilter | None = None,
        attends: bool = False,
    ):
        super().__init__()
        self.resize = resize
        self.norm0, self.norm1 = group_norm(in_channels), group_norm(out_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(config.time_dim, out_channels)
        self.dropout = nn.Dropout(config.dropout)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels or resize else None
        if attends:
            self.norm2 = group_norm(out_channels)
            self.attention = (
                GridTMSA(out_channels, config.time_dim, grid) if config.tmsa else SpatialAttention(out_channels)
            )
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
    """DDPM++ or NCSN++: the network F of a preconditioned denoiser (see :mod:`diffit.process.score_sde`).

    Args:
        config: the shape.
        checkpoint_blocks: store only the inputs of the cells for the backward pass and recompute the rest.
    """

    def __init__(self, config: SongConfig, checkpoint_blocks: bool = False):
        super().__init__()
        c = self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        fourier = c.form == "ncsnpp"
        embedded = c.width * (2 if fourier else 1)
        self.register_buffer("frequencies", FOURIER_SCALE * torch.randn(c.width) if fourier else None)
        self.augment = nn.Linear(c.augment_labels, embedded, bias=False) if c.augment_labels else None
        self.mlp = nn.Sequential(nn.Linear(embedded, c.time_dim), nn.SiLU(), nn.Linear(c.time_dim, c.time_dim))
        dims = [c.width * multiplier for multiplier in c.multipliers]
        self.tokenizer = nn.Conv2d(c.channels, dims[0], 3, padding=1)
        skips = self._build_encoder(dims)
        self._build_decoder(dims, skips)
        self.head = nn.Sequential(group_norm(dims[0]), nn.SiLU(), nn.Conv2d(dims[0], c.channels, 3, padding=1))
        self.initialize_weights()

    def _build_encoder(self, dims: list[int]) -> list[int]:
        """Build the encoder for levels with ``dims`` channels; return the channels of its skip connections in order."""
        c, taps = self.config, FILTERS[self.config.form]
        self.encoder, self.image_downsamplers, self.inputs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        skips, dim, image_dim = [dims[0]], dims[0], c.channels
        for level, level_dim in enumerate(dims):
            grid, cells = c.resolution // 2**level, nn.ModuleList()
            if level:
                cells.append(ResidualCell(dim, dim, c, grid, resize=ResizingFilter(taps, up=False)))
                if c.form == "ncsnpp":  # the image of a level is computed from the image of the level before
                    padding = 1 + (len(taps) - 1) // 2  # of the convolution and of the filter after it, as in EDM
                    self.inputs.append(nn.Conv2d(image_dim, dim, 3, padding=padding))
                    self.image_downsamplers.append(ResizingFilter(taps, up=False, padded=True))
                    image_dim = dim
                skips.append(dim)
            for _ in range(c.blocks):
                cells.append(ResidualCell(dim, level_dim, c, grid, attends=grid == c.attention_resolution))
                dim = level_dim
                skips.append(dim)
            self.encoder.append(cells)
        return skips

    def _build_decoder(self, dims: list[int], skips: list[int]) -> None:
        """Build the middle cells and the decoder, which reads the skip connections in reverse order."""
        c, taps, dim = self.config, FILTERS[self.config.form], dims[-1]
        self.middle, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(dims))):
            grid, cells = c.resolution // 2**level, nn.ModuleList()
            if level == len(dims) - 1:
                self.middle.append(ResidualCell(dim, dim, c, grid, attends=True))
                self.middle.append(ResidualCell(dim, dim, c, grid))
            else:
                cells.append(ResidualCell(dim, dim, c, grid, resize=ResizingFilter(taps, up=True)))
            for number in range(c.blocks + 1):
                attends = number == c.blocks and grid == c.attention_resolution
                cells.append(ResidualCell(dim + skips.pop(), dims[level], c, grid, attends=attends))
                dim = dims[level]
            self.decoder.append(cells)

    def initialize_weights(self) -> None:
        """Initialize all weights: Glorot as in EDM, with a gain of sqrt(0.2) for queries, keys and values.

        In TMSA this includes their projections of the time token. The gain is nearly 0 for layers whose output is added
        to another branch.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualCell):
                nn.init.xavier_uniform_(module.conv1.weight, gain=NEARLY_ZERO_GAIN)
            if isinstance(module, TMSA | SpatialAttention):
                nn.init.xavier_uniform_(module.qkv.weight, gain=ATTENTION_GAIN)
                nn.init.xavier_uniform_(module.proj.weight, gain=NEARLY_ZERO_GAIN)
            if isinstance(module, TMSA):
                nn.init.xavier_uniform_(module.qkv_temb.weight, gain=ATTENTION_GAIN)
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
        nn.init.xavier_uniform_(self.head[-1].weight, gain=NEARLY_ZERO_GAIN)

    def forward(self, x: Tensor, noise: Tensor, augment: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], noise levels [B], augmentation labels [B, A] or None -> [B, C, H, W]."""
        time = self._time(noise, augment)  # [B, T]
        image, x = x, self.tokenizer(x)
        skips = [x]
        for level, cells in enumerate(self.encoder):
            for number, cell in enumerate(cells):
                x = self._run(cell, x, time)
                if level and not number and self.inputs:
                    image = self.image_downsamplers[level - 1](self.inputs[level - 1](image))
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
                embedding = positional_embedding(noise, self.config.width, endpoint=True)
            else:
                angles = 2 * math.pi * noise.float()[:, None] * self.frequencies.float()
                embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
            embedding = embedding.to(self.mlp[0].weight.dtype)
            if augment is not None:
                assert self.augment is not None, "this network was built without augmentation labels"
                embedding = embedding + self.augment(augment)
            return F.silu(self.mlp(embedding))

    def _run(self, cell: ResidualCell, x: Tensor, time: Tensor) -> Tensor:
        return checkpoint(cell, x, time, use_reentrant=False) if self.checkpoint_blocks else cell(x, time)
