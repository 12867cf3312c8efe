"""Table 4, A and B: a vision transformer as encoder and SETR's multi-level aggregation (SETR-MLA) as decoder.

A is the original ViT (Dosovitskiy et al. 2021) with 12 layers at one resolution. B divides the layers into stages; a
strided convolution between two stages halves the resolution and changes the width. The decoder (Zheng et al. 2021)
takes features from four depths, adds the deeper features to the shallower ones, and concatenates all at the resolution
of the finest tokens. Time is projected, scaled and added to the tokens of each stage. The paper does not specify widths
and patch size; the configuration contains our choice.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffit.nets import shapes
from diffit.nets.layers import TimeEmbedding, initialize_image_network
from diffit.nets.shapes import VIT_DEPTHS
from diffit.nets.variants import AddTime, ViTBlock


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a :class:`ViTSETR`. Raises ValueError for invalid or inconsistent values."""

    resolution: int  # height and width of the images in pixels
    channels: int  # of the image
    patch_size: int  # side of a patch; each patch becomes one token of the first stage
    width: int  # channels at multiplier 1
    multipliers: tuple[int, ...]  # channels divided by width, one per stage; the original ViT has one stage
    depth: int  # total number of transformer blocks
    head_dim: int  # channels per attention head
    mlp_ratio: float
    decoder_dim: int  # channels of the decoder
    time_dim: int  # channels of the time token
    groups: int  # of group normalization in the decoder
    dropout: float
    augment_labels: int  # 9 with EDM's augmentation, 0 without

    def __post_init__(self):
        shapes.check_vit(vars(self))

    @property
    def dims(self) -> list[int]:
        """Channels of the features at each depth from which the decoder takes them."""
        multipliers = self.multipliers * (VIT_DEPTHS if len(self.multipliers) == 1 else 1)
        return [self.width * multiplier for multiplier in multipliers]


class MLADecoder(nn.Module):
    """Aggregates features from four depths, shallowest first, at the resolution of the first."""

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
        """Feature maps [B, C, H, W] of any resolutions -> [B, 4·dim, H0, W0]."""
        size = features[0].shape[2:]
        maps = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for i in reversed(range(len(maps) - 1)):  # add the deeper features to the shallower ones
            maps[i] = maps[i] + F.interpolate(maps[i + 1], maps[i].shape[2:], mode="bilinear")
        branches = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return torch.cat([F.interpolate(x, size, mode="bilinear") for x in branches], dim=1)


class ViTSETR(nn.Module):
    """The network F of a preconditioned denoiser (see :mod:`diffit.process.edm`).

    Args:
        config: the shape.
        checkpoint_blocks: store only the inputs of the blocks for the backward pass and recompute the rest.
    """

    def __init__(self, config: ViTConfig, checkpoint_blocks: bool = False):
        super().__init__()
        c = self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        self.time_embedding = TimeEmbedding(c.width, c.time_dim, c.augment_labels)
        self.tokenizer = nn.Conv2d(c.channels, c.dims[0], c.patch_size, stride=c.patch_size)
        staged = len(c.multipliers) > 1
        grids = [c.resolution // c.patch_size // 2 ** (i if staged else 0) for i in range(VIT_DEPTHS)]
        self.stages, self.downsamplers = nn.ModuleList(), nn.ModuleList()
        for number, (dim, grid) in enumerate(zip(c.dims, grids, strict=True)):
            blocks = [ViTBlock(dim, dim // c.head_dim, c.mlp_ratio, c.dropout) for _ in range(c.depth // VIT_DEPTHS)]
            # The original ViT is one stage; only the decoder distinguishes its depths.
            added = [AddTime(dim, c.time_dim, grid)] if staged or not number else []
            self.stages.append(nn.ModuleList(added + blocks))
        for before, after in itertools.pairwise(c.dims):
            self.downsamplers.append(nn.Conv2d(before, after, 3, stride=2, padding=1) if staged else nn.Identity())
        self.decoder = MLADecoder(c.dims, c.decoder_dim, c.groups)
        self.head = nn.Conv2d(VIT_DEPTHS * c.decoder_dim, c.channels, 3, padding=1)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Initialize all weights as in the U-shaped network. The output of the untrained network is 0."""
        initialize_image_network(self)
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
