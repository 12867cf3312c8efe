"""Random numbers, floating-point precision and pixel ranges."""
