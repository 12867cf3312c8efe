"""score: how far generated images are from real ones, under a protocol that says how they are compared.

    python -m diffit.score SAMPLES REAL [OUT.json] [--protocol clean|adm|edm] [--images N]

SAMPLES and REAL may each be a folder of pictures, a tar of them, an npz file as ADM's samples (arr_0), or a folder that
this project made, of images or of their features. REAL may also be a reference that diffit.scoring.reference wrote, or ADM's
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
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch

from diffit.cli import Parser, UserError, positive_int, run_command
from diffit.data import imagenet_classes
from diffit.scoring import inception_weights
from diffit.scoring.compare import score
from diffit.scoring.features import Features
from diffit.scoring.protocols import PROTOCOLS
from diffit.scoring.reference import Reference
from diffit.store import adm_npz, files
from diffit.store.fingerprint import commit
from diffit.store.manifest import gather, read_manifest, shard_paths

NETWORK = Path("results/archives/inception")  # where the workflow keeps it


def features_of(path: Path, protocol: str, network: Path | None, scratch: Path) -> Features:
    """The features at ``path``, or those of the images there, measured into a folder of ``scratch``.

    Raises :class:`UserError` for features of another protocol, and for what holds no images.
    """
    gathered = (path / "manifest.json").is_file()
    if gathered and "network_sha256" in read_manifest(path):
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
    sources = shard_paths(path) if gathered else [path]
    for source in sources:
        measure(source, scratch / (f"{source.stem}.npz" if gathered else "0-of-1.npz"), folder, protocol)
    gather(scratch, len(sources))
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
    if path.suffix == ".npz" and adm_npz.holds_statistics(path):
        if protocol != "adm":
            raise UserError(f"{path} holds statistics of the protocol adm; add --protocol adm, or name images")
        archive = scratch / "published"
        adm_npz.extract(path, archive)
        record = {"sha256": files.sha256(path), "statistics_images": imagenet_classes.IMAGES}
        files.write_json(archive / "archive.json", record)
        return Reference.of(features_of(path, protocol, network, scratch / "features"), path.stem, archive)
    return Reference.of(features_of(path, protocol, network, scratch / "features"))


def _network(given: Path | None) -> Path:
    """The folder with FID's Inception: the one named, the workflow's, or the user's cache, which is filled once."""
    if given or (NETWORK / "archive.json").is_file():
        return given or NETWORK
    cache = Path(pooch.os_cache("diffit")) / "inception"
    if not (cache / "archive.json").is_file():
        record = {"source": "inception", **inception_weights.fetch({}, cache)}
        files.write_json(cache / "archive.json", record)
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
    parser.add_argument("--images", type=positive_int, help="images of a set; all of them by default")
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
    run_command(main)
