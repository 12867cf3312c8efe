"""All scores of a protocol for one or several sets of samples against a reference."""

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

# What samples and real images must have in common, with the words for error messages.
_COMMON_FACTS = {
    "protocol": "protocol",
    "network_sha256": "network (sha256)",
    "resize": "resize",
    "precision": "precision",
    "width": "width of features",
    "size": "image size (height, width)",
}


@dataclass(frozen=True)
class SampleSet:
    """Consecutive samples that are scored together."""

    rows: slice
    first_seed: int | None  # None if the samples have no seeds

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start


def score(
    samples: Features,
    reference: Reference,
    images: int | None = None,
    real_baseline: bool = False,
    class_accuracy: bool = False,
) -> dict:
    """Compute all scores of the protocol of the samples.

    Args:
        samples: features of one or several sets of samples.
        reference: the real images.
        images: images per set; by default all samples are one set. At most as many sets are scored as the protocol has.
        real_baseline: add ``fid_disjoint`` and ``fid_real``.
        class_accuracy: add ``class_accuracy``.

    Returns the content of a score file: the scores, and what was compared with what. Raises :class:`UserError` if
    samples and reference were measured differently or belong to different data sets, or if a set is incomplete.
    """
    require_comparable(samples.manifest, reference.facts)
    protocol = PROTOCOLS[samples.manifest["protocol"]]
    sets = sample_sets(samples, protocol, images)
    statistic = protocol.statistic if len(sets) > 1 else "single"
    metrics = []
    for metric in progress(metrics_of(protocol.name), desc="score", unit="metric"):
        metrics += _scores(metric, samples, reference, sets, statistic)
    first = samples.array("features")[sets[0].rows]
    if real_baseline:
        metrics += _real_baseline(first, reference, sets[0])
    if class_accuracy:
        metrics.append(_class_accuracy(first, samples.array("labels")[sets[0].rows], reference, sets[0]))
    notes = _common_notes(samples, reference, protocol, len(sets[0]))
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


def require_comparable(samples: dict, reference: dict) -> None:
    """Raise :class:`UserError` unless samples and reference have the same protocol, network, resize, precision, feature
    width, image size and data set."""
    for fact, words in _COMMON_FACTS.items():
        if samples[fact] != reference[fact]:
            raise UserError(
                f"the {words} of the samples is {samples[fact]} and that of the real images {reference[fact]}, so they "
                "cannot be compared; measure both in the same way"
            )
    generated = samples["images"]
    if "sampler" in generated and generated["dataset"] != reference["dataset"]:
        raise UserError(
            f"the samples are of a network for {generated['dataset']} and the reference is of {reference['dataset']}; "
            f"give the reference of {generated['dataset']}"
        )


