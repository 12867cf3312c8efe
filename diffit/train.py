"""Train a run up to a milestone, from wherever its state stands.

Whatever a step needs is a pure function of the run's seed and of the number of images seen, so a run that was killed
and started again ends with the same weights as one that never was. The state lives beside the milestones (see
diffit/runs/); the same command begins, continues, or finds that there is nothing left to do.
"""

from argparse import Namespace
from pathlib import Path

from diffit.cli import Parser, json_argument, non_negative_int, positive_int, run_command
from diffit.launch import launcher
from diffit.store.manifest import read_manifest
from diffit.training.task import Machine, Task, identity
from diffit.training.trainer import train


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="the run's description as a JSON object")
    parser.add_argument("data", type=Path, help="the data set's folder with its manifest.json")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--milestone", type=non_negative_int, required=True, metavar="KIMG", help="train until here")
    parser.add_argument("--publish", nargs="*", type=non_negative_int, default=[], metavar="KIMG", help="earlier ones")
    launcher.add_arguments(parser)
    parser.add_argument("--microbatch", type=positive_int, help="images per rank and pass (default: batch / ranks)")
    parser.add_argument("--workers", type=non_negative_int, default=0, help="loader processes a rank")
    parser.add_argument("--compile", action="store_true", help="compile the network where a compiler is found")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="time between checkpoints")
    parser.add_argument("--stage-to", type=Path, metavar="FOLDER", help="copy latents to this node-local folder first")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    run_identity = identity(arguments.spec, read_manifest(arguments.data))
    machine = Machine(
        arguments.microbatch,
        arguments.workers,
        arguments.compile,
        arguments.gradient_checkpointing,
        arguments.checkpoint_minutes,
        arguments.stage_to / run_identity["data_sha256"] if arguments.stage_to else None,
    )
    task = Task(run_identity, arguments.data, arguments.run, machine, arguments.milestone, arguments.publish)
    launcher.launch(task, train, arguments)


if __name__ == "__main__":
    run_command(main)
