"""score: compare generated with real images under a protocol, which fixes resize, metrics and counts.

    python -m diffit.score SAMPLES REAL [OUT.json] [--protocol PROTOCOL] [--images N]

SAMPLES and REAL are each a folder of images, a tar of images, an npz file like ADM's samples (arr_0), or a folder of
image or feature shards of this project. REAL may also be a reference that diffit.scoring.reference wrote, or ADM's
published batch (VIRTUAL_imagenet256_labeled.npz). Images are measured first, once for all metrics. Without OUT.json the
scores are printed as a table.

Protocols, whose scores cannot be compared with each other:
{protocols}

Scores, with the protocols that have them:
{scores}
Scores from fewer images than features are flagged as biased: compare them only at equal counts and not with published
numbers.

--real-baseline holds out real images and adds two scores with equal counts, both against the remaining real images:
fid_disjoint of the samples and fid_real of the held-out images. --class-accuracy adds the share of samples that a
classifier, fitted to the real images' features, assigns to the class that was asked for.
"""

import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from diffit.cli import Parser, UserError, positive_int, print_result, run_command
from diffit.config import paths
from diffit.data import imagenet_classes
from diffit.scoring import inception_weights
from diffit.scoring.compare import score
from diffit.scoring.features import Features
from diffit.scoring.metrics import METRICS
from diffit.scoring.protocols import PROTOCOLS
from diffit.scoring.reference import Reference
from diffit.store import adm_npz, files
from diffit.store.fingerprint import commit
from diffit.store.manifest import gather, has_manifest, read_manifest, shard_paths

NETWORK = Path(paths.INCEPTION).parent


def features_of(path: Path, protocol: str, network: Path | None, scratch: Path) -> Features:
    """The features at ``path``. If there are images instead, they are measured into the folder ``scratch``.

    Raises :class:`UserError` for features of another protocol and for a path without images.
    """
    gathered = has_manifest(path)
    if gathered and "network_sha256" in read_manifest(path):
        features = Features(path)
        _require_protocol(path, "features", features.manifest["protocol"], protocol)
        return features
    if not path.exists():
        raise UserError(f"{path} is missing; give a folder, tar or npz file of images, or a folder of features")
    from diffit.measure import measure  # here, because it imports torch, which scores of features do not need

    folder = _network(network)
    sources = shard_paths(path) if gathered else [path]
    for source in sources:
        measure(source, scratch / (f"{source.stem}.npz" if gathered else "0-of-1.npz"), folder, protocol)
    gather(scratch, len(sources))
    return Features(scratch)


def reference_of(path: Path, protocol: str, network: Path | None, scratch: Path) -> Reference:
    """The reference at ``path``, or one made from the features, images or published batch there."""
    if path.suffix == ".npz" and files.sidecar(path).is_file():
        reference = Reference.read(path)
        _require_protocol(path, "a reference", reference.facts["protocol"], protocol)
        return reference
    if path.suffix == ".npz" and adm_npz.holds_statistics(path):
        if not PROTOCOLS[protocol].published_statistics:
            others = " or ".join(f"--protocol {name}" for name, one in PROTOCOLS.items() if one.published_statistics)
            raise UserError(
                f"{path} holds statistics, which the protocol {protocol} does not use; add {others}, or give images"
            )
        archive = scratch / "published"
        adm_npz.extract(path, archive)
        record = {"sha256": files.sha256(path), "statistics_images": imagenet_classes.IMAGES}
        files.write_json(archive / "archive.json", record)
        return Reference.of(features_of(path, protocol, network, scratch / "features"), path.stem, archive)
    return Reference.of(features_of(path, protocol, network, scratch / "features"))


def _require_protocol(path: Path, content: str, found: str, protocol: str) -> None:
    if found != protocol:
        raise UserError(
            f"{path} holds {content} for the protocol {found}, not {protocol}; add --protocol {found}, or give images"
        )


def _network(given: Path | None) -> Path:
    """The folder with FID's Inception: the given one, the workflow's, or one in the user's cache, filled once."""
    if given or (NETWORK / "archive.json").is_file():
        return given or NETWORK
    cache = platformdirs.user_cache_path("diffit") / "inception"
    if not (cache / "archive.json").is_file():
        record = {"source": "inception", **inception_weights.fetch({}, cache)}
        files.write_json(cache / "archive.json", record)
    return cache


def as_text(result: dict) -> str:
    """The scores as a table for a terminal."""
    lines = [f"protocol {result['protocol']}, {result['images']} images per set, resize {result['resize']}"]
    for metric in result["metrics"]:
        value = "–" if metric["value"] is None else f"{metric['value']:.6g}"
        spread = f"  ({metric['mean']:.6g} ± {metric['std']:.2g})" if metric["std"] is not None else ""
        flags = ", ".join(filter(None, ["biased" if metric["biased"] else "", metric["note"]]))
        lines.append(f"{metric['name']:<17} {value:>10}  {metric['statistic']:<8}{spread}  {flags}".rstrip())
    return "\n".join(lines)


def _help() -> str:
    """The description of the command, with all protocols and scores of the registries."""
    protocols = [(protocol.name, protocol.source) for protocol in PROTOCOLS.values()]
    scores = [
        (name, f"{description} ({', '.join(metric.protocols)})")
        for metric in METRICS.values()
        for name, description in metric.gives.items()
    ]
    return __doc__.replace("{protocols}", _list(protocols)).replace("{scores}", _list(scores))


def _list(entries: list[tuple[str, str]]) -> str:
    """Names and texts in two columns, 120 characters wide."""
    width = max(len(name) for name, _ in entries) + 2
    return "\n".join(
        textwrap.fill(text, 120, initial_indent="  " + name.ljust(width), subsequent_indent=" " * (width + 2))
        for name, text in entries
    )


def main() -> None:
    parser = Parser(_help())
    parser.add_argument("samples", type=Path, help="generated images or their features")
    parser.add_argument("real", type=Path, help="real images, their features or a reference")
    parser.add_argument("out", type=Path, nargs="?", help="JSON file to write")
    parser.add_argument("--protocol", default="clean", choices=PROTOCOLS, help="default: clean")
    parser.add_argument("--images", type=positive_int, help="images per set; default: all")
    parser.add_argument("--real-baseline", action="store_true", help="add fid_disjoint and fid_real")
    parser.add_argument("--class-accuracy", action="store_true", help="add class_accuracy")
    parser.add_argument("--network", type=Path, help="folder with inception.pt; downloaded once by default")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        a, b = Path(scratch) / "samples", Path(scratch) / "real"
        samples = features_of(arguments.samples, arguments.protocol, arguments.network, a)
        reference = reference_of(arguments.real, arguments.protocol, arguments.network, b)
        result = score(samples, reference, arguments.images, arguments.real_baseline, arguments.class_accuracy)
    if arguments.out:
        files.write_json(arguments.out, {**result, "commit": commit()})
    else:
        print_result(as_text(result))


if __name__ == "__main__":
    run_command(main)
