"""Let Snakemake, matplotlib, torch and the hub's client use .venv/cache if the user's cache folder is not writable.

`make install` copies this module into the virtual environment, where a .pth file imports it whenever Python starts:
Snakemake opens its cache before it reads the Snakefile, and jobs start on machines where HOME may be missing.
"""

import os
import sys
from pathlib import Path


def is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def main() -> None:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - must not raise
    if is_writable(Path(cache)):
        return
    own = Path(sys.prefix) / "cache"
    if is_writable(own):
        os.environ["XDG_CACHE_HOME"] = str(own)
        os.environ.setdefault("MPLCONFIGDIR", str(own / "matplotlib"))


main()
