"""Latent DiffiT, the class-conditional network of Section 3.3. Parameter names are those of the released weights."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffit.cli import UserError
from diffit.nets.layers import TMSA, DiffiTTransformer, TimeEmbedding

POSITIONAL_DIM = 256  # channels of the timestep's positional embedding, as in the released network


@dataclass(frozen=True)
class LatentConfig:
    """Shape of a :class:`LatentDiffiT`. Raises ValueError for invalid or inconsistent values."""

    input_size: int  # height and width of the latents
    channels: int  # of the latents; the output has twice as many
    patch_size: int  # side of a patch; each patch becomes one token
    hidden_size: int  # channels of spatial tokens and of the time token
    depth: int  # transformer blocks
    num_heads: int
    mlp_ratio: float  # hidden width of the MLPs divided by hidden_size
    num_classes: int  # 0 for an unconditional network

    def __post_init__(self):
        for key in ("input_size", "channels", "patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} {getattr(self, key)} is not positive")
        if self.num_classes < 0:
            raise ValueError(f"num_classes {self.num_classes} is negative")
        if self.input_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide input_size {self.input_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide hidden_size {self.hidden_size}")
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 4, as the position table requires")

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return self.input_size // self.patch_size


class PatchEmbedding(nn.Module):
    """Latents to tokens: one linear map per patch, implemented as a convolution: [B, C, H, W] -> [B, N, D]."""

    def __init__(self, channels: int, dim: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(x), "b d h w -> b (h w) d")  # [B, N, D]


class LabelEmbedding(nn.Module):
    """A learned vector per class; the additional last vector means "no label": labels [B] -> [B, D]."""

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)  # [B, D]


class FinalLayer(nn.Module):
    """Tokens to output patches: layer norm without parameters, swish, linear layer."""

    def __init__(self, dim: int, channels: int, patch: int):
        super().__init__()
        self.patch = patch
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(dim, channels * patch**2)

    def forward(self, tokens: Tensor, grid: int) -> Tensor:
        return self.unpatchify(self.linear(nn.functional.silu(self.norm(tokens))), grid)

    def unpatchify(self, x: Tensor, grid: int) -> Tensor:
        """Tokens [B, N, p·p·C] of a square grid -> [B, C, H, W]."""
        return rearrange(x, "b (h w) (p q c) -> b c (h p) (w q)", h=grid, p=self.patch, q=self.patch)


def position_table(grid: int, dim: int) -> Tensor:
    """Fixed position embedding of a square grid of tokens: float32 [1, grid², dim].

    The first half of the channels encodes the column, the second half the row. Each half contains sin(w_k p), then
    cos(w_k p), at position p and frequencies w_k = 10000^(-k / (dim/4)), k = 0, ..., dim/4 - 1.
    """
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # [grid, dim/4]
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, dim/2]
    columns, rows = line.repeat(grid, 1), line.repeat_interleave(grid, dim=0)  # each [grid², dim/2]
    return torch.cat([columns, rows], dim=1).float()[None]


class LatentDiffiT(nn.Module):
    """Predicts the noise of a noisy latent and, per value, the fraction that interpolates the reverse step's variance.

    Attention covers the whole grid. The time token is the sum of the embeddings of timestep and label. Label
    ``num_classes`` means "no label"; the caller decides which labels to replace by it.

    Args:
        config: the shape.
        checkpoint_blocks: store only the inputs of the blocks for the backward pass and recompute the rest, which saves
            memory and gives the same numbers.
    """

    def __init__(self, config: LatentConfig, checkpoint_blocks: bool = False):
        super().__init__()
        c = self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        self.x_embedder = PatchEmbedding(c.channels, c.hidden_size, c.patch_size)
        self.t_embedder = TimeEmbedding(POSITIONAL_DIM, c.hidden_size)
        self.y_embedder = LabelEmbedding(c.num_classes, c.hidden_size)
        self.register_buffer("pos_embed", position_table(c.grid, c.hidden_size))
        self.blocks = self.build_blocks()
        self.final_layer = self.build_final_layer()
        self.initialize_weights()

    def build_blocks(self) -> nn.ModuleList:
        """The transformer blocks; each takes tokens and time token."""
        c = self.config
        return nn.ModuleList(
            DiffiTTransformer(c.hidden_size, c.hidden_size, c.num_heads, (c.grid, c.grid), c.mlp_ratio)
            for _ in range(c.depth)
        )

    def build_final_layer(self) -> nn.Module:
        """The layer that maps tokens to output patches."""
        c = self.config
        return FinalLayer(c.hidden_size, 2 * c.channels, c.patch_size)

    def initialize_weights(self) -> None:
        """Initialize all weights as DiT does. The output of the untrained network is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))  # the patch embedding is a linear map
                nn.init.zeros_(module.bias)
            if isinstance(module, TMSA):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[0].weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[2].weight, std=0.02)
        nn.init.zeros_(self.final_layer.linear.weight)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Noisy latents [B, C, H, W], timesteps [B], labels [B] -> noise and variance fractions [B, 2C, H, W]."""
        time = self.t_embedder(t) + self.y_embedder(labels)  # [B, D]
        x = self.x_embedder(x) + self.pos_embed  # [B, N, D]
        for block in self.blocks:
            x = checkpoint(block, x, time, use_reentrant=False) if self.checkpoint_blocks else block(x, time)
        return self.decode_tokens(x, time)  # [B, 2C, H, W]

    def decode_tokens(self, x: Tensor, time: Tensor) -> Tensor:
        """Last tokens [B, N, D], time token [B, D] -> output [B, 2C, H, W]."""
        return self.final_layer(x, self.config.grid)


def load_released(net: LatentDiffiT, state: dict[str, Tensor]) -> None:
    """Load released weights into ``net``.

    The released files also contain each block's index of the position bias; it is ignored, because it follows from the
    grid. Raises :class:`UserError` with the differences and loads nothing if another name, shape or dtype differs.
    """
    own = net.state_dict()
    given = {name: value for name, value in state.items() if not name.endswith(".relative_position_index")}
    unequal = (name for name in own if name in given and _dtype_and_shape(given[name]) != _dtype_and_shape(own[name]))
    differences = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "different": [
            f"{name} is {_dtype_and_shape(given[name])} and should be {_dtype_and_shape(own[name])}" for name in unequal
        ],
    }
    if any(differences.values()):
        listed = "; ".join(f"{kind}: {_shortened(names)}" for kind, names in differences.items() if names)
        raise UserError(
            f"the weights do not fit the network ({listed}); use weights for its resolution and number of classes"
        )
    net.load_state_dict(given, assign=True)  # assign: works for networks on the meta device as well


def _dtype_and_shape(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _shortened(names: list[str], shown: int = 3) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
