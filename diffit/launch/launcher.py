"""The launchers by name, and the options of the training command that choose and configure one.

Another scheduler than SLURM is one module with the three functions of :class:`Launcher` and one entry in ``LAUNCHERS``.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from diffit.cli import non_negative_int, positive_int
from diffit.launch import local_launcher, slurm_launcher
from diffit.registry import Registry
from diffit.training.ranks import LAUNCHER
from diffit.training.task import Task, Train


@dataclass(frozen=True)
class Launcher:
    """A way to run a training.

    Attributes:
        name: value of ``--launcher``, and of the environment variable ``DIFFIT_LAUNCHER`` in the ranks that it starts.
        add_arguments: adds the options that only this launcher has.
        launch: runs the training command of the user: trains and puts the milestone where the workflow expects it.
            Exits with 128 + signal if a signal ended the training.
        train_rank: runs the same command in a rank that ``launch`` started.
    """

    name: str
    add_arguments: Callable[[ArgumentParser], None]
    launch: Callable[[Task, Train, Namespace], None]
    train_rank: Callable[[Task, Train], None]


LAUNCHERS = Registry(
    "launcher",
    Launcher(local_launcher.NAME, local_launcher.add_arguments, local_launcher.launch, local_launcher.train_rank),
    Launcher(slurm_launcher.NAME, slurm_launcher.add_arguments, slurm_launcher.launch, slurm_launcher.train_rank),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of all launchers. Those of a job have the names of the resources of rule train."""
    add = parser.add_argument
    add("--launcher", choices=list(LAUNCHERS), default="local", help="run the training here or submit it as a job")
    add("--nodes", type=positive_int, default=1, help="job: number of nodes")
    add("--gpu", type=non_negative_int, default=0, help="job: GPUs per node, one rank each; 0: one rank per node")
    add("--cpus-per-task", type=non_negative_int, default=0, help="job: CPUs per rank (default: the cluster's)")
    add("--mem-mb", type=non_negative_int, default=0, help="job: memory per node in MB (default: the cluster's)")
    add("--runtime", type=positive_int, default=24 * 60, metavar="MINUTES",
        help="job: time limit, at which the job is requeued and continues (default: %(default)s)")  # fmt: skip
    add("--setup", default="", metavar="LINE", help="job: shell line to run on the first node before the ranks start")
    add("--detach", action="store_true", help="job: exit after the submission instead of following the job")
    for launcher in LAUNCHERS.values():
        launcher.add_arguments(parser)


def launch(task: Task, train: Train, arguments: Namespace) -> None:
    """Run the training command with the launcher that was chosen, or as a rank if a launcher started this process."""
    if started_by := os.environ.get(LAUNCHER):
        LAUNCHERS[started_by].train_rank(task, train)
    else:
        LAUNCHERS[arguments.launcher].launch(task, train, arguments)
