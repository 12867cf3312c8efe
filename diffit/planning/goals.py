"""The command-line arguments that name what is to be made, which plan and preflight share."""

from argparse import Namespace
from pathlib import Path

from diffit.cli import Parser, positive_int
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
    """What Snakemake would run for the goals of the command line."""
    options = ["--profile", arguments.profile]
    for name in ("snakefile", "directory"):
        if value := getattr(arguments, name):
            options += [f"--{name}", str(value)]
    if arguments.configfile:
        options += ["--configfile", *map(str, arguments.configfile)]
    return dry_run(arguments.goals, options)


def _dataset_and_count(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    return name, positive_int(count)
