"""EDM's augmentation (Karras et al. 2022, Table 6): geometric, non-leaking because the network is told of it.

An image is mirrored, scaled, rotated, squeezed along one direction and shifted, in this order and each with its own
probability, and the network gets nine labels that say by how much, zeros for an image left alone. When it samples, its
labels are zeros. The resampling is ours: band-limited interpolation to twice the resolution, bilinear lookup there,
and the least-squares fit of what was found by an image of the original resolution.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS = ("xflip", "yflip", "scale", "rotation", "squeeze", "direction", "shift_x", "shift_y")
LABELS = 9

_SCALE_STEP = 0.2  # octaves that one standard deviation of scale or squeeze stands for
_SHIFT_STEP = 1 / 8  # of the image's side, likewise
_TURNED_SQUEEZES = 1 / 2  # of the squeezes go in a random direction, the others along the axes
_LOBES = 4  # of the Lanczos kernel


@dataclass(frozen=True)
class AugmentPipe:
    """Draws and applies the augmentation.

    ``p`` gates every transformation but the horizontal flip, each on its own. ``xflip`` says whether images may be
    mirrored, then half of them are: leave it off for digits or letters. Raises ValueError for a p outside of [0, 1].
    """

    p: float
    xflip: bool

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f"the augmentation probability {self.p} is not in [0, 1]")

    @property
    def active(self) -> bool:
        """Whether anything ever happens to an image."""
        return self.p > 0 or self.xflip

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """What happens to one image: float32 [8] in the order of ``PARAMETERS``, zero where nothing does.

        Flips are 0 or 1; scale, squeeze and shifts are standard normal; angles are in radians. The same number of
        values is taken from ``rng`` whatever ``p`` and ``xflip`` are.
        """
        xflip, yflip = rng.integers(0, 2, size=2)
        scale, squeeze, shift_x, shift_y = rng.standard_normal(4)
        rotation, direction = rng.uniform(-math.pi, math.pi, size=2)
        flips, scales, rotates, squeezes, shifts = rng.random(5) < self.p
        turned = rng.random() < _TURNED_SQUEEZES
        return np.array(
            [
                xflip * self.xflip,
                yflip * flips,
                scale * scales,
                rotation * rotates,
                squeeze * squeezes,
                direction * (squeezes and turned),
                shift_x * shifts,
                shift_y * shifts,
            ],
            dtype=np.float32,
        )

    def __call__(self, images: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W], drawn parameters [B, 8] -> augmented images [B, C, H, W], labels [B, 9].

        Images that are only flipped, or left alone, keep their exact values.
        """
        flips, rest = parameters[:, :2] > 0, parameters[:, 2:]
        out = images
        for axis, flip in zip((3, 2), flips.T, strict=True):
            out = torch.where(flip[:, None, None, None], out.flip(axis), out)
        if self.p > 0:
            moved = (rest != 0).any(dim=1)[:, None, None, None]
            with torch.autocast(images.device.type, enabled=False):  # pixels keep their full precision
                out = torch.where(moved, _warp(out, rest), out)
        return out, _labels(parameters)


def _labels(parameters: Tensor) -> Tensor:
    xflip, yflip, scale, rotation, squeeze, direction, shift_x, shift_y = parameters.T
    return torch.stack(
        [
            xflip,
            yflip,
            scale,
            rotation.cos() - 1,
            rotation.sin(),
            squeeze * direction.cos(),
            squeeze * direction.sin(),
            shift_x,
            shift_y,
        ],
        dim=1,
    )


def _warp(images: Tensor, parameters: Tensor) -> Tensor:
    """Images [B, C, H, W], parameters [B, 6] from scale on -> scaled, rotated, squeezed and shifted images."""
    h, w = images.shape[2:]
    up_h, up_w = (_upsampling(n).to(images) for n in (h, w))  # [2H, H], [2W, W]
    down_h, down_w = (_downsampling(n).to(images) for n in (h, w))  # [H, 2H], [W, 2W]
    fine = up_h @ images @ up_w.T  # [B, C, 2H, 2W]
    grid = F.affine_grid(_output_to_input(parameters, w / h), list(fine.shape), align_corners=False)
    fine = F.grid_sample(fine, grid, padding_mode="reflection", align_corners=False)
    return down_h @ fine @ down_w.T  # [B, C, H, W]


def _output_to_input(parameters: Tensor, aspect: float) -> Tensor:
    """Where in the input an output pixel is looked up: matrices [B, 2, 3] of :func:`affine_grid`'s coordinates.

    These run from -1 to 1 along each axis, x right and y down; ``aspect`` is width over height.
    """
    scale, rotation, squeeze, direction, shift_x, shift_y = parameters.T
    # The transformation A = squeeze · rotation · scale of a centered image, then a shift; its inverse is applied.
    shrink = torch.exp2(-_SCALE_STEP * scale)[:, None, None]
    along = torch.stack([torch.exp2(-_SCALE_STEP * squeeze), torch.exp2(_SCALE_STEP * squeeze)], dim=1)
    turn = _rotation(direction)
    unsqueeze = turn @ torch.diag_embed(along) @ turn.mT
    inverse = shrink * _rotation(-rotation) @ unsqueeze  # [B, 2, 2] in pixels
    axes = inverse.new_tensor([aspect, 1])
    inverse = inverse * axes / axes[:, None]  # in units of half the image
    shift = 2 * _SHIFT_STEP * torch.stack([shift_x, shift_y], dim=1)[:, :, None]  # [B, 2, 1]
    return torch.cat([inverse, -inverse @ shift], dim=2)


def _rotation(angle: Tensor) -> Tensor:
    """Rotation matrices [B, 2, 2] by angles [B] from the x axis towards the y axis."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c, -s, s, c], dim=1).unflatten(1, (2, 2))


@functools.cache
def _upsampling(n: int) -> Tensor:
    """Lanczos interpolation of n pixels, continued by reflection, to 2n half as large: float64 [2n, n]."""
    places = (np.arange(2 * n) + 0.5) / 2 - 0.5  # of the fine pixels among the coarse
    sources = np.arange(-_LOBES - 1, n + _LOBES + 1)
    offsets = places[:, None] - sources  # [2n, n + 2 lobes + 2]
    kernel = np.sinc(offsets) * np.sinc(offsets / _LOBES) * (np.abs(offsets) < _LOBES)
    kernel /= kernel.sum(axis=1, keepdims=True)
    inside = sources % (2 * n)
    inside = np.minimum(inside, 2 * n - 1 - inside)
    return torch.from_numpy(kernel @ np.eye(n)[inside])


@functools.cache
def _downsampling(n: int) -> Tensor:
    """The n pixels whose interpolation comes nearest to 2n given ones: float64 [n, 2n], undoes :func:`_upsampling`.

    Detail that n pixels cannot hold is orthogonal to all that they can, so it is dropped and not aliased.
    """
    return torch.linalg.pinv(_upsampling(n))
