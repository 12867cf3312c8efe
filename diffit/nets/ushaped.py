"""Image-space DiffiT: the U-shaped network of Figure 4, Tables S.2 and S.3.

The paper does not specify the following, which are our choices: ``head_dim``, ``mlp_ratio``, ``groups``, layer norms
without parameters, skip connections by concatenation and a convolution, and the positions of dropout and augmentation
labels (see :mod:`diffit.nets.layers`).
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffit.nets import shapes
from diffit.nets.layers import DiffiTResBlock, initialize_image_network
from diffit.nets.variants import TIME_EMBEDDINGS, TRANSFORMERS, AddTime, Resize, ViTBlock

ALTERNATIVES = {
    "transformer": tuple(TRANSFORMERS),
    "time_embedding": tuple(TIME_EMBEDDINGS),
    "resizing": ("convolution", "bilinear"),
    "encoder": ("diffit", "vit"),
    "decoder": ("diffit", "vit"),
}


@dataclass(frozen=True)
class Level:
    """One resolution of the U-shaped network: feature maps [B, dim, grid, grid]."""

    grid: int
    dim: int


@dataclass(frozen=True)
class UShapedConfig:
    """Shape of a :class:`UShapedDiffiT`. Raises ValueError for invalid or inconsistent values."""

    resolution: int  # height and width of the images in pixels
    channels: int  # of the image
    width: int  # channels at multiplier 1
    multipliers: tuple[int, ...]  # channels divided by width, one per level, finest level first
    blocks: int  # DiffiT ResBlocks per stage
    window: int  # side of the attention windows, in tokens
    head_dim: int  # channels per attention head
    mlp_ratio: float  # hidden width of the MLPs divided by their input width
    time_dim: int  # channels of the time token
    groups: int  # of group normalization
    dropout: float
    augment_labels: int  # 9 with EDM's augmentation, 0 without
    # Alternatives for the paper's ablations, see :mod:`diffit.nets.variants`.
    transformer: str = "tmsa"  # where time enters a block: a key of TRANSFORMERS
    time_embedding: str = "positional"  # a key of TIME_EMBEDDINGS
    resizing: str = "convolution"  # or bilinear
    encoder: str = "diffit"  # blocks of its stages: diffit, or vit with time added once per stage
    decoder: str = "diffit"

    def __post_init__(self):
        for key in (
            "resolution",
            "channels",
            "width",
            "blocks",
            "window",
            "head_dim",
            "mlp_ratio",
            "time_dim",
            "groups",
        ):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} {getattr(self, key)} is not positive")
        for key, names in ALTERNATIVES.items():
            if getattr(self, key) not in names:
                raise ValueError(f"{key} is {getattr(self, key)!r}; choose one of {', '.join(names)}")
        if not self.multipliers or min(self.multipliers) <= 0:
            raise ValueError(f"multipliers {list(self.multipliers)} must be a nonempty list of positive factors")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")
        if self.augment_labels < 0:
            raise ValueError(f"augment_labels {self.augment_labels} is negative")
        shapes.check_ushaped(vars(self))

    @property
    def levels(self) -> list[Level]:
        """The levels, finest level first."""
        return [Level(self.resolution // 2**i, self.width * m) for i, m in enumerate(self.multipliers)]


class UShapedDiffiT(nn.Module):
    """The network F of a preconditioned denoiser (see :mod:`diffit.process.edm`).

    The encoder has one stage of residual cells per level, with strided convolutions between the stages. The decoder has
    one stage per level except the coarsest; before each stage, features are upsampled and joined with the encoder's.

    Args:
        config: the shape.
        checkpoint_blocks: store only the inputs of the residual cells for the backward pass and recompute the rest,
            which saves memory and gives the same numbers.
    """

    def __init__(self, config: UShapedConfig, checkpoint_blocks: bool = False):
        super().__init__()
        self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        levels = config.levels
        finest, coarser = levels[0], list(itertools.pairwise(levels))

        embedding = TIME_EMBEDDINGS[config.time_embedding]
        self.time_embedding = embedding(config.width, config.time_dim, config.augment_labels)
        self.tokenizer = nn.Conv2d(config.channels, finest.dim, 3, padding=1)
        self.encoder = nn.ModuleList(self._stage(level, config.encoder) for level in levels)
        self.downsamplers = nn.ModuleList(self._downsampler(a.dim, b.dim) for a, b in coarser)
        self.upsamplers = nn.ModuleList(self._upsampler(b.dim, a.dim) for a, b in coarser)
        self.joins = nn.ModuleList(nn.Conv2d(2 * a.dim, a.dim, 3, padding=1) for a, _ in coarser)
        self.decoder = nn.ModuleList(self._stage(level, config.decoder) for level in levels[:-1])
        self.head = nn.Sequential(
            nn.GroupNorm(config.groups, finest.dim),
            nn.SiLU(),
            nn.Conv2d(finest.dim, config.channels, 3, padding=1),
        )
        self.initialize_weights()

    def _downsampler(self, before: int, after: int) -> nn.Module:
        if self.config.resizing == "bilinear":
            return Resize(before, after, 0.5)
        return nn.Conv2d(before, after, 3, stride=2, padding=1)

    def _upsampler(self, before: int, after: int) -> nn.Module:
        if self.config.resizing == "bilinear":
            return Resize(before, after, 2)
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1))

    def _stage(self, level: Level, cells: str) -> nn.ModuleList:
        c = self.config
        if cells == "vit":
            heads = level.dim // c.head_dim
            blocks = [ViTBlock(level.dim, heads, c.mlp_ratio, c.dropout) for _ in range(c.blocks)]
            return nn.ModuleList([AddTime(level.dim, c.time_dim, level.grid), *blocks])
        return nn.ModuleList(
            DiffiTResBlock(
                level.dim,
                c.time_dim,
                grid=level.grid,
                window=c.window,
                head_dim=c.head_dim,
                mlp_ratio=c.mlp_ratio,
                groups=c.groups,
                dropout=c.dropout,
                transformer=TRANSFORMERS[c.transformer],
            )
            for _ in range(c.blocks)
        )

    def initialize_weights(self) -> None:
        """Initialize all weights. The output of the untrained network is 0."""
        initialize_image_network(self)
        nn.init.zeros_(self.head[-1].weight)

    def forward(self, x: Tensor, noise: Tensor, augment: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], noise levels [B], augmentation labels [B, A] or None -> [B, C, H, W]."""
        time = self.time_embedding(noise, augment)  # [B, T]
        x = self.tokenizer(x)  # [B, D0, H, W]
        skips = []
        for stage, downsample in zip(self.encoder, self.downsamplers, strict=False):
            x = self._run(stage, x, time)
            skips.append(x)
            x = downsample(x)  # [B, D', H/2, W/2]
        x = self._run(self.encoder[-1], x, time)
        for i in reversed(range(len(skips))):
            x = torch.cat([self.upsamplers[i](x), skips[i]], dim=1)  # [B, 2D, 2H, 2W]
            x = self._run(self.decoder[i], self.joins[i](x), time)
        return self.head(x)  # [B, C, H, W]

    def _run(self, stage: nn.ModuleList, x: Tensor, time: Tensor) -> Tensor:
        for block in stage:
            x = checkpoint(block, x, time, use_reentrant=False) if self.checkpoint_blocks else block(x, time)
        return x
