"""The registry of diffusion processes, which the configuration selects by ``process.kind``."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffit.cli import UserError
from diffit.registry import BOOLEAN, FRACTION, NUMBER, POSITIVE, Registry, by_kind, default, object_schema, optional
from diffit.registry.settings import Setting

if TYPE_CHECKING:
    from diffit.process.ddpm import DDPM
    from diffit.process.edm import EDM


@dataclass(frozen=True)
class Process:
    """One kind of process.

    Args:
        name: value of ``process.kind``.
        description: one sentence for the documentation.
        module: module with the class below. It is imported only when a process is built, so it enters the fingerprints
            of its own runs only.
        process: name of the class, whose constructor takes the settings.
        sees: ``images`` or ``latents``, as for the networks that it trains.
        settings: the other keys of ``process`` in the configuration of a run.
    """

    name: str
    description: str
    module: str
    process: str
    sees: str
    settings: Mapping[str, Setting]

    def build(self, fields: dict) -> "EDM | DDPM":
        """Build the process. Raises TypeError for unknown or missing settings and ValueError for invalid values."""
        return getattr(importlib.import_module(self.module), self.process)(**fields)


_AUGMENT = {
    "augment": default(object_schema({"probability": default(FRACTION, 0), "xflip": default(BOOLEAN, False)}), {}),
    "xflip": optional(BOOLEAN),
}

PROCESSES: Registry[Process] = Registry(
    "process",
    Process(
        name="edm",
        description="EDM: the diffusion process of Karras et al. 2022",
        module="diffit.process.edm",
        process="EDM",
        sees="images",
        settings={
            "sigma_data": default(POSITIVE, 0.5),
            "p_mean": default(NUMBER, -1.2),
            "p_std": default(POSITIVE, 1.2),
            **_AUGMENT,
        },
    ),
    Process(
        name="vp",
        description="variance preserving (VP) diffusion of Song et al. 2021",
        module="diffit.process.vp",
        process="VP",
        sees="images",
        settings=_AUGMENT,
    ),
    Process(
        name="ve",
        description="variance exploding (VE) diffusion of Song et al. 2021",
        module="diffit.process.ve",
        process="VE",
        sees="images",
        settings=_AUGMENT,
    ),
    Process(
        name="ddpm",
        description="ADM's discrete-time diffusion with learned variances and class labels",
        module="diffit.process.ddpm",
        process="DDPM",
        sees="latents",
        settings={
            "timesteps": default({"type": "integer", "minimum": 21}, 1000),
            "label_dropout": default(FRACTION, 0.1),
            "xflip": default(BOOLEAN, False),
        },
    ),
)


def schema() -> dict:
    """The JSON schema of a run's ``process`` in the configuration."""
    return by_kind("kind", {name: process.settings for name, process in PROCESSES.items()}, "edm")


def build(spec: dict) -> "EDM | DDPM":
    """Build a process from its specification: ``kind`` and its settings. Raises :class:`UserError` for invalid ones."""
    fields = dict(spec)
    process = PROCESSES[fields.pop("kind")]
    try:
        return process.build(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"process: {error}") from None
