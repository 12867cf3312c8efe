"""export: write a set of generated images as the npz file that ADM's evaluator reads, to check our scores with it.

    python -m diffit.store.export_npz SAMPLES_FOLDER OUT/samples_50000x256x256x3.npz

The file name gives count and size, like ADM's. `arr_0` holds the images, uint8 [N, H, W, 3], in order of their seeds;
`arr_1` holds their labels, int64 [N].
"""

import zipfile
from pathlib import Path

import numpy as np

from diffit.cli import Parser, UserError, progress, run_command
from diffit.store import files
from diffit.store.adm_npz import IMAGES, LABELS
from diffit.store.manifest import read_images, read_manifest


def export(folder: Path, out: Path) -> None:
    """Verify the images of ``folder`` and write them to ``out``, one at a time to save memory (512×512: 39 GB).

    Raises :class:`UserError` for a damaged shard and if the file name does not give the shape of the images.
    """
    manifest = read_manifest(folder)
    shape = (manifest["count"], manifest["resolution"], manifest["resolution"], 3)
    name = f"samples_{'x'.join(map(str, shape))}.npz"
    if out.name != name:
        raise UserError(f"{out} is not the name for the images of {folder}; use {out.with_name(name)}")
    labels = np.empty(shape[0], np.int64)
    with files.atomic(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(f"{IMAGES}.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            images = progress(read_images(folder), total=shape[0], desc="export", unit="img")
            for index, (_key, image, label) in enumerate(images):
                file.write(np.ascontiguousarray(image).tobytes())
                labels[index] = label
        with archive.open(f"{LABELS}.npy", "w") as file:
            np.lib.format.write_array(file, labels)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("samples", type=Path, help="folder of image tars with a manifest")
    parser.add_argument("out", type=Path, help="samples_{count}x{size}x{size}x3.npz")
    arguments = parser.parse_args()
    export(arguments.samples, arguments.out)


if __name__ == "__main__":
    run_command(main)
