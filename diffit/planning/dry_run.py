"""What Snakemake would run now: its dry run, read through a logger plugin.

    python -m diffit.planning.dry_run SNAKEMAKE_ARGUMENTS

prints one JSON object a line, first where the workflow stands and what configures it, then each job. The dry run's own
text will not do: where a rule has a message for people, it names neither rule nor wildcards.
"""

import hashlib
import json
import logging
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
from diffit.config.toy_runs import complete


@dataclass(frozen=True)
class Job:
    """One job: its rule, the values of the rule's wildcards, and the resources that rule and profile give it."""

    rule: str
    wildcards: dict[str, str]
    resources: dict[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Workflow:
    """What would run, under which configuration, and the folder that ``results/`` lies in."""

    jobs: list[Job]
    config: dict
    folder: Path


class LogHandler(LogHandlerBase):
    """Snakemake's records as JSON lines on stdout; its errors, without their places in the rules, on stderr."""

    writes_to_stream = has_filter = has_formatter = True
    writes_to_file = needs_rulegraph = False

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.WORKFLOW_STARTED:
            # The workflow's own files, as strings, count first; those of the command line, as paths, change them.
            files = sorted(record.configfiles, key=lambda file: isinstance(file, Path))
            self._tell(
                sources=record.basedir,
                folder=str(Path.cwd()),
                configfiles=[str(Path(file).absolute()) for file in files],
                config_md5=record.config_md5,
            )
        elif event == LogEvent.JOB_INFO:
            # What depends on the size of an input that is not there yet is no number.
            resources = {name: value for name, value in record.resources.items() if isinstance(value, int | str)}
            self._tell(rule=record.rule_name, wildcards=dict(record.wildcards), resources=resources)
        elif record.levelno >= logging.ERROR:
            print("error:", record.getMessage().splitlines()[-1], file=sys.stderr, flush=True)

    def _tell(self, **values: object) -> None:
        print(json.dumps(values), flush=True)


def planned(goals: Sequence[str], options: Sequence[str]) -> Workflow:
    """Ask Snakemake, with its own ``options``, what the goals still need; without goals, its default target.

    Raises :class:`UserError` with Snakemake's reason where there is no way to a goal.
    """
    command = [sys.executable, "-m", "diffit.planning.dry_run", "--dry-run", "--logger", "jobs", *options, "--", *goals]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(f"Snakemake has no plan: {reason.removeprefix('error: ').removeprefix('Error: ')}")
    header, *lines = map(json.loads, ended.stdout.splitlines())
    jobs = [Job(**line) for line in lines]
    return Workflow(jobs, _configuration(header), Path(header["folder"]))


def _configuration(header: dict) -> dict:
    """The configuration of a dry run, put together as Snakemake did, and compared with what it had."""
    config: dict = {}
    for file in header["configfiles"]:
        update_config(config, load_configfile(file))
    complete(config, Path(header["sources"]))
    if hashlib.md5(json.dumps(config, sort_keys=True).encode()).hexdigest() != header["config_md5"]:
        raise UserError(
            f"the configuration is not the one in {' and '.join(header['configfiles'])}: the profile changes it; "
            "write its values into a file and name that with --configfile"
        )
    return config


if __name__ == "__main__":
    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_jobs", sys.modules[__name__])
    snakemake()