def sample_sets(samples: Features, protocol: Protocol, images: int | None) -> list[SampleSet]:
    """Split samples into sets of ``images`` consecutive ones; at most as many sets as the protocol scores.

    Raises :class:`UserError` if the last set is incomplete or there are no samples.
    """
    count = len(samples)
    images = images or count
    if not count or count % images:
        raise UserError(
            f"{samples.folder} holds {count} images, which are not complete sets of {images}; complete the samples, or "
            "correct the number of images per set"
        )
    first = samples.manifest["images"].get("sampler", {}).get("first_seed")
    return [
        SampleSet(slice(k * images, (k + 1) * images), None if first is None else first + k * images)
        for k in range(min(protocol.sets, count // images))
    ]


def _scores(
    metric: Metric, samples: Features, reference: Reference, sets: list[SampleSet], statistic: str
) -> Iterator[dict]:
    """The scores of one metric over all sets; without values if the network does not give the array it takes."""
    gaps = samples.manifest["gaps"]
    if metric.name in gaps:
        yield from (_entry(name, [], sets, reason=gaps[metric.name]) for name in metric.gives)
        return
    values = samples.array(metric.takes)
    by_set = [metric.compute(values[one.rows], reference) for one in sets]
    compared = metric.compared(reference)
    fewest, width = min(filter(None, [len(sets[0]), compared])), values.shape[1]
    for name, found in zip(metric.gives, zip(*by_set, strict=True), strict=True):
        yield _entry(
            name,
            list(found),
            sets,
            statistic,
            reference_images=compared,
            biased=not metric.unbiased and fewest < width,
            note=metric.note or _few_images_note(fewest, width),
        )


def _entry(
    name: str,
    values: list[float],
    sets: list[SampleSet],
    statistic: str = "single",
    reference_images: int | None = None,
    biased: bool = False,
    note: str = "",
    reason: str = "",
) -> dict:
    """One score as an entry of a score file; ``reason`` says why there is no value."""
    several = len(values) > 1
    return {
        "name": name,
        "value": None if reason else min(values) if statistic == "minimum" else values[0],
        "statistic": statistic,
        "sets": [{"first_seed": s.first_seed, "value": v} for s, v in zip(sets, values, strict=False)],
        "mean": mean(values) if several else None,
        "std": stdev(values) if several else None,  # divisor n − 1
        "images": len(sets[0]),
        "reference_images": reference_images,
        "biased": biased,
        "note": reason or note,
    }


def _few_images_note(images: int, width: int) -> str:
    return f"fewer images than the {width} features: compare only at equal counts" if images < width else ""


def _common_notes(samples: Features, reference: Reference, protocol: Protocol, images: int) -> list[str]:
    """Notes that apply to all scores."""
    notes = []
    if protocol.images not in (None, images):
        notes.append(f"{images} images per set instead of the protocol's {protocol.images}")
    if _data_changed(samples.manifest, reference.facts):
        notes.append("the data changed since the network was trained")
    if skipped := samples.manifest["images"].get("skipped_steps"):
        numbers = ", ".join(str(step) for step in skipped)
        notes.append(f"trained without the updates of {len(skipped)} steps that were not finite: {numbers}")
    return notes


def _data_changed(samples: dict, reference: dict) -> bool:
    """Whether the network was trained on another version of the data set than the one that was measured."""
    generated, real = samples["images"], reference["images"]
    measured_itself = real.get("dataset") == reference["dataset"]
    return measured_itself and generated.get("data_sha256") not in (None, real["content_sha256"])


def _described(facts: dict) -> dict:
    """The facts about the reference that a score file records."""
    named = {name: facts[name] for name in ("dataset", "count", "sha256", "published_sha256") if name in facts}
    return {**named, "images": facts["images"]}


def _real_baseline(samples: np.ndarray, reference: Reference, samples_set: SampleSet) -> list[dict]:
    """FID of n samples and of n held-out real images, both against the other real images."""
    if not reference.complete:
        reason = f"the reference keeps the features of {len(reference.rows)} of its {reference.facts['count']} images"
        return [_entry(name, [], [samples_set], reason=reason) for name in ("fid_disjoint", "fid_real")]
    data = reference.rows
    n = min(len(samples), len(data) // 2)
    order = rng.split(SPLIT_SEED, len(data))
    held_out, rest = data[order[:n]], data[order[n:]]
    fewest, width = min(n, len(rest)), data.shape[1]
    entries = []
    for name, images in {"fid_disjoint": samples[:n], "fid_real": held_out}.items():
        value = frechet_distance(Gaussian.of(images), Gaussian.of(rest))
        note = _few_images_note(fewest, width)
        entry = _entry(name, [value], [samples_set], "single", len(rest), fewest < width, note)
        entries.append({**entry, "images": n})
    return entries


def _class_accuracy(samples: np.ndarray, labels: np.ndarray, reference: Reference, samples_set: SampleSet) -> dict:
    """Share of samples that a logistic regression on the real images' features assigns to their own class."""
    from sklearn.linear_model import LogisticRegression  # here, because most scores need no classifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(reference.labels)) < 2:
        raise UserError("class accuracy needs at least two classes; set labels: true for the data set")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(reference.rows, reference.labels)
    value = float(classifier.score(samples, labels))
    note = "by logistic regression on the features of the reference"
    return _entry("class_accuracy", [value], [samples_set], "single", len(reference.rows), note=note)
