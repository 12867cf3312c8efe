"""The single checks of preflight."""
