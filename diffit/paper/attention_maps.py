"""Draw the attention of the centre token of each feature map along a sampling trajectory (Figure 2).

    python -m diffit.paper.attention_maps OUT.png SAMPLER_JSON MILESTONE…

Each milestone gets one block of rows: the denoised image at some steps of the sampler and, below it, the attention
weights of the centre token within its window, for the last block of each encoder level, averaged over heads.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from diffit import process
from diffit.cli import Parser, UserError, non_negative_int, run_command
from diffit.config.schema import sampler_schema
from diffit.nets.layers import TMSA, DiffiTResBlock
from diffit.numerics import rng
from diffit.numerics.pixels import to_uint8
from diffit.process import samplers
from diffit.registry.arguments import described
from diffit.store import files
from diffit.weights import milestone

SHOWN = 6  # number of steps, evenly spaced over the trajectory


@dataclass(frozen=True)
class Moment:
    """One evaluation of the network."""

    sigma: float
    image: np.ndarray  # uint8 [H, W, 3], the denoised image
    maps: list[np.ndarray]  # attention per level: [grid, grid], NaN outside the centre token's window


def centre(grid: int, window: int) -> tuple[int, int]:
    """The index of the window that holds the centre token, and the token's index in it, both in raster order."""
    middle = grid // 2
    return middle // window * (grid // window) + middle // window, middle % window * window + middle % window


class AttentionRecorder:
    """A denoiser that records the attention of the centre token in each encoder level.

    Args:
        denoiser: maps noisy images and sigma to denoised images.
        net: the network that it evaluates.

    Raises :class:`UserError` for a network without DiffiT blocks in its encoder.
    """

    def __init__(self, denoiser: nn.Module, net: nn.Module):
        stages = getattr(net, "encoder", [])
        self.blocks = [stage[-1] for stage in stages if isinstance(stage[-1], DiffiTResBlock)]
        if not self.blocks:
            raise UserError("the network has no DiffiT blocks in its encoder; name a run of image-space DiffiT")
        self.denoiser, self.moments, self._maps = denoiser, [], []
        for block in self.blocks:
            block.transformer.attn.register_forward_pre_hook(self._hook(block))

    def _hook(self, block: DiffiTResBlock):
        def record(attention: TMSA, arguments: tuple[Tensor, Tensor]) -> None:
            window, token = centre(block.grid, block.window)
            seen = attention.weights(*arguments)[window, :, token].mean(dim=0)  # windows of the first image
            side, column = block.window, block.grid // block.window
            seen = seen[: side * side]  # without the weight of a time token, which has no place in the map
            canvas = np.full((block.grid, block.grid), np.nan)
            top, left = window // column * side, window % column * side
            canvas[top : top + side, left : left + side] = seen.reshape(side, side).cpu().numpy()
            self._maps.append(canvas)

        return record

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self._maps = []
        denoised = self.denoiser(x, sigma)
        self.moments.append(Moment(float(sigma[0]), to_uint8(denoised)[0], self._maps))
        return denoised


def trajectory(folder: Path, sampler: dict, seed: int) -> list[Moment]:
    """The denoised images and attention maps of a milestone's network while it samples the image of one seed.

    One entry per step: of the two evaluations in a step of Heun's method, the first one.
    """
    net, record = milestone.load(folder)
    net.eval()
    task = process.build(record["process"])
    recorder = AttentionRecorder(task.denoiser(net), net)
    generator = rng.sampling(seed)
    shape = (1, record["net"]["channels"], record["net"]["resolution"], record["net"]["resolution"])

    def noise() -> Tensor:
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))

    with torch.no_grad():
        samplers.build(task, sampler)(recorder, noise(), noise)
    return recorder.moments[::2]


def draw(trajectories: dict[str, list[Moment]], out: Path) -> None:
    """Write the figure: per network one row of images, then one row of maps per encoder level."""
    heights = [1 + len(moments[0].maps) for moments in trajectories.values()]
    figure, axes = plt.subplots(sum(heights), SHOWN, figsize=(1.5 * SHOWN, 1.5 * sum(heights)), layout="constrained")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    first = 0
    for (name, moments), height in zip(trajectories.items(), heights, strict=True):
        for column, number in enumerate(np.linspace(0, len(moments) - 1, SHOWN).round().astype(int)):
            moment = moments[number]
            axes[first, column].imshow(moment.image)
            axes[first, column].set_title(f"σ = {moment.sigma:.3g}", fontsize="small")
            for level, seen in enumerate(moment.maps):
                axes[first + 1 + level, column].imshow(seen, cmap="viridis")
                axes[first + 1 + level, column].set_facecolor("lightgrey")
        axes[first, 0].set_ylabel(name, fontsize="small")
        for level, seen in enumerate(moments[0].maps):
            axes[first + 1 + level, 0].set_ylabel(f"{len(seen)}×{len(seen)}", fontsize="small")
        first += height
    with files.atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument(
        "sampler",
        type=described("the sampler", sampler_schema),
        help="the sampler as a JSON object: kind, steps, images, …",
    )
    parser.add_argument("milestones", type=Path, nargs="+", help="folders of milestones, results/runs/{run}/{kimg}")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="random seed of the image (default: %(default)s)"
    )
    arguments = parser.parse_args()
    folders = arguments.milestones
    draw({one.parent.name: trajectory(one, arguments.sampler, arguments.seed) for one in folders}, arguments.out)


if __name__ == "__main__":
    run_command(main)
