"""Weights on disk: milestones of runs, published weights, VAEs."""
