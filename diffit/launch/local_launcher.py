"""Launcher ``local``: train in this process or, with ``--ranks``, in several processes of this machine."""

import sys
from argparse import ArgumentParser, Namespace

from diffit.cli import positive_int
from diffit.launch import local_ranks
from diffit.runs import run_record
from diffit.runs.run_lock import lock
from diffit.training import ranks
from diffit.training.task import Task, Train

NAME = local_ranks.NAME


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of this launcher."""
    parser.add_argument("--ranks", type=positive_int, default=1, help="local: number of processes")


def launch(task: Task, train: Train, arguments: Namespace) -> None:
    """Train up to the milestone, holding the run's lock.

    If another process already trains the run beyond the milestone, wait only until it has written the milestone.
    """
    with lock(task.state / "lock", give_up=task.is_reached) as held:
        run_record.record_identity(task.state, task.identity)
        if held and not task.is_reached():
            task.prepare_leg()
            if arguments.ranks == 1:
                _train(task, train, ranks.Place())
            elif status := local_ranks.start(arguments.ranks, local_ranks.this_command()):
                sys.exit(status)
        task.deliver()


def train_rank(task: Task, train: Train) -> None:
    """Train as one of several ranks. The process that started them holds the lock."""
    _train(task, train, local_ranks.place())


def _train(task: Task, train: Train, place: ranks.Place) -> None:
    with ranks.join(place) as rank:
        stop_signal = train(task, rank)
    if stop_signal:
        sys.exit(128 + stop_signal)
