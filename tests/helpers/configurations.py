"""The small data sets, VAEs and runs that tests share."""

DIGITS = {
    "source": "digits",
    "resolution": 8,
    "path": None,
    "labels": False,
    "resize": "center-crop",
    "min_side": 8,
}


# Digits of 8×8 pixels become latents of 4×4×4.
SMALL_VAE = {
    "kind": "trained", "dataset": "digits", "seed": 0, "latent_channels": 4, "channels": [8, 8], "layers": 1,
    "groups": 4, "steps": 20, "batch": 16, "learning_rate": 3e-3, "kl_weight": 4e-3, "least_psnr": 0,
}  # fmt: skip

# A run that trains 1,000 images in seconds. Dropout is on, so that its draws count as well.
TINY_RUN = {
    "dataset": "digits",
    "seed": 0,
    "net": {
        "kind": "ushaped", "width": 16, "multipliers": [1, 2], "blocks": 1, "window": 4, "head_dim": 8,
        "mlp_ratio": 2, "time_dim": 32, "groups": 4, "dropout": 0.1,
    },
    "process": {
        "kind": "edm", "sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2,
        "augment": {"probability": 0.2, "xflip": True},
    },
    "training": {
        "batch": 16, "optimizer": "adam", "learning_rate": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0,
        "warmup_kimg": 0.1, "ema_halflife_kimg": 0.2, "ema_rampup": 0.05, "precision": "float32",
    },
}  # fmt: skip
