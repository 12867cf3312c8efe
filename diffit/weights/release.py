"""release: published weights of a latent network as a milestone, so that they are sampled and scored like any other.

    python -m diffit.weights.release SPEC_JSON VAE_FOLDER results/runs/{run}/released

The weights come from a local file or from the hub. Every key, shape and element type is compared with the network
that the run describes before anything is written.
"""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffit.cli import Parser, UserError, json_argument, run_command
from diffit.nets import build
from diffit.nets.latent import load_released
from diffit.store import files
from diffit.weights import milestone, vae

log = logging.getLogger("diffit")


def release(spec: dict, vae_folder: Path, out: Path) -> None:
    """Write the milestone ``out``: the weights that ``spec["weights"]`` names, and all that sampling needs to know.

    Raises :class:`UserError` that says what to put where when the weights cannot be had, and what differs when they
    are not those of the network.
    """
    weights, vae_facts = spec["weights"], vae.read_facts(vae_folder)
    shape = {
        "input_size": vae.latent_size(spec["resolution"], vae_facts["factor"]),
        "channels": vae_facts["channels"],
        "num_classes": weights["classes"],
    }
    with torch.device("meta"):
        net = build({**spec["net"], **shape})
    path, origin = _local(weights)
    sha256 = files.sha256(path)
    if weights["sha256"] not in (None, sha256):
        raise UserError(
            f"{path} has the sha256 {sha256} instead of {weights['sha256']}; get the file again, or correct sha256 "
            "under weights in the run's config"
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is no readable safetensors file ({error}); get it again") from None
    try:
        load_released(net, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    facts = {
        "dataset": spec["dataset"],
        "resolution": spec["resolution"],
        "net": {**spec["net"], **shape},
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


def _local(weights: dict) -> tuple[Path, str]:
    """The weights as a file on this machine, and where they come from."""
    if weights["path"]:
        path = Path(weights["path"]).expanduser()
        if not path.is_file():
            raise UserError(f"path: {path} is no file here; put {weights['file']} of {weights['repository']} there")
        return path, str(path)
    from huggingface_hub import hf_hub_download  # here, since a local file needs no hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = Path(hf_hub_download(weights["repository"], weights["file"], revision=weights["revision"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{weights['file']} of {weights['repository']} could not be had ({reason}); put it on this machine and "
            "name it under weights.path in the run's config"
        ) from error
    return path, f"{weights['repository']}@{path.parent.name}"  # the hub's cache names folders by commit


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="JSON: dataset, resolution, net, process, weights")
    parser.add_argument("vae", type=Path, help="the VAE's folder, results/vaes/{vae}")
    parser.add_argument("out", type=Path, help="the milestone's folder, results/runs/{run}/released")
    arguments = parser.parse_args()
    release(arguments.spec, arguments.vae, arguments.out)


if __name__ == "__main__":
    run_command(main)
