"""Training a run: loader, trainer, averages, checkpoints, logs, ranks."""
