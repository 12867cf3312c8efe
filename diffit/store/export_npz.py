"""export: a set of generated images as the one .npz that ADM's evaluator reads, so that others can check our scores.

    python -m diffit.store.export_npz SAMPLES_FOLDER OUT/samples_50000x256x256x3.npz

The name says count and size, as ADM's does. `arr_0` holds the images, uint8 [N, H, W, 3], by seed; `arr_1`
their labels, int64 [N].
"""

import zipfile
from pathlib import Path

import numpy as np

from diffit.cli import Parser, UserError, progress, run
from diffit.store import files, tars


def export(folder: Path, out: Path) -> None:
    """Write the images of ``folder``, verified, to ``out``, one at a time: 50,000 of 512×512 would fill the memory.

    Raises :class:`UserError` where the name says another shape than the images have.
    """
    manifest = tars.read_manifest(folder)
    shape = (manifest["count"], manifest["resolution"], manifest["resolution"], 3)
    name = f"samples_{'x'.join(map(str, shape))}.npz"
    if out.name != name:
        raise UserError(f"the images of {folder} cannot be called {out.name}; name them {out.with_name(name)}")
    labels = np.empty(shape[0], np.int64)
    with files.atomic(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            images = progress(tars.read_images(folder), total=shape[0], desc="export", unit="img")
            for index, (_key, image, label) in enumerate(images):
                file.write(np.ascontiguousarray(image).tobytes())
                labels[index] = label
        with archive.open("arr_1.npy", "w") as file:
            np.lib.format.write_array(file, labels)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("samples", type=Path, help="folder of image tars with their manifest")
    parser.add_argument("out", type=Path, help="samples_{count}x{size}x{size}x3.npz")
    arguments = parser.parse_args()
    export(arguments.samples, arguments.out)


if __name__ == "__main__":
    run(main)
