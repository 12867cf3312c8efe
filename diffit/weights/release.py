"""release: write published weights of a latent network as a milestone, which is sampled and scored like any other.

    python -m diffit.weights.release SPEC_JSON VAE_FOLDER results/runs/{run}/released

The weights come from a local file or from the Hugging Face hub. Names, shapes and element types of all weights are
compared with the network in the run's config before anything is written.
"""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from diffit import nets, process
from diffit.cli import Parser, UserError, run_command
from diffit.fetch import hub
from diffit.nets import build
from diffit.nets.latent import load_released
from diffit.registry import RESOLUTION, TEXT, object_schema
from diffit.registry.arguments import described
from diffit.store import files
from diffit.weights import milestone, vae
from diffit.weights.settings import WEIGHTS

log = logging.getLogger("diffit")


def release(spec: dict, vae_folder: Path, out: Path) -> None:
    """Write published weights as the milestone ``out``.

    Args:
        spec: dataset, resolution, net, process and weights of the run.
        vae_folder: the VAE of the run, which determines size and channels of the latents.
        out: the milestone's folder, results/runs/{run}/released. Downloads stay in results/runs/.downloads.

    Raises :class:`UserError` if the weights are missing, cannot be downloaded, or do not match the network.
    """
    weights, vae_facts = spec["weights"], vae.read_facts(vae_folder)
    net_spec = {
        **spec["net"],
        "input_size": vae.latent_size(spec["resolution"], vae_facts["factor"]),
        "channels": vae_facts["channels"],
        "num_classes": weights["classes"],
    }
    path, origin = _local_file(weights, out.parents[1] / hub.FOLDER)
    sha256 = _verified_sha256(path, weights["sha256"])
    net = _loaded_network(net_spec, path)
    facts = {
        "dataset": spec["dataset"],
        "resolution": spec["resolution"],
        "net": net_spec,
        "process": spec["process"],
        "vae": vae_facts,
        "kimg": "released",
        "images_trained": None,
        "data_sha256": None,
        "commit": origin,
        "published_sha256": sha256,
    }
    milestone.write(out, net, facts)
    log.info("%s: %s parameters", origin, f"{sum(p.numel() for p in net.parameters()) + net.pos_embed.numel():,}")


def _local_file(weights: dict, downloads: Path) -> tuple[Path, str]:
    """The weights as a local file, downloaded from the hub if the config gives no path, and where they come from."""
    name, repository = weights["file"], weights["repository"]
    if weights["path"]:
        path = files.user_file(weights["path"], "weights.path", f"put {name} of {repository} there")
        return path, str(path)
    instead = f"put {name} on this machine and set weights.path in the run's config to it"
    source = hub.Repository(repository, weights["revision"], instead)
    commit, (path,) = hub.files(source, [name], downloads)
    return path, f"{repository}@{commit}"


def _verified_sha256(path: Path, expected: str | None) -> str:
    sha256 = files.sha256(path)
    if expected not in (None, sha256):
        raise UserError(
            f"{path} has the sha256 {sha256} instead of {expected}; get the file again, or correct weights.sha256 in "
            "the run's config"
        )
    return sha256


def _loaded_network(net_spec: dict, path: Path) -> nn.Module:
    """The network with the weights in a safetensors file. It is built without memory for weights of its own."""
    with torch.device("meta"):
        net = build(net_spec)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); get the file again") from None
    try:
        load_released(net, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return net


def _schema() -> dict:
    """The schema of the command's first argument."""
    parts = {"net": nets.schema(), "process": process.schema(), "weights": object_schema(WEIGHTS)}
    return object_schema({"dataset": TEXT, "resolution": RESOLUTION, **parts})


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "spec",
        type=described("the run", _schema),
        help="the run as a JSON object: dataset, resolution, net, process, weights",
    )
    parser.add_argument("vae", type=Path, help="the VAE's folder, results/vaes/{vae}")
    parser.add_argument("out", type=Path, help="the milestone's folder, results/runs/{run}/released")
    arguments = parser.parse_args()
    release(arguments.spec, arguments.vae, arguments.out)


if __name__ == "__main__":
    run_command(main)
