"""Small versions of the released latent network, for which there are reference weights, inputs and outputs."""

from diffit.nets.latent import LatentConfig

GOLDENS = {
    "latent_diffit_constant_cfg": LatentConfig(
        input_size=36, channels=4, patch_size=4, hidden_size=32, depth=2, num_heads=2, mlp_ratio=4, num_classes=7
    ),
    "latent_diffit_power_cosine": LatentConfig(
        input_size=8, channels=4, patch_size=2, hidden_size=48, depth=3, num_heads=4, mlp_ratio=4, num_classes=10
    ),
}


def released(tensors):
    """The state dict in a file of reference tensors."""
    return {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
