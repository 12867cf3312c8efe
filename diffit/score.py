"""score: how far generated images are from real ones, from the features that ``diffit.measure`` wrote.

    python -m diffit.score SAMPLES DATA OUT.json [--real-baseline] [--class-accuracy]
    python -m diffit.score PICTURES OTHER_PICTURES OUT.json --network NETWORK_FOLDER

SAMPLES and DATA are folders of features with their manifest. A folder of images (tars with their manifest, or plain
pictures) will do as well where --network names the folder of the network: it is measured first.

fid    Fréchet distance of all samples to all real images; falls with the number of either, so compare it at equal
       counts, and above all not below as many images as there are features
kid    kernel distance of the same two sets, free of that bias
--real-baseline sets real images aside and adds two that stand at equal counts against the same other real images:
fid_disjoint   of the samples
fid_real       of the real images set aside
--class-accuracy adds the share of samples that a classifier, fitted on the real images' features, takes for the class
that was asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from diffit import draws, files, tars
from diffit.cli import Parser, UserError, run
from diffit.fingerprint import commit
from diffit.frechet import Gaussian, frechet_distance, kid

KID_SUBSETS, KID_SUBSET_SIZE, KID_SEED = 100, 1000, 0  # clean-fid's numbers
SPLIT_SEED = 0


@dataclass(frozen=True)
class Features:
    """All features of one folder, with its manifest."""

    values: np.ndarray  # float32 [n, d]
    labels: np.ndarray  # int64 [n]
    manifest: dict

    def __len__(self) -> int:
        return len(self.values)


def score(samples: Features, data: Features, real_baseline: bool = False, class_accuracy: bool = False) -> dict:
    """Every metric of the samples against the data set, with what is needed to say what was compared.

    Raises :class:`UserError` where the two were measured differently.
    """
    comparable(samples, data)
    metrics = [
        _fid("fid", samples.values, data.values),
        {
            **_metric("kid", samples.values, data.values),
            "value": kid(samples.values, data.values, KID_SUBSET_SIZE, KID_SUBSETS, KID_SEED),
            "biased": False,  # an unbiased estimate at any count
            "note": f"mean of {KID_SUBSETS} subsets of {min(len(samples), len(data), KID_SUBSET_SIZE)} images",
        },
    ]
    if real_baseline:
        metrics += _against_disjoint(samples.values, data.values)
    if class_accuracy:
        metrics.append(_class_accuracy(samples, data))
    if _other_data(samples.manifest["images"], data.manifest["images"]):
        for metric in metrics:
            metric["note"] = f"{metric['note']}; the data changed since the network was trained".removeprefix("; ")
    return {
        "protocol": samples.manifest["protocol"],
        "network_sha256": samples.manifest["network_sha256"],
        "precision": samples.manifest["precision"],
        "images": len(samples),
        "samples": samples.manifest["images"],
        "reference": data.manifest["images"],
        "metrics": metrics,
    }


def comparable(samples: Features, data: Features) -> None:
    """Refuse features of another protocol, network, precision, width or image size."""
    for name, what in {
        "protocol": "protocol",
        "network_sha256": "network (sha256)",
        "precision": "precision",
        "width": "width of features",
        "size": "image size (height, width)",
    }.items():
        one, two = samples.manifest[name], data.manifest[name]
        if one != two:
            raise UserError(
                f"the {what} of the samples is {one} and that of the data {two}, which cannot be compared; "
                f"measure both in the same way"
            )


def _other_data(samples: dict, data: dict) -> bool:
    """Whether generated images come from a network that was trained on anything but this data set as it is now."""
    return samples.get("data_sha256") not in (None, data["content_sha256"])


def _against_disjoint(samples: np.ndarray, data: np.ndarray) -> list[dict]:
    """FID of samples and of as many real images, both against real images that are in neither set."""
    n = min(len(samples), len(data) // 2)
    order = draws.split(SPLIT_SEED, len(data))
    held_out, rest = data[order[:n]], data[order[n:]]
    return [_fid("fid_disjoint", samples[:n], rest), _fid("fid_real", held_out, rest)]


def _class_accuracy(samples: Features, data: Features) -> dict:
    """How many samples are of the class asked for, by logistic regression on the real images' features."""
    from sklearn.linear_model import LogisticRegression  # here, since most scores need no classifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(data.labels)) < 2:
        raise UserError("class accuracy needs images of two classes or more; set labels: true for the data set")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(data.values, data.labels)
    return {
        **_metric("class_accuracy", samples.values, data.values),
        "value": float(classifier.score(samples.values, samples.labels)),
        "biased": False,
        "note": "by logistic regression on the features of the reference",
    }


