"""The images, or blocks of seeds, of shard k of n."""

from diffit.cli import UserError


def shard_range(k: int, n: int, count: int) -> range:
    """The numbers of the images of shard ``k`` of ``n``; the sizes of shards differ by at most one.

    Raises :class:`UserError` for more shards than images.
    """
    if n > count:
        raise UserError(f"shards: {n} are more than the {count} images of the data set; lower shards")
    return range(k * count // n, (k + 1) * count // n)


def shard_of_blocks(first_seed: int, images: int, block: int, shard: int, shards: int) -> range:
    """The blocks of shard ``shard`` of ``shards``. Block b has the seeds b·``block`` … (b + 1)·``block`` − 1."""
    first, stop = first_seed // block, -(-(first_seed + images) // block)
    count = stop - first
    return range(first + count * shard // shards, first + count * (shard + 1) // shards)
