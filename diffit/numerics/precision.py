"""The registry of floating-point precisions; diffit/numerics/arithmetic.py applies them."""

import logging
from dataclasses import dataclass
from pathlib import Path

from diffit.registry import Registry

log = logging.getLogger("diffit")

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # Linux's names on x86 (two) and on Arm


@dataclass(frozen=True)
class Precision:
    """A floating-point precision.

    Args:
        name: its name in the configuration.
        speed: peak throughput relative to bfloat16 on an A100, whose peaks are 312 (bfloat16), 156 (TF32) and
            19.5 TFLOP/s (float32).
        autocast: dtype of :class:`torch.autocast`; None disables autocast.
        tf32: whether float32 products may use TF32.
        trains: whether a run can be trained in this precision.
    """

    name: str
    speed: float
    autocast: str | None = None
    tf32: bool = False
    trains: bool = True


PRECISIONS: Registry[Precision] = Registry(
    "precision",
    Precision("float32", speed=1 / 16),
    Precision("tf32", speed=1 / 2, tf32=True, trains=False),
    Precision("bfloat16", speed=1.0, autocast="bfloat16"),
)


def warn_if_emulated(name: str, device: str) -> None:
    """Warn if a precision is bfloat16 and the device type is a CPU without instructions for it.

    The precision stays what the configuration says, because it is part of what a run is.
    """
    if PRECISIONS[name].autocast == "bfloat16" and device == "cpu" and _lacks_bfloat16():
        log.warning(
            "warning: this CPU has no instructions for bfloat16, which may make precision: bfloat16 16 times slower "
            "here than float32; set precision: float32, or use a GPU"
        )


def _lacks_bfloat16() -> bool:
    """Whether Linux lists the CPU's features and bfloat16 is not among them."""
    return CPU_INFO.exists() and not BFLOAT16_FLAGS & set(CPU_INFO.read_text().split())
