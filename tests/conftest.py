"""Fixtures that several test files share: the reference tensors and real images beside the checkout."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real images: an ImageNet sample and CIFAR-10 as JPEG."""
    return shared / "data"


@pytest.fixture(scope="session")
def golden(shared: Path):
    """Load reference tensors by name."""
    return lambda name: load_file(shared / "golden" / f"{name}.safetensors")
