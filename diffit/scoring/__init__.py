"""Comparing generated with real images: protocols, metrics, Inception's features, references."""
