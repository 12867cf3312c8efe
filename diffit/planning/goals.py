"""The command-line arguments that name what is to be made, which plan and preflight share."""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from diffit.cli import Parser, UserError, positive_int
from diffit.config.cross_checks import require_defined
from diffit.config.yaml_files import read_mapping
from diffit.planning.dry_run import Workflow, dry_run


def add_goal_arguments(parser: Parser, profile: str) -> None:
    """Add the arguments that :func:`planned_workflow` reads; ``profile`` is the default of ``--profile``."""
    parser.add_argument("goals", nargs="*", metavar="GOAL", help="files to make, such as results/digits_fid.csv")
    parser.add_argument("--profile", default=profile, help="Snakemake's profile (default: %(default)s)")
    parser.add_argument("-s", "--snakefile", type=Path, help="passed to Snakemake")
    parser.add_argument("-d", "--directory", type=Path, help="the folder of results/, passed to Snakemake")
    parser.add_argument("--configfile", type=Path, action="append", default=[], help="passed to Snakemake; repeatable")
    parser.add_argument(
        "--images", type=_dataset_and_count, action="append", default=[], metavar="DATASET=COUNT",
        help="number of images in a folder that is not downloaded yet; repeatable",
    )  # fmt: skip


def planned_workflow(arguments: Namespace) -> Workflow:
    """What Snakemake would run for the goals of the command line.

    Raises :class:`UserError` for a file or folder that does not exist, a data set that is not defined, and a goal that
    cannot be made.
    """
    for path in arguments.configfile:
        read_mapping(path)
    if arguments.snakefile and not arguments.snakefile.is_file():
        raise UserError(f"--snakefile: {arguments.snakefile} does not exist; name the workflow's Snakefile")
    if arguments.directory and not arguments.directory.is_dir():
        raise UserError(f"--directory: {arguments.directory} is not a folder; name the folder of results/")
    options = ["--profile", arguments.profile]
    for name in ("snakefile", "directory"):
        if value := getattr(arguments, name):
            options += [f"--{name}", str(value)]
    if arguments.configfile:
        options += ["--configfile", *map(str, arguments.configfile)]
    workflow = dry_run(arguments.goals, options)
    for name, _ in arguments.images:
        require_defined("--images", name, workflow.config["datasets"])
    return workflow


def _dataset_and_count(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not (name and equals):
        raise ArgumentTypeError(f"{text!r} is not DATASET=COUNT, such as ffhq64=70000")
    return name, positive_int(count)