def _fid(name: str, images: np.ndarray, reference: np.ndarray) -> dict:
    width = images.shape[1]
    biased = min(len(images), len(reference)) < width
    return {
        **_metric(name, images, reference),
        "value": frechet_distance(Gaussian.of(images), Gaussian.of(reference)),
        "biased": biased,
        "note": f"fewer images than the {width} features: compare at equal counts only" if biased else "",
    }


def _metric(name: str, images: np.ndarray, reference: np.ndarray) -> dict:
    return {"name": name, "images": len(images), "reference_images": len(reference)}


def read_features(folder: Path) -> Features:
    """Read a folder of features, each piece verified against the manifest and its sidecar.

    Raises :class:`UserError` for a piece that is missing, damaged, another, not finite or of the wrong shape.
    """
    manifest = tars.read_manifest(folder)
    if "network_sha256" not in manifest:
        raise UserError(f"{folder} holds no features; measure its images first, or name the network with --network")
    pieces = [_read_piece(folder / piece["file"], piece, manifest["width"]) for piece in manifest["pieces"]]
    features, labels = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Features(features, labels, manifest)


def _read_piece(path: Path, entry: dict, width: int) -> tuple[np.ndarray, np.ndarray]:
    if files.verify(path, tars.ANEW)["sha256"] != entry["sha256"]:
        raise UserError(f"{path} is not the piece that manifest.json names (another sha256); {tars.ANEW}")
    with np.load(path, allow_pickle=False) as stored:
        features, labels = stored["features"], stored["labels"]
    if features.shape != (entry["count"], width):
        raise UserError(f"{path} holds features {features.shape} instead of {(entry['count'], width)}; {tars.ANEW}")
    if not np.isfinite(features).all():
        raise UserError(f"{path} holds features that are NaN or infinite; {tars.ANEW}")
    return features, labels


def features_of(folder: Path, network: Path | None) -> Features:
    """Read a folder of features, or measure a folder of image tars or of pictures with ``network``."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder of features or of images")
    gathered = (folder / "manifest.json").is_file()
    if gathered and "network_sha256" in tars.read_manifest(folder):
        return read_features(folder)
    if network is None:
        raise UserError(f"{folder} holds no gathered features; name the network's folder with --network to measure it")
    from diffit.measure import measure  # here, since scores of features need no network

    sources = tars.piece_paths(folder) if gathered else [folder]
    with TemporaryDirectory() as temporary:
        for source in sources:
            out = f"{source.stem}.npz" if gathered else "0-of-1.npz"
            measure(source, Path(temporary) / out, network)
        tars.gather(Path(temporary), len(sources))
        return read_features(Path(temporary))


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("samples", type=Path, help="folder of the generated images' features")
    parser.add_argument("data", type=Path, help="folder of the real images' features")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--real-baseline", action="store_true", help="add fid_disjoint and fid_real")
    parser.add_argument("--class-accuracy", action="store_true", help="add class_accuracy")
    parser.add_argument("--network", type=Path, help="folder with inception.pt, to measure folders of images")
    arguments = parser.parse_args()
    samples, data = (features_of(folder, arguments.network) for folder in (arguments.samples, arguments.data))
    result = score(samples, data, arguments.real_baseline, arguments.class_accuracy)
    files.write_json(arguments.out, {**result, "commit": commit()})


if __name__ == "__main__":
    run(main)
