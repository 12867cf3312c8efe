"""Every metric of a protocol, of samples against a reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from diffit.cli import UserError, progress
from diffit.numerics import rng
from diffit.scoring.features import Features
from diffit.scoring.frechet import Gaussian, frechet_distance
from diffit.scoring.metrics import Metric, metrics_of
from diffit.scoring.protocols import PROTOCOLS, Protocol
from diffit.scoring.reference import Reference

SPLIT_SEED = 0


@dataclass(frozen=True)
class Range:
    """Consecutive samples that make up one set."""

    rows: slice
    first_seed: int | None  # None where nobody says that they have seeds

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start


def score(
    samples: Features,
    reference: Reference,
    images: int | None = None,
    real_baseline: bool = False,
    class_accuracy: bool = False,
) -> dict:
    """Every metric of the protocol, with what is needed to say what was compared.

    ``images`` is how many a set has: the samples are then one or several whole sets, of which as many are scored as
    the protocol asks for. Without it they are one set. Raises :class:`UserError` where samples and reference were
    measured differently or do not belong together, and for samples that are no whole sets.
    """
    comparable(samples.manifest, reference.facts)
    protocol = PROTOCOLS[samples.manifest["protocol"]]
    sets = seed_ranges(samples, protocol, images)
    statistic = protocol.statistic if len(sets) > 1 else "single"
    metrics = []
    for metric in progress(metrics_of(protocol.name), desc="score", unit="metric"):
        metrics += _scored(metric, samples, reference, sets, statistic)
    first = samples.array("features")[sets[0].rows]
    if real_baseline:
        metrics += _against_disjoint(first, reference, sets[0])
    if class_accuracy:
        metrics.append(_class_accuracy(first, samples.array("labels")[sets[0].rows], reference, sets[0]))
    notes = [
        f"{len(sets[0])} images a set, where the protocol has {protocol.images}"
        if protocol.images not in (None, len(sets[0]))
        else "",
        "the data changed since the network was trained" if _other_data(samples.manifest, reference.facts) else "",
    ]
    for metric in metrics:
        metric["note"] = "; ".join(filter(None, [metric["note"], *notes]))
    return {
        "protocol": protocol.name,
        "resize": samples.manifest["resize"],
        "network_sha256": samples.manifest["network_sha256"],
        "precision": samples.manifest["precision"],
        "images": len(sets[0]),
        "samples": samples.manifest["images"],
        "reference": _described(reference.facts),
        "metrics": metrics,
    }


def comparable(samples: dict, reference: dict) -> None:
    """Refuse features of another protocol, network, precision, width, image size or data set."""
    for name, what in {
        "protocol": "protocol",
        "network_sha256": "network (sha256)",
        "resize": "resize",
        "precision": "precision",
        "width": "width of features",
        "size": "image size (height, width)",
    }.items():
        if samples[name] != reference[name]:
            raise UserError(
                f"the {what} of the samples is {samples[name]} and that of the real images {reference[name]}, which "
                f"cannot be compared; measure both in the same way"
            )
    generated = samples["images"]
    if "sampler" in generated and generated["dataset"] != reference["dataset"]:
        raise UserError(
            f"the samples are of a network for {generated['dataset']} and the reference is of {reference['dataset']}; "
            f"name the reference of {generated['dataset']}"
        )


def seed_ranges(samples: Features, protocol: Protocol, images: int | None) -> list[Range]:
    """The sets to score: whole ranges of seeds, as many as the protocol asks for or as there are."""
    count = len(samples)
    images = images or count
    if count % images or not count:
        raise UserError(
            f"{samples.folder} holds {count} images where whole sets of {images} are due; complete the samples, or "
            f"say how many a set has"
        )
    first = samples.manifest["images"].get("sampler", {}).get("first_seed")
    return [
        Range(slice(k * images, (k + 1) * images), None if first is None else first + k * images)
        for k in range(min(protocol.sets, count // images))
    ]


def _scored(
    metric: Metric, samples: Features, reference: Reference, sets: list[Range], statistic: str
) -> Iterator[dict]:
    """What one computation gives of all sets; a gap with its reason where the network cannot give what it takes."""
    gaps = samples.manifest["gaps"]
    if metric.name in gaps:
        yield from (_entry(name, [], sets, reason=gaps[metric.name]) for name in metric.gives)
        return
    values = samples.array(metric.takes)
    by_set = [metric.compute(values[one.rows], reference) for one in sets]
    against = metric.compared(reference)
    fewest, width = min(filter(None, [len(sets[0]), against])), values.shape[1]
    for name, found in zip(metric.gives, zip(*by_set, strict=True), strict=True):
        yield _entry(
            name,
            list(found),
            sets,
            statistic,
            reference_images=against,
            biased=not metric.unbiased and fewest < width,
            note=metric.note or _few(fewest, width),
        )


def _entry(
    name: str,
    values: list[float],
    sets: list[Range],
    statistic: str = "single",
    reference_images: int | None = None,
    biased: bool = False,
    note: str = "",
    reason: str = "",
) -> dict:
    """One metric as it stands in a score file; ``reason`` says why there is no value."""
    several = len(values) > 1
    return {
        "name": name,
        "value": None if reason else min(values) if statistic == "minimum" else values[0],
        "statistic": statistic,
        "sets": [{"first_seed": s.first_seed, "value": v} for s, v in zip(sets, values, strict=False)],
        "mean": mean(values) if several else None,
        "std": stdev(values) if several else None,  # of a sample: divisor n − 1
        "images": len(sets[0]),
        "reference_images": reference_images,
        "biased": biased,
        "note": reason or note,
    }


def _few(images: int, width: int) -> str:
    return f"fewer images than the {width} features: compare at equal counts only" if images < width else ""


def _other_data(samples: dict, reference: dict) -> bool:
    """Whether generated images come from a network that was trained on anything but this data set as it is now."""
    generated, real = samples["images"], reference["images"]
    measured_itself = real.get("dataset") == reference["dataset"]
    return measured_itself and generated.get("data_sha256") not in (None, real["content_sha256"])


def _described(facts: dict) -> dict:
    """What a score says of its reference."""
    named = {name: facts[name] for name in ("dataset", "count", "sha256", "published_sha256") if name in facts}
    return {**named, "images": facts["images"]}


def _against_disjoint(samples: np.ndarray, reference: Reference, one: Range) -> list[dict]:
    """FID of samples and of as many real images, both against real images that are in neither set."""
    if not reference.complete:
        reason = f"the reference keeps {len(reference.rows)} of its {reference.facts['count']} images' features"
        return [_entry(name, [], [one], reason=reason) for name in ("fid_disjoint", "fid_real")]
    data = reference.rows
    n = min(len(samples), len(data) // 2)
    order = rng.split(SPLIT_SEED, len(data))
    held_out, rest = data[order[:n]], data[order[n:]]
    fewest, width = min(n, len(rest)), data.shape[1]
    entries = []
    for name, images in {"fid_disjoint": samples[:n], "fid_real": held_out}.items():
        value = frechet_distance(Gaussian.of(images), Gaussian.of(rest))
        entry = _entry(name, [value], [one], "single", len(rest), fewest < width, _few(fewest, width))
        entries.append({**entry, "images": n})
    return entries


def _class_accuracy(samples: np.ndarray, labels: np.ndarray, reference: Reference, one: Range) -> dict:
    """How many samples are of the class asked for, by logistic regression on the real images' features."""
    from sklearn.linear_model import LogisticRegression  # here, since most scores need no classifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(reference.labels)) < 2:
        raise UserError("class accuracy needs images of two classes or more; set labels: true for the data set")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(reference.rows, reference.labels)
    value = float(classifier.score(samples, labels))
    note = "by logistic regression on the features of the reference"
    return _entry("class_accuracy", [value], [one], "single", len(reference.rows), note=note)
