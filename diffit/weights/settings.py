"""The keys of a VAE and of published weights in the configuration, as JSON schemas."""

from diffit.registry import COUNT, COUNTS, NATURAL, NUMBER, POSITIVE, SHA1, SHA256, TEXT, by_kind, default, nullable
from diffit.registry.settings import Setting

VAES: dict[str, dict[str, Setting]] = {
    "published": {
        "repository": default(TEXT, "stabilityai/sd-vae-ft-ema"),
        "revision": default(SHA1, "f04b2c4b98319346dad8c65879f680b1997b204a"),
        "path": default(nullable(TEXT), None),
        "scale": default(POSITIVE, 0.18215),
    },
    "trained": {
        "dataset": TEXT,
        "seed": default(NATURAL, 0),
        "latent_channels": default(COUNT, 4),
        "channels": COUNTS,
        "layers": default(COUNT, 1),
        "groups": default(COUNT, 8),
        "steps": {"type": "integer", "minimum": 20},  # the learning rate rises during the first tenth
        "batch": COUNT,
        "learning_rate": POSITIVE,
        "kl_weight": {"type": "number", "minimum": 0},
        "least_psnr": default(NUMBER, 0),
    },
}

# Published weights, in place of a training.
WEIGHTS: dict[str, Setting] = {
    "repository": TEXT,
    "file": TEXT,
    "classes": NATURAL,
    "revision": default(nullable(TEXT), None),
    "path": default(nullable(TEXT), None),
    "sha256": default(nullable(SHA256), None),
}


def one_kind(name: str) -> dict:
    """The JSON schema of a VAE of one kind."""
    schema = vae_schema()
    schema["properties"]["kind"] = {"enum": [name], "default": name}
    return schema


def vae_schema() -> dict:
    """The JSON schema of a VAE. Another published VAE than the default one needs its own revision and scale."""
    schema = by_kind("kind", VAES, "published")
    together = {"repository": ["revision", "scale"], "path": ["scale"]}
    # It comes before the properties, which fill in defaults.
    schema["allOf"][0]["then"] = {"dependentRequired": together, **schema["allOf"][0]["then"]}
    return schema
