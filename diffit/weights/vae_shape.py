"""The shape of a VAE, as far as the config determines it before the VAE's files exist."""

# Shape of the published VAEs of Stable Diffusion.
PUBLISHED_SHAPE = {"latent_channels": 4, "channels": [128, 256, 512, 512], "layers": 2, "groups": 32}
_PUBLISHED_REPOSITORIES = "stabilityai/sd-vae-ft-"


def expected_shape(described: dict) -> dict:
    """``latent_channels``, ``channels`` per level, ``layers`` and ``groups`` of a VAE in the config.

    Published VAEs are assumed to have the shape of Stable Diffusion's.
    """
    return {key: described.get(key, value) for key, value in PUBLISHED_SHAPE.items()}


def factor_of(shape: dict) -> int:
    """The factor by which a VAE shortens the sides of images. Each level except the last halves them."""
    return 2 ** (len(shape["channels"]) - 1)


def known_facts(described: dict) -> dict:
    """Factor, channels and scale of the latents; None for values that are known only from the VAE's files."""
    if described["kind"] == "trained":
        return {"factor": factor_of(described), "channels": described["latent_channels"], "scale": None}
    if described["path"] is None and described["repository"].startswith(_PUBLISHED_REPOSITORIES):
        factor, channels = factor_of(PUBLISHED_SHAPE), PUBLISHED_SHAPE["latent_channels"]
        return {"factor": factor, "channels": channels, "scale": described["scale"]}
    return {"factor": None, "channels": None, "scale": described["scale"]}
