"""ImageNet's 1,000 classes: wnids (``n########``, WordNet's number of a noun), numbered in their sorted order."""

from pathlib import Path

WNIDS = Path(__file__).with_name("imagenet_wnids.txt").read_text().split()
IMAGES = 1_281_167  # of the training set
NUMBERS = {wnid: number for number, wnid in enumerate(WNIDS)}


def wnid_of(name: str) -> str:
    """The class of a picture called ``wnid/file``."""
    return name.partition("/")[0]
