"""score: how far generated images are from real ones, under a protocol that says how they are compared.

    python -m diffit.score SAMPLES REAL [OUT.json] [--protocol clean|adm|edm] [--images N]

SAMPLES and REAL may each be a folder of pictures, a tar of them, an npz file as ADM's samples (arr_0), or a folder that
this project made, of images or of their features. REAL may also be a reference that diffit.reference wrote, or ADM's
published batch (VIRTUAL_imagenet256_labeled.npz). Images are measured first, once for all metrics. Without OUT.json the
scores are printed as a table.

{protocols}

fid              Fréchet distance of Inception's features; falls with the number of images on either side
sfid             the same of 7 channels of an inner layer at 17×17 places, so that composition counts
inception_score  of the samples alone: how sure and how varied their classes are; higher is better
precision        share of the samples that lie among the real images; recall: share of the real images among the samples
kid              kernel distance, which does not depend on the number of images
Where there are fewer images than features, scores are computed and flagged as biased: they compare with each other at
equal counts, and with no published number.

--real-baseline sets real images aside and adds two scores at equal counts against the same other real images,
fid_disjoint of the samples and fid_real of the real images set aside. --class-accuracy adds the share of samples that a
classifier, fitted on the real images' features, takes for the class that was asked for.
"""

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import pooch

from diffit import draws, files, published, tars
from diffit.cli import Parser, UserError, positive, progress, run
from diffit.features import Features
from diffit.fingerprint import commit
from diffit.frechet import Gaussian, frechet_distance
from diffit.metrics import METRICS, Metric
from diffit.protocols import PROTOCOLS, Protocol
from diffit.reference import Reference

SPLIT_SEED = 0
NETWORK = Path("results/archives/inception")  # where the workflow keeps it


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
    for metric in progress([m for m in METRICS if m.gives[0] in protocol.metrics], desc="score", unit="metric"):
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
    if metric.gives[0] in gaps:
        yield from (_entry(name, [], sets, reason=gaps[name]) for name in metric.gives)
        return
    values = samples.array(metric.takes)
    by_set = [metric.compute(values[one.rows], reference) for one in sets]
    against = metric.against(reference)
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
    order = draws.split(SPLIT_SEED, len(data))
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


# ------------------------------------------------------------------------------------------ what a user names


def features_of(path: Path, protocol: str, network: Path | None, scratch: Path) -> Features:
    """The features at ``path``, or those of the images there, measured into a folder of ``scratch``.

    Raises :class:`UserError` for features of another protocol, and for what holds no images.
    """
    gathered = (path / "manifest.json").is_file()
    if gathered and "network_sha256" in tars.read_manifest(path):
        features = Features(path)
        if features.manifest["protocol"] != protocol:
            raise UserError(
                f"{path} holds features for the protocol {features.manifest['protocol']}, not {protocol}; name that "
                f"one with --protocol, or the images instead"
            )
        return features
    if not path.exists():
        raise UserError(f"{path} is missing; give a folder, tar or npz file of images, or a folder of features")
    from diffit.measure import measure  # here, since scores of features need no network

    folder = _network(network)
    sources = tars.piece_paths(path) if gathered else [path]
    for source in sources:
        measure(source, scratch / (f"{source.stem}.npz" if gathered else "0-of-1.npz"), folder, protocol)
    tars.gather(scratch, len(sources))
    return Features(scratch)


def reference_of(path: Path, protocol: str, network: Path | None, scratch: Path) -> Reference:
    """The reference at ``path``, or the one that the images or features there make."""
    if path.suffix == ".npz" and files.sidecar(path).is_file():
        reference = Reference.read(path)
        if reference.facts["protocol"] != protocol:
            raise UserError(
                f"{path} is a reference for the protocol {reference.facts['protocol']}, not {protocol}; name that one "
                f"with --protocol"
            )
        return reference
    if path.suffix == ".npz" and published.holds_statistics(path):
        if protocol != "adm":
            raise UserError(f"{path} holds statistics of the protocol adm; add --protocol adm, or name images")
        archive = scratch / "published"
        published.extract(path, archive)
        record = {"sha256": files.sha256(path), "statistics_images": published.TRAINING_IMAGES}
        files.write_json(archive / "archive.json", record)
        return Reference.of(features_of(path, protocol, network, scratch / "features"), path.stem, archive)
    return Reference.of(features_of(path, protocol, network, scratch / "features"))


def _network(given: Path | None) -> Path:
    """The folder with FID's Inception: the one named, the workflow's, or the user's cache, which is filled once."""
    if given or (NETWORK / "archive.json").is_file():
        return given or NETWORK
    cache = Path(pooch.os_cache("diffit")) / "inception"
    if not (cache / "archive.json").is_file():
        from diffit.download import download

        download({"source": "inception"}, cache)
    return cache


def as_text(result: dict) -> str:
    """The scores for a terminal."""
    lines = [f"protocol {result['protocol']}, {result['images']} images a set, resize {result['resize']}"]
    for metric in result["metrics"]:
        value = "–" if metric["value"] is None else f"{metric['value']:.6g}"
        spread = f"  ({metric['mean']:.6g} ± {metric['std']:.2g})" if metric["std"] is not None else ""
        flags = ", ".join(filter(None, ["biased" if metric["biased"] else "", metric["note"]]))
        lines.append(f"{metric['name']:<16} {value:>10}  {metric['statistic']:<8}{spread}  {flags}".rstrip())
    return "\n".join(lines)


def _help() -> str:
    protocols = "\n".join(
        textwrap.fill(f"{p.name}: {p.source}", 120, initial_indent="  ", subsequent_indent=" " * 9)
        for p in PROTOCOLS.values()
    )
    return __doc__.replace("{protocols}", f"Protocols, whose scores never compare with each other's:\n{protocols}")


def main() -> None:
    parser = Parser(_help())
    parser.add_argument("samples", type=Path, help="generated images, or their features")
    parser.add_argument("real", type=Path, help="real images, their features, or a reference")
    parser.add_argument("out", type=Path, nargs="?", help="JSON file to write")
    parser.add_argument("--protocol", default="clean", choices=PROTOCOLS, help="clean by default")
    parser.add_argument("--images", type=positive, help="images of a set; all of them by default")
    parser.add_argument("--real-baseline", action="store_true", help="add fid_disjoint and fid_real")
    parser.add_argument("--class-accuracy", action="store_true", help="add class_accuracy")
    parser.add_argument("--network", type=Path, help="folder with inception.pt; fetched once where there is none")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        a, b = Path(scratch) / "samples", Path(scratch) / "real"
        samples = features_of(arguments.samples, arguments.protocol, arguments.network, a)
        reference = reference_of(arguments.real, arguments.protocol, arguments.network, b)
        result = score(samples, reference, arguments.images, arguments.real_baseline, arguments.class_accuracy)
    if arguments.out:
        files.write_json(arguments.out, {**result, "commit": commit()})
    else:
        sys.stdout.write(as_text(result) + "\n")


if __name__ == "__main__":
    run(main)
