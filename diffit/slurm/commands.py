"""SLURM's commands: how they are asked, and what it means when they do not answer."""

import subprocess

PATIENCE_SECONDS = 60


class SlurmError(Exception):
    """A command of SLURM failed or did not answer; the message is its last line. Nothing can be concluded from it."""


def ask(*command: str) -> str:
    """What a command of SLURM prints; :class:`SlurmError` where it fails or does not end."""
    try:
        # A session of its own: an interrupt from the terminal is for this process to handle.
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, start_new_session=True
        )
    except OSError as error:
        raise SlurmError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer in {PATIENCE_SECONDS} s") from None
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines() or [f"exit status {ended.returncode}"]
        raise SlurmError(said[-1])
    return ended.stdout
