"""Which sizes of an image-space network fit each other. Without torch, so that configurations are checked quickly.

Each check takes the fields of the network's configuration class, by name, and raises ValueError for the first misfit.
"""

from collections.abc import Mapping, Sequence

VIT_DEPTHS = 4  # number of depths from which the decoder of the vision transformer takes features
SMALLEST_GROUP = 4  # channels per group of group normalization in Song's networks; wider layers have 32 groups


def check_ushaped(fields: Mapping) -> None:
    """Levels, windows, heads and groups of image-space DiffiT."""
    _check_embedding(fields["width"])
    grids = _halved(fields["resolution"], fields["multipliers"])
    for grid, multiplier in zip(grids, fields["multipliers"], strict=True):
        fit_window(grid, fields["window"])
        for key in ("head_dim", "groups"):
            _check_divides(key, fields[key], "width × multiplier", fields["width"] * multiplier)


def check_vit(fields: Mapping) -> None:
    """Stages, depth, patches, heads and groups of the vision transformer with a convolutional decoder."""
    _check_embedding(fields["width"])
    multipliers = list(fields["multipliers"])
    if len(multipliers) not in (1, VIT_DEPTHS):
        raise ValueError(f"multipliers {multipliers} must have 1 entry, or {VIT_DEPTHS}, one per stage")
    if fields["depth"] % VIT_DEPTHS:
        raise ValueError(
            f"depth {fields['depth']} is not a multiple of {VIT_DEPTHS}, the number of the decoder's inputs"
        )
    if fields["resolution"] % (fields["patch_size"] * 2 ** (len(multipliers) - 1)):
        raise ValueError(f"resolution {fields['resolution']} is not a multiple of patch_size × 2^(stages - 1)")
    for multiplier in multipliers:
        _check_divides("head_dim", fields["head_dim"], "width × multiplier", fields["width"] * multiplier)
    _check_divides("groups", fields["groups"], "decoder_dim", fields["decoder_dim"])


def check_song(fields: Mapping) -> None:
    """Levels, width and the level with attention of DDPM++ and NCSN++."""
    grids = _halved(fields["resolution"], fields["multipliers"])
    if fields["width"] % (2 * SMALLEST_GROUP):
        raise ValueError(f"width {fields['width']} is not a multiple of {2 * SMALLEST_GROUP}")
    if fields["attention_resolution"] not in grids:
        raise ValueError(
            f"attention_resolution {fields['attention_resolution']} is not the resolution of a level: "
            f"{', '.join(map(str, grids))}"
        )


def fit_window(grid: int, window: int) -> int:
    """Side of the windows that tile a square grid: min(grid, window).

    Raises ValueError if a window smaller than the grid does not divide it.
    """
    window = min(window, grid)
    if grid % window:
        raise ValueError(f"window {window} does not divide the {grid}x{grid} grid of a stage")
    return window


def _halved(resolution: int, multipliers: Sequence[int]) -> list[int]:
    """The sides of the feature maps, one per level, finest level first."""
    halvings = len(multipliers) - 1
    if halvings > 20 or resolution % 2**halvings:
        raise ValueError(f"resolution {resolution} cannot be halved {halvings} times, once per level after the first")
    return [resolution // 2**level for level in range(halvings + 1)]


def _check_embedding(width: int) -> None:
    if width % 2:
        raise ValueError(f"width {width} is odd, but the positional embedding needs an even width")
    if width < 4:
        raise ValueError(f"width {width} is below 4, the smallest width of the positional embedding")


def _check_divides(key: str, divisor: int, of: str, number: int) -> None:
    if number % divisor:
        raise ValueError(f"{key} {divisor} does not divide {number} ({of})")
