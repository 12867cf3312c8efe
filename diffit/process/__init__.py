"""The registry of diffusion processes: what ``process.kind`` can be."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffit.cli import UserError
from diffit.registry import BOOLEAN, FRACTION, NUMBER, POSITIVE, Registry, default, object_schema
from diffit.registry.settings import Setting

if TYPE_CHECKING:
    from diffit.process.ddpm import DDPM
    from diffit.process.edm import EDM


@dataclass(frozen=True)
class Process:
    """One kind of process.

    Args:
        name: what ``process.kind`` says.
        description: one sentence for people.
        module: where its class is; imported when a process is built, and part of the fingerprint of its runs only.
        process: the class, built of the settings.
        sees: ``images`` or ``latents``, as the networks that it trains.
        settings: the keys of ``process`` in a run.
    """

    name: str
    description: str
    module: str
    process: str
    sees: str
    settings: Mapping[str, Setting]

    def build(self, fields: dict) -> "EDM | DDPM":
        """The process with these settings. Raises TypeError or ValueError for wrong ones."""
        return getattr(importlib.import_module(self.module), self.process)(**fields)


_AUGMENT = {
    "augment": default(object_schema({"probability": default(FRACTION, 0), "xflip": default(BOOLEAN, False)}), {})
}

PROCESSES: Registry[Process] = Registry(
    "process",
    Process(
        name="edm",
        description="diffusion as Karras et al. 2022 formulate it",
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
        description="variance preserving diffusion of Song et al. 2021",
        module="diffit.process.vp",
        process="VP",
        sees="images",
        settings=_AUGMENT,
    ),
    Process(
        name="ve",
        description="variance exploding diffusion of Song et al. 2021",
        module="diffit.process.ve",
        process="VE",
        sees="images",
        settings=_AUGMENT,
    ),
    Process(
        name="ddpm",
        description="ADM's diffusion in discrete steps, with learned variance and labels",
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


def build(spec: dict) -> "EDM | DDPM":
    """A process from its description: ``kind`` and its settings. Raises :class:`UserError` for what it cannot be."""
    fields = dict(spec)
    process = PROCESSES[fields.pop("kind")]
    try:
        return process.build(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"process: {error}") from None
