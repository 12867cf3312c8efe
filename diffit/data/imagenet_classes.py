"""ImageNet's 1,000 classes. Labels are indices into the sorted list of all WordNet IDs (wnids, ``n########``)."""

from pathlib import Path

WNIDS = Path(__file__).with_name("imagenet_wnids.txt").read_text().split()
IMAGES = 1_281_167  # images of the training set
NUMBERS = {wnid: number for number, wnid in enumerate(WNIDS)}


def wnid_of(name: str) -> str:
    """The wnid of an image named ``wnid/file``."""
    return name.partition("/")[0]
