"""Time of a block of the latent network with 1,024 tokens (512×512), and memory of its attention.

    python -m bench.block

The benchmark runs the forward pass of the block without gradients for one guided image (a batch of two). The reference
computes explicit attention weights and gathers the position bias in each pass. Ours uses fused attention and builds the
bias once, as in sampling.

Memory is the peak of attention only, for given queries, keys and values: of a separate process (VmHWM) or of the GPU.
Ours includes the cached bias, but not the temporary memory for building it (twice the bias).
"""

import multiprocessing
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.network import DEVICE, HEADS, WIDTH, attention, gathered_bias, reference
from bench.timing import compare, note
from diffit.nets.layers import TMSA, DiffiTTransformer, cached_position_bias

BATCH, GRID = 2, 32
TOKENS = GRID**2
CALLS = 10 if DEVICE.type == "cuda" else 1
TARGET = 3  # of the ratio of the peaks


@torch.no_grad()
def forward() -> None:
    """Compare the time of the block."""
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
    """Peak memory of attention in MiB; must be called in a new process."""
    torch.set_num_threads(1)
    attn = TMSA(WIDTH, WIDTH, HEADS, (GRID, GRID)).to(DEVICE)
    q, k, v = torch.randn(3, BATCH, HEADS, TOKENS, WIDTH // HEADS, device=DEVICE)
    few = q[:, :, :64].clone()
    attention(
        few, few, few, torch.zeros(HEADS, 64, 64, device=DEVICE)
    )  # first call: one-time allocations of the libraries
    before = _memory_mib("VmRSS")
    if ours:
        with cached_position_bias(attn):
            _reset_peak()
            F.scaled_dot_product_attention(q, k, v, attn_mask=attn.position_bias()[None])
            return _memory_mib("VmHWM") - before
    _reset_peak()
    attention(q, k, v, gathered_bias(attn))
    return _memory_mib("VmHWM") - before


def _memory_mib(kind: str) -> float:
    """Memory in use in MiB: now (VmRSS) or the peak since the last :func:`_reset_peak` (VmHWM)."""
    if DEVICE.type == "cuda":
        used = torch.cuda.max_memory_allocated() if kind == "VmHWM" else torch.cuda.memory_allocated()
        return used / 2**20
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) / 2**10


def _reset_peak() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)


def memory() -> None:
    """Compare the peak memory."""
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1, maxtasksperchild=1) as pool:
        ours, other = (pool.apply(peak, (way,)) for way in (True, False))
    goal = f"target {TARGET} {'reached' if other >= TARGET * ours else 'MISSED'}"
    name = f"attention's peak memory, batch of {BATCH}"
    print(f"{name:<44} ours {ours:7.0f} MiB   other {other:7.0f} MiB   ratio {other / ours:6.2f} {'':<16} {goal}")


def main() -> None:
    torch.set_num_threads(1)
    forward()
    memory()


if __name__ == "__main__":
    main()
