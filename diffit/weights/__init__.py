"""Weights on disk: milestones of runs, VAEs, published weights."""
