"""The registry of samplers: what ``samplers.*.kind`` can be."""

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
        name: what ``kind`` says.
        description: one sentence for people.
        module: where its class is; imported when a sampler is built, and part of the fingerprint of its samples only.
        sampler: the class. ``of(process, settings)`` builds one; ``passes(process, settings)`` counts how often the
            network sees an image while it is made, from the description of a process.
        processes: the kinds of process whose networks it samples.
        settings: its keys beside those of all samplers.
        shown: what a table says of a setting that is not zero, by the setting: ``"churn {:g}"``.
    """

    name: str
    description: str
    module: str
    sampler: str
    processes: tuple[str, ...]
    settings: Mapping[str, Setting]
    shown: Mapping[str, str]

    def load(self) -> Any:
        """The class of the sampler."""
        return getattr(importlib.import_module(self.module), self.sampler)


# Keys of every sampler: how many images are made, by which seeds, and how they are cut into shards.
COMMON = {
    "steps": {"type": "integer", "minimum": 2},
    "images": COUNT,
    "sets": default(COUNT, 1),
    "shards": COUNT,
    "first_seed": default(NATURAL, 0),
    "block": default(COUNT, 64),
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
    "anyOf": [one_of("random", "balanced"), {"type": "array", "minItems": 1, "uniqueItems": True, "items": NATURAL}]
}
_LATENT = {
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
        description="ancestral sampling with the learned variance",
        module="diffit.process.ddpm",
        sampler="AncestralSampler",
        processes=("ddpm",),
        settings=_LATENT,
        shown={},
    ),
    Sampler(
        name="ddim",
        description="DDIM, deterministic where eta is 0",
        module="diffit.process.ddpm",
        sampler="DDIMSampler",
        processes=("ddpm",),
        settings={**_LATENT, "eta": default(FRACTION, 0)},
        shown={"eta": "eta {:g}"},
    ),
)


def build(process: Any, settings: dict) -> Callable:
    """The sampler of a process with these settings; keys of other matters (how many images, say) are ignored.

    Raises ValueError for settings that make no schedule.
    """
    return SAMPLERS[settings["kind"]].load().of(process, process.sampler_settings(settings))


def passes(process: dict, settings: dict) -> int:
    """How often the network sees one image while it is made; a guided step counts twice."""
    return SAMPLERS[settings["kind"]].load().passes(process, settings)
