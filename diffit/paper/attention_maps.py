"""attention: where the token at the centre of a feature map looks while an image is made (Fig. 2), by network.

    python -m diffit.paper.attention_maps SAMPLER_JSON OUT.png MILESTONE…

One block of rows a milestone's folder: the denoised image at some steps of the sampler, and below it the attention of
the centre token at each level of the encoder (its last block, mean over heads), in its window.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from diffit import process
from diffit.cli import Parser, UserError, json_argument, natural, run
from diffit.nets.layers import TMSA, DiffiTResBlock
from diffit.numerics import rng
from diffit.numerics.pixels import to_uint8
from diffit.process import samplers
from diffit.store import files
from diffit.weights import milestone

SHOWN = 6  # steps of the trajectory


@dataclass(frozen=True)
class Moment:
    """One step of a trajectory."""

    sigma: float
    image: np.ndarray  # uint8 [H, W, 3], what the network takes for the image
    maps: list[np.ndarray]  # for each level [grid, grid], NaN outside of the centre token's window


def centre(grid: int, window: int) -> tuple[int, int]:
    """The window with the token at the centre of a grid, and its place within the window, both in raster order."""
    middle = grid // 2
    return middle // window * (grid // window) + middle // window, middle % window * window + middle % window


class Watch:
    """A denoiser that notes where its blocks' centre tokens look.

    Raises :class:`UserError` for a network without DiffiT's blocks in its encoder.
    """

    def __init__(self, denoiser: nn.Module, net: nn.Module):
        stages = getattr(net, "encoder", [])
        self.blocks = [stage[-1] for stage in stages if isinstance(stage[-1], DiffiTResBlock)]
        if not self.blocks:
            raise UserError("the network has no DiffiT blocks in its encoder, whose attention could be shown")
        self.denoiser, self.moments, self._maps = denoiser, [], []
        for block in self.blocks:
            block.transformer.attn.register_forward_pre_hook(self._noting(block))

    def _noting(self, block: DiffiTResBlock):
        def note(attention: TMSA, arguments: tuple[Tensor, Tensor]) -> None:
            window, token = centre(block.grid, block.window)
            seen = attention.weights(*arguments)[window, :, token].mean(dim=0)  # of the first image's windows
            side, column = block.window, block.grid // block.window
            canvas = np.full((block.grid, block.grid), np.nan)
            top, left = window // column * side, window % column * side
            canvas[top : top + side, left : left + side] = seen.reshape(side, side).cpu().numpy()
            self._maps.append(canvas)

        return note

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self._maps = []
        denoised = self.denoiser(x, sigma)
        self.moments.append(Moment(float(sigma[0]), to_uint8(denoised)[0], self._maps))
        return denoised


def trajectory(folder: Path, sampler: dict, seed: int) -> list[Moment]:
    """What a milestone's network sees and where it looks, at each step of making the image of this seed."""
    net, record = milestone.load(folder)
    net.eval()
    task = process.build(record["process"])
    watch = Watch(task.denoiser(net), net)
    generator = rng.sampling(seed)
    shape = (1, record["net"]["channels"], record["net"]["resolution"], record["net"]["resolution"])

    def noise() -> Tensor:
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))

    with torch.no_grad():
        samplers.build(task, sampler)(watch, noise(), noise)
    return watch.moments[::2]  # Heun's method looks twice a step, the second time where it then is


def draw(trajectories: dict[str, list[Moment]], out: Path) -> None:
    """One block of rows a network: images, then the maps of each level."""
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
    parser.add_argument("sampler", type=json_argument, help="the sampler's description as a JSON object")
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("milestones", type=Path, nargs="+", help="folders of milestones, results/runs/{run}/{kimg}")
    parser.add_argument("--seed", type=natural, default=0, help="of the image")
    arguments = parser.parse_args()
    folders = arguments.milestones
    draw({one.parent.name: trajectory(one, arguments.sampler, arguments.seed) for one in folders}, arguments.out)


if __name__ == "__main__":
    run(main)
