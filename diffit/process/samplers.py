"""The registry of samplers, which the configuration selects by ``samplers.*.kind``."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffit.numerics.precision import PRECISIONS
from diffit.registry import (
    COUNT,
    FRACTION,
    NATURAL,
    NUMBER,
    POSITIVE,
    SHARDS,
    TEXT,
    Registry,
    by_kind,
    default,
    nullable,
    one_of,
)
from diffit.registry.settings import Setting


@dataclass(frozen=True)
class Sampler:
    """One kind of sampler.

    Args:
        name: value of ``kind``.
        description: one sentence for the documentation.
        module: module with the class below. It is imported only when a sampler is built, so it enters the fingerprints
            of its own samples only.
        sampler: name of the class. Its class method ``of(process, settings)`` builds a sampler; its static method
            ``passes(process_spec, settings)`` counts the forward passes of the network per image.
        processes: the kinds of process whose networks it samples.
        settings: its keys in the configuration, besides ``COMMON``.
        shown: format strings with which tables show settings that are not 0, by setting: ``"churn {:g}"``.
    """

    name: str
    description: str
    module: str
    sampler: str
    processes: tuple[str, ...]
    settings: Mapping[str, Setting]
    shown: Mapping[str, str]

    def load(self) -> Any:
        """Import the class of the sampler."""
        return getattr(importlib.import_module(self.module), self.sampler)


# Keys of every sampler: number of images, their seeds, and their division into shards.
COMMON = {
    "steps": {"type": "integer", "minimum": 2, "maximum": 1_000},
    "images": COUNT,
    "sets": default(COUNT, 1),
    "shards": SHARDS,
    "first_seed": default(NATURAL, 0),
    "block": default({**COUNT, "maximum": 65_536}, 64),
    "precision": default(one_of(*PRECISIONS), "float32"),
}

_GUIDED = {"channels": default(nullable(COUNT), 3), "tolerance": default({"type": "number", "minimum": 0}, 0)}
GUIDANCE = by_kind(
    "kind",
    {
        "none": {},
        "constant": {"weight": NUMBER, **_GUIDED},
        "power-cosine": {"weight": NUMBER, "power": default(POSITIVE, 4), **_GUIDED},
    },
    default_name="none",
)
_CLASSES = {
    "anyOf": [one_of("random", "balanced"), {"type": "array", "minItems": 1, "uniqueItems": True, "items": NATURAL}],
    "description": "random, balanced, or a list of different class numbers",
}
_LATENT_SETTINGS = {
    "decoder": default(nullable(TEXT), None),
    "labels": default(_CLASSES, "random"),
    "guidance": default(GUIDANCE, {}),
}

SAMPLERS: Registry[Sampler] = Registry(
    "sampler",
    Sampler(
        name="heun",
        description="EDM's second-order sampler, deterministic or with churn",
        module="diffit.process.edm",
        sampler="HeunSampler",
        processes=("edm", "vp", "ve"),
        settings={
            "sigma_min": default(POSITIVE, 0.002),
            "sigma_max": default(POSITIVE, 80),
            "rho": default(POSITIVE, 7),
            "s_churn": default({"type": "number", "minimum": 0}, 0),
            "s_min": default({"type": "number", "minimum": 0}, 0),
            "s_max": default({"type": "number", "minimum": 0}, 1.0e9),
            "s_noise": default(POSITIVE, 1),
        },
        shown={"s_churn": "churn {:g}"},
    ),
    Sampler(
        name="ddpm",
        description="ancestral sampling with the learned variances",
        module="diffit.process.ddpm_samplers",
        sampler="AncestralSampler",
        processes=("ddpm",),
        settings=_LATENT_SETTINGS,
        shown={},
    ),
    Sampler(
        name="ddim",
        description="DDIM; deterministic if eta is 0",
        module="diffit.process.ddpm_samplers",
        sampler="DDIMSampler",
        processes=("ddpm",),
        settings={**_LATENT_SETTINGS, "eta": default(FRACTION, 0)},
        shown={"eta": "eta {:g}"},
    ),
)


def build(process: Any, settings: dict) -> Callable:
    """Build a sampler for a process; settings that do not concern the sampler, such as ``images``, are ignored.

    Raises ValueError for invalid settings.
    """
    return SAMPLERS[settings["kind"]].load().of(process, process.sampler_settings(settings))


def passes(process_spec: dict, settings: dict) -> int:
    """Forward passes of the network per generated image; a guided step counts twice."""
    return SAMPLERS[settings["kind"]].load().passes(process_spec, settings)
