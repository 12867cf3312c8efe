"""Train a run up to a milestone, starting from its newest checkpoint.

Each step is a pure function of the run's seed and the number of images seen, so a run that is killed and restarted ends
with the same weights as an uninterrupted one. The state is in the run's folder (see diffit/runs/). The same command
starts a run, continues it, or finds that the milestone is already reached.
"""

from argparse import Namespace
from pathlib import Path

from diffit.cli import Parser, non_negative_int, non_negative_number, positive_int, run_command
from diffit.config.schema import run_schema
from diffit.launch import launcher
from diffit.registry.arguments import described
from diffit.store.manifest import read_manifest
from diffit.training.task import Machine, Task, identity
from diffit.training.trainer import train


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "spec",
        type=described("the run", run_schema),
        help="the run as a JSON object: dataset, seed, net, process, training",
    )
    parser.add_argument("data", type=Path, help="folder of images or latents, with manifest.json")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--kimg", type=non_negative_int, required=True, help="milestone to reach, in thousand images")
    parser.add_argument(
        "--also-kimg", nargs="*", type=non_negative_int, default=[], help="milestones to write on the way"
    )
    launcher.add_arguments(parser)
    parser.add_argument("--microbatch", type=positive_int, help="images per rank and pass (default: batch / ranks)")
    parser.add_argument(
        "--workers", type=non_negative_int, default=0, help="loader processes per rank (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network if a compiler is installed")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="recompute activations: less memory, more time"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=non_negative_number, default=10, help="minutes between checkpoints"
    )
    parser.add_argument(
        "--skip-step",
        type=non_negative_int,
        action="append",
        default=[],
        metavar="STEP",
        help="if the loss or gradient of this step is not finite, skip its update instead of ending the run; the error "
        "message names the step; may be repeated",
    )
    parser.add_argument("--stage-to", type=Path, metavar="FOLDER", help="first copy latents to this node-local folder")
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
        frozenset(arguments.skip_step),
    )
    task = Task(run_identity, arguments.data, arguments.run, machine, arguments.kimg, arguments.also_kimg)
    launcher.launch(task, train, arguments)


if __name__ == "__main__":
    run_command(main)
