"""Train a run: loaders, trainer, moving average, ranks."""
