"""A block of the latent network at 1,024 tokens (512×512), and its attention's memory, against explicit attention.

    python -m bench.block

The block's forward pass without gradients on one image with guidance, a batch of two. The other way gathers the
position bias in each pass and holds all attention weights; ours has built the bias once, as in sampling.

Memory is what attention alone takes at its peak, queries, keys and values given: of the process (VmHWM, each way in one
of its own) or of the GPU. To ours counts the bias that it keeps, not what building it takes once (twice the bias).
"""

import multiprocessing
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.network import DEVICE, HEADS, WIDTH, attention, gathered, reference
from bench.timing import compare, note
from diffit.nets.layers import TMSA, DiffiTTransformer, cached_position_bias

BATCH, GRID = 2, 32
TOKENS = GRID**2
CALLS = 10 if DEVICE.type == "cuda" else 1
SHARE = 3  # the peak of ours is to be at most this part of the other's


@torch.no_grad()
def forward() -> None:
    """Time the block."""
    torch.manual_seed(0)
    block = DiffiTTransformer(WIDTH, WIDTH, HEADS, (GRID, GRID), 4).to(DEVICE)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    other = reference(block)
    x, time = torch.randn(BATCH, TOKENS, WIDTH, device=DEVICE), torch.randn(BATCH, WIDTH, device=DEVICE)
    with cached_position_bias(block):
        compare(
            f"block, {TOKENS} tokens, batch of {BATCH}",
            lambda: [block(x, time) for _ in range(CALLS)],
            lambda: [other(x, time) for _ in range(CALLS)],
            11,
            1.3,
        )
        note(f"largest difference {(block(x, time) - other(x, time)).abs().max():.1e}")


@torch.no_grad()
def peak(ours: bool) -> float:
    """MiB that attention takes at its peak; to be called in a process of its own."""
    torch.set_num_threads(1)
    attn = TMSA(WIDTH, WIDTH, HEADS, (GRID, GRID)).to(DEVICE)
    q, k, v = torch.randn(3, BATCH, HEADS, TOKENS, WIDTH // HEADS, device=DEVICE)
    few = q[:, :, :64].clone()
    attention(few, few, few, torch.zeros(HEADS, 64, 64, device=DEVICE))  # what the libraries allocate once
    before = _memory("VmRSS")
    if ours:
        with cached_position_bias(attn):
            _forget_peak()
            F.scaled_dot_product_attention(q, k, v, attn_mask=attn.position_bias()[None])
            return _memory("VmHWM") - before
    _forget_peak()
    attention(q, k, v, gathered(attn))
    return _memory("VmHWM") - before


def _memory(kind: str) -> float:
    """MiB in use now (VmRSS) or at most since the last :func:`_forget_peak` (VmHWM)."""
    if DEVICE.type == "cuda":
        used = torch.cuda.max_memory_allocated() if kind == "VmHWM" else torch.cuda.memory_allocated()
        return used / 2**20
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) / 2**10


def _forget_peak() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)


def memory() -> None:
    """Print the peaks."""
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1, maxtasksperchild=1) as pool:
        ours, other = (pool.apply(peak, (way,)) for way in (True, False))
    goal = f"target {SHARE} {'reached' if other >= SHARE * ours else 'MISSED'}"
    name = f"attention's peak memory, batch of {BATCH}"
    print(f"{name:<44} ours {ours:7.0f} MiB   other {other:7.0f} MiB   ratio {other / ours:6.2f} {'':<16} {goal}")


def main() -> None:
    torch.set_num_threads(1)
    forward()
    memory()


if __name__ == "__main__":
    main()
