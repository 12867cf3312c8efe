"""The schema of the configuration: workflow/schemas/config.schema.yaml, completed from the registries.

The parts that commands read as JSON arguments are defined in Python only, because a queued training runs from a copy of
the package, which has no workflow/ beside it.
"""

from pathlib import Path

from diffit import nets, process
from diffit.config.yaml_files import read_mapping
from diffit.data.sources import SOURCES
from diffit.numerics.precision import PRECISIONS
from diffit.process.samplers import COMMON, SAMPLERS
from diffit.registry import (
    COUNT,
    NATURAL,
    NUMBER,
    POSITIVE,
    SHA256,
    SHARDS,
    TEXT,
    by_kind,
    constant,
    default,
    nullable,
    object_schema,
    one_of,
    optional,
)
from diffit.registry.settings import Setting
from diffit.scoring.metrics import score_names
from diffit.scoring.protocols import PROTOCOLS
from diffit.weights.settings import WEIGHTS, vae_schema

# Keys of a data set and of a sampler that change no image: how they are cut, and what scores compare them with.
NOT_OF_IMAGES = ("shards", "references")
NOT_OF_SAMPLES = ("shards", "sets")
# FID's Inception network. `url` has no default, so that results from before it existed stay valid.
INCEPTION: dict[str, Setting] = {
    "path": default(nullable(TEXT), None),
    "sha256": default(nullable(SHA256), None),
    "url": optional({"type": "string", "pattern": "^https?://"}),
}


def config_schema(path: Path) -> dict:
    """The JSON schema in the file ``path``, with the definitions that follow from the registries."""
    schema = read_mapping(path)
    schema["$defs"] |= {
        "protocol": one_of(*PROTOCOLS),
        "sha256": nullable(SHA256),
        "dataset": by_kind("source", {name: _dataset(name) for name in SOURCES}),
        "sampler": by_kind("kind", {name: _sampler(name) for name in SAMPLERS}, "heun"),
        "vae": vae_schema(),
        "net": nets.schema(),
        "process": process.schema(),
        "training": object_schema(_training()),
        "weights": object_schema(WEIGHTS),
        "inception": object_schema(INCEPTION),
    }
    schema["$defs"]["paper"]["properties"] |= dict.fromkeys(score_names(), NUMBER)
    return schema


def table_schema(path: Path) -> dict:
    """The JSON schema of the paper's tables in the file ``path``, completed in the same way."""
    schema = read_mapping(path)
    schema["$defs"] = {"protocol": one_of(*PROTOCOLS), "metric": one_of(*score_names())}
    return schema


def archive_schema() -> dict:
    """The JSON schema of what the stage download fetches: a data set, or the Inception network."""
    return by_kind("source", {**_images(), "inception": INCEPTION})


def images_schema() -> dict:
    """The JSON schema of a data set as its stages read it."""
    return by_kind("source", _images())


def _images() -> dict[str, dict[str, Setting]]:
    return {name: _without(_dataset(name), NOT_OF_IMAGES) for name in SOURCES}


def samples_schema() -> dict:
    """The JSON schema of a sampler as the stage sample reads it."""
    return by_kind("kind", {name: _without(_sampler(name), NOT_OF_SAMPLES) for name in SAMPLERS}, "heun")


def sampler_schema() -> dict:
    """The JSON schema of a sampler, with or without the keys that divide its images."""
    divided = {key: optional(COMMON[key]) for key in NOT_OF_SAMPLES}
    return by_kind("kind", {name: {**_without(_sampler(name), NOT_OF_SAMPLES), **divided} for name in SAMPLERS}, "heun")


def run_schema() -> dict:
    """The JSON schema of a run as the stage train reads it."""
    parts = {"net": nets.schema(), "process": default(process.schema(), {}), "training": object_schema(_training())}
    return object_schema(
        {"dataset": TEXT, "seed": default(NATURAL, 0), **parts, "vae_spec": optional({"type": "object"})}
    )


def _training() -> dict[str, Setting]:
    """The settings of a training. What has no default keeps runs that began without the key what they are."""
    betas = {"type": "array", "minItems": 2, "maxItems": 2, "items": _BETA}
    return {
        "batch": {**COUNT, "maximum": 1_000_000},
        "optimizer": default(one_of("adam", "adamw"), "adam"),
        "learning_rate": POSITIVE,
        "betas": default(betas, [0.9, 0.999]),
        "weight_decay": default(_NOT_NEGATIVE, 0),
        "warmup_kimg": _NOT_NEGATIVE,
        "ema_halflife_kimg": POSITIVE,
        "ema_rampup": default(nullable(POSITIVE), None),
        "clip_norm": optional(POSITIVE),
        "precision": one_of(*(name for name, precision in PRECISIONS.items() if precision.trains)),
    }


_NOT_NEGATIVE = {"type": "number", "minimum": 0}
_BETA = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}


def _dataset(name: str) -> dict[str, Setting]:
    """The keys of a data set: those of its source, its number of shards and, by protocol, what stands for it."""
    if not SOURCES[name].references:
        return {**SOURCES[name].settings, "shards": SHARDS, "references": constant({})}
    by_protocol = object_schema({protocol: optional(TEXT) for protocol in PROTOCOLS})
    return {**SOURCES[name].settings, "shards": SHARDS, "references": default(by_protocol, {})}


def _sampler(name: str) -> dict[str, Setting]:
    return {**COMMON, **SAMPLERS[name].settings}


def _without(settings: dict[str, Setting], names: tuple[str, ...]) -> dict[str, Setting]:
    return {name: setting for name, setting in settings.items() if name not in names}
