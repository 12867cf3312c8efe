"""Check that a machine's NVIDIA driver is new enough for the CUDA version of the locked torch."""

import subprocess

from diffit.planning.checks.result import CheckResult, ok, wrong

# CUDA 13 needs a driver of branch R580 or newer (NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1).
MINIMUM, CUDA = 580, "13"
PATIENCE_SECONDS = 60  # nvidia-smi starts the driver first if nothing else uses it


def read() -> str:
    """The version of this machine's NVIDIA driver, such as ``580.65.06``; empty if there is none that answers."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.strip().partition("\n")[0].strip()


def check(version: str, host: str) -> list[CheckResult]:
    """Compare a driver's version with the minimum; there is no result if the version is unknown."""
    branch = version.partition(".")[0]
    if not branch.isdecimal():
        return []
    if int(branch) < MINIMUM:
        remedy = f"ask the administrators for driver R{MINIMUM} or newer, or select nodes that have it"
        return [wrong(f"the NVIDIA driver of {host} is {version}; CUDA {CUDA} needs {MINIMUM} or newer", remedy)]
    return [ok(f"the NVIDIA driver of {host}, {version}, is new enough for CUDA {CUDA}")]
