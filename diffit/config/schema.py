"""The schema of the configuration: workflow/schemas/config.schema.yaml, completed from the registries."""

from pathlib import Path

import yaml

from diffit.data.sources import SOURCES
from diffit.nets import NETWORKS
from diffit.numerics.precision import PRECISIONS
from diffit.process import PROCESSES
from diffit.process.samplers import COMMON, SAMPLERS
from diffit.registry import COUNT, NUMBER, TEXT, by_kind, constant, default, object_schema, one_of, optional
from diffit.scoring.metrics import score_names
from diffit.scoring.protocols import PROTOCOLS


def config_schema(path: Path) -> dict:
    """The JSON schema in the file ``path``, with the definitions that follow from the registries."""
    schema = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema["$defs"] |= {
        "protocol": one_of(*PROTOCOLS),
        "dataset": by_kind("source", {name: _dataset(name) for name in SOURCES}),
        "sampler": by_kind("kind", {name: {**COMMON, **s.settings} for name, s in SAMPLERS.items()}, "heun"),
        "net": by_kind("kind", {name: network.settings for name, network in NETWORKS.items()}, "ushaped"),
        "process": by_kind("kind", {name: process.settings for name, process in PROCESSES.items()}, "edm"),
        "training_precision": one_of(*(name for name, precision in PRECISIONS.items() if precision.trains)),
    }
    schema["$defs"]["paper"]["properties"] |= dict.fromkeys(score_names(), NUMBER)
    return schema


def table_schema(path: Path) -> dict:
    """The JSON schema of the paper's tables in the file ``path``, completed in the same way."""
    schema = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema["$defs"] = {"protocol": one_of(*PROTOCOLS), "metric": one_of(*score_names())}
    return schema


def _dataset(name: str) -> dict:
    """The keys of a data set: those of its source, its number of shards and, by protocol, what stands for it."""
    if not SOURCES[name].references:
        return {**SOURCES[name].settings, "shards": COUNT, "references": constant({})}
    by_protocol = object_schema({protocol: optional(TEXT) for protocol in PROTOCOLS})
    return {**SOURCES[name].settings, "shards": COUNT, "references": default(by_protocol, {})}
