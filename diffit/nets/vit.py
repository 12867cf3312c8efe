"""Table 4, A and B: a vision transformer as encoder, and as decoder SETR's multi-level aggregation (SETR-MLA).

A is the original ViT (Dosovitskiy et al. 2021), 12 layers at one resolution; B cuts the layers into stages with a
strided convolution between, each at half the resolution and as wide as its multiplier says. The decoder (Zheng et al.
2021, MLA) takes the features of four depths, adds each deeper one to those above it, and joins them at the resolution
of the finest tokens. Time is projected, scaled and added to the tokens of each stage. The paper leaves widths and patch
open; ours stand in the configuration.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffit.nets.layers import TimeEmbedding, keep_variance
from diffit.nets.variants import AddTime, ViTBlock

DEPTHS = 4  # at which the decoder looks


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a :class:`ViTSETR`. Raises ValueError for values that do not go together."""

    resolution: int  # pixels along a side
    channels: int  # of the image
    patch_size: int  # side of the patch that becomes a token of the finest stage
    width: int  # channels that a multiplier of 1 stands for
    multipliers: tuple[int, ...]  # of the width, one for each stage; one stage is the original ViT
    depth: int  # transformer blocks in all
    head_dim: int  # channels of an attention head
    mlp_ratio: float
    decoder_dim: int  # channels of the decoder
    time_dim: int  # width of the time token
    groups: int  # of the decoder's group normalization
    dropout: float
    augment_labels: int  # 9 for EDM's augmentation, 0 for none

    def __post_init__(self):
        if len(self.multipliers) not in (1, DEPTHS):
            raise ValueError(f"multipliers {list(self.multipliers)} must be one, or one for each of {DEPTHS} stages")
        if self.depth % DEPTHS:
            raise ValueError(f"depth {self.depth} is not a multiple of the {DEPTHS} depths at which the decoder looks")
        if self.resolution % (self.patch_size * 2 ** (len(self.multipliers) - 1)):
            raise ValueError(f"resolution {self.resolution} does not come to whole tokens in every stage")
        for dim in self.dims:
            if dim % self.head_dim:
                raise ValueError(f"head_dim {self.head_dim} does not divide {dim} (width x multiplier)")
        if self.decoder_dim % self.groups:
            raise ValueError(f"groups {self.groups} does not divide decoder_dim {self.decoder_dim}")
        if self.width % 2:
            raise ValueError(f"width {self.width} is odd, and the positional embedding needs pairs")

    @property
    def dims(self) -> list[int]:
        """Channels at each of the depths at which the decoder looks."""
        multipliers = self.multipliers * (DEPTHS if len(self.multipliers) == 1 else 1)
        return [self.width * multiplier for multiplier in multipliers]


class MLADecoder(nn.Module):
    """Features of four depths, shallow first, to one map at the resolution of the first."""

    def __init__(self, dims: list[int], dim: int, groups: int):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(before, dim, 1) for before in dims)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GroupNorm(groups, dim),
                nn.SiLU(),
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GroupNorm(groups, dim),
                nn.SiLU(),
            )
            for _ in dims
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps [B, C, H, W] of any resolutions -> [B, 4·dim, H0, W0]."""
        size = features[0].shape[2:]
        maps = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for i in reversed(range(len(maps) - 1)):  # the deeper flows into the shallower
            maps[i] = maps[i] + F.interpolate(maps[i + 1], maps[i].shape[2:], mode="bilinear")
        branches = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return torch.cat([F.interpolate(x, size, mode="bilinear") for x in branches], dim=1)


class ViTSETR(nn.Module):
    """The denoising network alone; noise levels are scaled and images preconditioned outside of it.

    ``checkpoint_blocks`` keeps only the inputs of the blocks for the backward pass and computes the rest again.
    """

    def __init__(self, config: ViTConfig, checkpoint_blocks: bool = False):
        super().__init__()
        c = self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        self.time_embedding = TimeEmbedding(c.width, c.time_dim, c.augment_labels)
        self.tokenizer = nn.Conv2d(c.channels, c.dims[0], c.patch_size, stride=c.patch_size)
        staged = len(c.multipliers) > 1
        grids = [c.resolution // c.patch_size // 2 ** (i if staged else 0) for i in range(DEPTHS)]
        self.stages, self.downsamplers = nn.ModuleList(), nn.ModuleList()
        for number, (dim, grid) in enumerate(zip(c.dims, grids, strict=True)):
            blocks = [ViTBlock(dim, dim // c.head_dim, c.mlp_ratio, c.dropout) for _ in range(c.depth // DEPTHS)]
            # The original ViT is one stage, whose depths only the decoder tells apart.
            added = [AddTime(dim, c.time_dim, grid)] if staged or not number else []
            self.stages.append(nn.ModuleList(added + blocks))
        for before, after in itertools.pairwise(c.dims):
            self.downsamplers.append(nn.Conv2d(before, after, 3, stride=2, padding=1) if staged else nn.Identity())
        self.decoder = MLADecoder(c.dims, c.decoder_dim, c.groups)
        self.head = nn.Conv2d(DEPTHS * c.decoder_dim, c.channels, 3, padding=1)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Every weight in one place, as in the U-shaped network; in the beginning the network gives zeros."""
        keep_variance(self)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, noise: Tensor, augment: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], noise levels [B], augmentation labels [B, A] or None -> [B, C, H, W]."""
        time = self.time_embedding(noise, augment)  # [B, T]
        size = x.shape[2:]
        x, features = self.tokenizer(x), []
        for stage, downsample in itertools.zip_longest(self.stages, self.downsamplers):
            for block in stage:
                x = checkpoint(block, x, time, use_reentrant=False) if self.checkpoint_blocks else block(x, time)
            features.append(x)
            x = downsample(x) if downsample else x
        return self.head(F.interpolate(self.decoder(features), size, mode="bilinear"))  # [B, C, H, W]
