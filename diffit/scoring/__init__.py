"""Comparing generated with real images: protocols, features, metrics."""
