"""Random numbers and floating-point precision."""
