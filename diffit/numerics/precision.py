"""The registry of floating-point precisions; diffit/numerics/arithmetic.py applies them."""

from dataclasses import dataclass

from diffit.registry import Registry


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
