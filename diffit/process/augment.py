"""EDM's geometric augmentation (Karras et al. 2022, Table 6), which does not leak into the samples.

An image is mirrored, scaled, rotated, squeezed along one direction and shifted, in this order. Each transformation is
applied independently with its own probability. The network sees the parameters as nine labels, which are 0 for an
unchanged image. In sampling, all labels are 0. Resampling is our own: band-limited interpolation to twice the
resolution, bilinear lookup, and a least-squares fit by an image of the original resolution.
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

_SCALE_STEP = 0.2  # standard deviation of scale and squeeze in octaves
_SHIFT_STEP = 1 / 8  # standard deviation of shifts as a fraction of the image's side
_TURNED_SQUEEZES = 1 / 2  # fraction of squeezes in a random direction; the others are along the axes
_LOBES = 4  # of the Lanczos kernel


@dataclass(frozen=True)
class AugmentPipe:
    """Draws and applies the augmentation.

    Args:
        p: probability of each transformation except the horizontal flip.
        xflip: whether half of the images are mirrored; not suitable for digits or letters.

    Raises ValueError for a p outside [0, 1].
    """

    p: float
    xflip: bool

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f"the augmentation probability {self.p} is not in [0, 1]")

    @property
    def active(self) -> bool:
        """Whether the augmentation ever changes an image."""
        return self.p > 0 or self.xflip

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the parameters of one image: float32 [8] in the order of ``PARAMETERS``, 0 for no transformation.

        Flips are 0 or 1; scale, squeeze and shifts are standard normal; angles are in radians. The number of values
        drawn from ``rng`` does not depend on ``p`` and ``xflip``.
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
        """Images [B, C, H, W], parameters [B, 8] -> augmented images [B, C, H, W], labels [B, 9].

        Pixels of images that are unchanged or only flipped keep their exact values.
        """
        flips, rest = parameters[:, :2] > 0, parameters[:, 2:]
        out = images
        for axis, flip in zip((3, 2), flips.T, strict=True):
            out = torch.where(flip[:, None, None, None], out.flip(axis), out)
        if self.p > 0:
            moved = (rest != 0).any(dim=1)[:, None, None, None]
            with torch.autocast(images.device.type, enabled=False):  # keep the full precision of pixels
                out = torch.where(moved, _warp(out, rest), out)
        return out, _labels(parameters)


def _labels(parameters: Tensor) -> Tensor:
    """Parameters [B, 8] -> labels [B, 9]: angles enter as cos and sin, so equal transformations have equal labels."""
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
    """Images [B, C, H, W], the last six parameters [B, 6] -> scaled, rotated, squeezed and shifted images."""
    h, w = images.shape[2:]
    up_h, up_w = (_upsampling(n).to(images) for n in (h, w))  # [2H, H], [2W, W]
    down_h, down_w = (_downsampling(n).to(images) for n in (h, w))  # [H, 2H], [W, 2W]
    fine = up_h @ images @ up_w.T  # [B, C, 2H, 2W]
    grid = F.affine_grid(_output_to_input(parameters, w / h), list(fine.shape), align_corners=False)
    fine = F.grid_sample(fine, grid, padding_mode="reflection", align_corners=False)
    return down_h @ fine @ down_w.T  # [B, C, H, W]


def _output_to_input(parameters: Tensor, aspect: float) -> Tensor:
    """Matrices [B, 2, 3] that map the coordinates of an output pixel to the coordinates of its input pixel.

    Coordinates are those of :func:`affine_grid`: from -1 to 1, x to the right and y down. ``aspect`` is width / height.
    """
    scale, rotation, squeeze, direction, shift_x, shift_y = parameters.T
    # The transformation is A = squeeze · rotation · scale around the center, then a shift; this is its inverse.
    shrink = torch.exp2(-_SCALE_STEP * scale)[:, None, None]
    along = torch.stack([torch.exp2(-_SCALE_STEP * squeeze), torch.exp2(_SCALE_STEP * squeeze)], dim=1)
    turn = _rotation(direction)
    unsqueeze = turn @ torch.diag_embed(along) @ turn.mT
    inverse = shrink * _rotation(-rotation) @ unsqueeze  # [B, 2, 2] in pixel units
    axes = inverse.new_tensor([aspect, 1])
    inverse = inverse * axes / axes[:, None]  # in units of half the image size
    shift = 2 * _SHIFT_STEP * torch.stack([shift_x, shift_y], dim=1)[:, :, None]  # [B, 2, 1]
    return torch.cat([inverse, -inverse @ shift], dim=2)


def _rotation(angle: Tensor) -> Tensor:
    """Rotation matrices [B, 2, 2] by angles [B] from the x axis towards the y axis."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c, -s, s, c], dim=1).unflatten(1, (2, 2))


@functools.cache
def _upsampling(n: int) -> Tensor:
    """Matrix of Lanczos interpolation from n to 2n pixels with reflection at the borders: float64 [2n, n]."""
    places = (np.arange(2 * n) + 0.5) / 2 - 0.5  # positions of the fine pixels in units of coarse pixels
    sources = np.arange(-_LOBES - 1, n + _LOBES + 1)
    offsets = places[:, None] - sources  # [2n, n + 2 lobes + 2]
    kernel = np.sinc(offsets) * np.sinc(offsets / _LOBES) * (np.abs(offsets) < _LOBES)
    kernel /= kernel.sum(axis=1, keepdims=True)
    inside = sources % (2 * n)
    inside = np.minimum(inside, 2 * n - 1 - inside)
    return torch.from_numpy(kernel @ np.eye(n)[inside])


@functools.cache
def _downsampling(n: int) -> Tensor:
    """Matrix of the least-squares fit of 2n pixels by interpolated n pixels: float64 [n, 2n].

    It is the pseudoinverse of :func:`_upsampling`. Detail that n pixels cannot represent is orthogonal to their range,
    so it is removed without aliasing.
    """
    return torch.linalg.pinv(_upsampling(n))
