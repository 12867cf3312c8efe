"""The checks of preflight."""
