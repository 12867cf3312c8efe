"""Run SLURM's commands."""

import subprocess

TIMEOUT_SECONDS = 60


class SlurmError(Exception):
    """A SLURM command failed or did not answer. The message is its last line. The state of jobs is then unknown."""


def ask(*command: str) -> str:
    """Run a SLURM command and return its output. Raises :class:`SlurmError` if it fails or does not end in time."""
    try:
        # In a session of its own, so that an interrupt from the terminal reaches only this process.
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, start_new_session=True)
    except OSError as error:
        raise SlurmError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {TIMEOUT_SECONDS} s") from None
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or [f"exit status {ended.returncode}"]
        raise SlurmError(lines[-1])
    return ended.stdout
