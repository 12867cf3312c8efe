"""Ask Snakemake what it would run: its dry run, read through a logger plugin.

    python -m diffit.planning.dry_run SNAKEMAKE_ARGUMENTS

prints JSON objects, one per line: first the workflow's folder and configuration, then each job. Snakemake's own text
cannot be parsed, because it shows a rule's message instead of the rule's name and wildcards.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snakemake.cli import main as snakemake
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from diffit.cli import UserError
from diffit.config.targets import TOLERANT
from diffit.config.toy_runs import complete


@dataclass(frozen=True)
class Job:
    """A job: its rule, the values of the wildcards, and the resources from the rule and the profile."""

    rule: str
    wildcards: dict[str, str]
    resources: dict[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Workflow:
    """The jobs that would run, the configuration, and the folder that contains ``results/``."""

    jobs: list[Job]
    config: dict
    folder: Path


class LogHandler(LogHandlerBase):
    """Print Snakemake's records as JSON lines on stdout, and its errors on stderr without line numbers of rules."""

    writes_to_stream = has_filter = has_formatter = True
    writes_to_file = needs_rulegraph = False

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.WORKFLOW_STARTED:
            # The workflow's own files are strings and come first; files of the command line are paths and override.
            files = sorted(record.configfiles, key=lambda file: isinstance(file, Path))
            self._print(
                sources=record.basedir,
                folder=str(Path.cwd()),
                configfiles=[str(Path(file).absolute()) for file in files],
                config_md5=record.config_md5,
            )
        elif event == LogEvent.JOB_INFO:
            # A resource that depends on the size of a missing input is not a number.
            resources = {name: value for name, value in record.resources.items() if isinstance(value, int | str)}
            self._print(rule=record.rule_name, wildcards=dict(record.wildcards), resources=resources)
        elif record.levelno >= logging.ERROR:
            print("Snakemake:", record.getMessage().splitlines()[-1], file=sys.stderr, flush=True)

    def _print(self, **values: object) -> None:
        print(json.dumps(values), flush=True)


def dry_run(goals: Sequence[str], options: Sequence[str]) -> Workflow:
    """Ask Snakemake, with its command-line ``options``, what the goals still need; without goals, its default target.

    Raises :class:`UserError` with Snakemake's reason if a goal cannot be made.
    """
    command = [sys.executable, "-m", "diffit.planning.dry_run", "--dry-run", "--logger", "jobs", *options, "--", *goals]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, TOLERANT: "1"})
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["it printed no reason"])[-1]
        if reason.startswith("error: "):  # a sentence of this project
            raise UserError(reason.removeprefix("error: "))
        reason = reason.removeprefix("Snakemake: ").removeprefix("Error: ")
        raise UserError(f"Snakemake cannot plan this: {reason}")
    header, *lines = map(json.loads, ended.stdout.splitlines())
    jobs = [Job(**line) for line in lines]
    return Workflow(jobs, _configuration(header), Path(header["folder"]))


def _configuration(header: dict) -> dict:
    """The configuration of a dry run, merged as Snakemake merges it, and checked against Snakemake's."""
    config: dict = {}
    for file in header["configfiles"]:
        update_config(config, load_configfile(file))
    complete(config, Path(header["sources"]))
    if hashlib.md5(json.dumps(config, sort_keys=True).encode()).hexdigest() != header["config_md5"]:
        raise UserError(
            f"the profile changes the configuration in {' and '.join(header['configfiles'])}; "
            "write its values into a file and name the file with --configfile"
        )
    return config


if __name__ == "__main__":
    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_jobs", sys.modules[__name__])
    snakemake()
