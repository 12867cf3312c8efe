"""EDM's geometric augmentation (Karras et al. 2022, Table 6), which does not leak into the samples.

An image is mirrored, scaled, rotated, squeezed along one direction and shifted, in this order. Each transformation is
applied independently with its own probability. The network sees the parameters as nine labels, which are 0 for an
unchanged image. In sampling, all labels are 0.

For the same parameters the result is EDM's. Images are extended by reflection, by at most their size minus 1, without
repeating the outermost pixels, and are 0 beyond. They are resampled to twice the resolution with the low-pass filter of
the wavelet sym6, looked up bilinearly, and reduced with the same filter.
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
_LAG = 1 / 2  # of the center of a fine image behind that of its image, because pixel i becomes the fine pixel 2i
# Low-pass filter of the wavelet sym6 (Daubechies 1992, Ten Lectures on Wavelets); its sum is sqrt(2).
_LOW_PASS = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
_MARGIN = len(_LOW_PASS) // 2 - 1  # fine pixels that the filter reads before and after the image


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
        # Only images that are moved are resampled, which takes most of the time. On a GPU, the selection waits for it.
        moved = (rest != 0).any(dim=1).nonzero()[:, 0] if self.p > 0 else ()
        if len(moved):
            with torch.autocast(images.device.type, enabled=False):  # keep the full precision of pixels
                out = out.index_copy(0, moved, _warp(out[moved], rest[moved]))
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
    up_h, up_w = (_upsampling(n).to(images) for n in (h, w))  # [6H - 4, H], [6W - 4, W]
    down_h, down_w = (_downsampling(n).to(images) for n in (h, w))  # [H, 2H + 10], [W, 2W + 10]
    fine = up_h @ images @ up_w.T  # [B, C, 6H - 4, 6W - 4]
    out_h, out_w = down_h.shape[1], down_w.shape[1]
    matrices = _output_to_input(parameters, (w, h), (fine.shape[3], fine.shape[2]), (out_w, out_h))
    grid = F.affine_grid(matrices, [*fine.shape[:2], out_h, out_w], align_corners=False)
    fine = F.grid_sample(fine, grid, padding_mode="zeros", align_corners=False)  # [B, C, 2H + 10, 2W + 10]
    return down_h @ fine @ down_w.T  # [B, C, H, W]


def _output_to_input(
    parameters: Tensor, image: tuple[int, int], before: tuple[int, int], after: tuple[int, int]
) -> Tensor:
    """Matrices [B, 2, 3] that map a fine pixel after the transformation to its place among the fine pixels before.

    Coordinates are those of :func:`affine_grid`: from -1 to 1, x to the right and y down.

    Args:
        parameters: the last six parameters [B, 6].
        image: width and height of the image in its own pixels.
        before: width and height of the fine image before the transformation.
        after: width and height of the fine image after it.
    """
    scale, rotation, squeeze, direction, shift_x, shift_y = parameters.T
    # The transformation is A = squeeze · rotation · scale around the center, then a shift; this is its inverse.
    shrink = torch.exp2(-_SCALE_STEP * scale)[:, None, None]
    along = torch.stack([torch.exp2(-_SCALE_STEP * squeeze), torch.exp2(_SCALE_STEP * squeeze)], dim=1)
    turn = _rotation(direction)
    unsqueeze = turn @ torch.diag_embed(along) @ turn.mT
    inverse = shrink * _rotation(-rotation) @ unsqueeze  # [B, 2, 2] in pixel units
    sides, before, after = (inverse.new_tensor(size) for size in (image, before, after))  # each [2]
    shift = 2 * _SHIFT_STEP * sides * torch.stack([shift_x, shift_y], dim=1)  # [B, 2] in fine pixels
    offset = inverse @ (_LAG - shift)[:, :, None] - _LAG  # [B, 2, 1]
    return torch.cat([inverse * after, 2 * offset], dim=2) / before[:, None]


def _rotation(angle: Tensor) -> Tensor:
    """Rotation matrices [B, 2, 2] by angles [B] from the x axis towards the y axis."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c, -s, s, c], dim=1).unflatten(1, (2, 2))


@functools.cache
def _upsampling(n: int) -> Tensor:
    """Matrix that extends n pixels by n - 1 reflected ones at both ends and doubles the resolution: [6n - 4, n].

    Float64. The reflection does not repeat the outermost pixels, and pixels beyond it are 0.
    """
    reflected = np.abs(np.arange(1 - n, 2 * n - 1))
    reflected = np.minimum(reflected, 2 * (n - 1) - reflected)  # source of each of the 3n - 2 pixels
    return _downsampling(len(reflected)).T[_MARGIN:-_MARGIN] @ torch.eye(n, dtype=torch.float64)[reflected]


@functools.cache
def _downsampling(n: int) -> Tensor:
    """Matrix that filters 2n fine pixels and a margin of 5 at both ends to n pixels: float64 [n, 2n + 10]."""
    matrix = torch.zeros(n, 2 * (n + _MARGIN), dtype=torch.float64)
    for i in range(n):
        matrix[i, 2 * i : 2 * i + len(_LOW_PASS)] = torch.tensor(_LOW_PASS, dtype=torch.float64)
    return matrix
