"""Which images or blocks of seeds make up shard k of n."""

from diffit.cli import UserError


def shard_range(k: int, n: int, count: int) -> range:
    """The pictures of shard ``k`` of ``n``: contiguous ranges whose sizes differ by at most one."""
    if n > count:
        raise UserError(f"shards: {n} are more than the {count} images there are; lower shards")
    return range(k * count // n, (k + 1) * count // n)


def shard_of_blocks(first_seed: int, images: int, block: int, shard: int, shards: int) -> range:
    """The blocks (numbers of ``block`` consecutive seeds, counted from seed 0) that make up one shard."""
    first, stop = first_seed // block, -(-(first_seed + images) // block)
    count = stop - first
    return range(first + count * shard // shards, first + count * (shard + 1) // shards)
