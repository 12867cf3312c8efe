"""Checks across the sections of a configuration: names must be defined, and the parts of a run must fit each other.

Only the configuration is read. What depends on files (the shape of a published VAE, the classes of a folder) is checked
by the commands that read them.
"""

from collections.abc import Collection

from diffit.cli import UserError, suggestion
from diffit.config import paths
from diffit.data.sources import SOURCES
from diffit.nets import NETWORKS
from diffit.process import PROCESSES
from diffit.process.samplers import SAMPLERS
from diffit.scoring.protocols import PROTOCOLS
from diffit.weights.vae_shape import known_facts


def check(config: dict) -> None:
    """Raise :class:`UserError` for the first mistake in a configuration that matches the schema."""
    for section in ("datasets", "vaes", "samplers", "runs"):
        _names(section, config[section])
    for name, sampler in config["samplers"].items():
        _shards(f"samplers.{name}", sampler)
        _noise_levels(f"samplers.{name}", sampler)
        if sampler.get("decoder"):
            require_defined(f"config: samplers.{name}.decoder", sampler["decoder"], config["vaes"])
    for name, vae in config["vaes"].items():
        if vae["kind"] == "trained":
            require_defined(f"config: vaes.{name}.dataset", vae["dataset"], config["datasets"])
            _groups(f"vaes.{name}", vae)
    for name, dataset in config["datasets"].items():
        _images(f"datasets.{name}", dataset)
        for protocol, other in dataset["references"].items():
            _reference(f"datasets.{name}.references.{protocol}", protocol, dataset, other, config["datasets"])
    for name, run in config["runs"].items():
        place = f"runs.{name}"
        require_defined(f"config: {place}.dataset", run["dataset"], config["datasets"])
        require_defined(f"config: {place}.sampler", run["sampler"], config["samplers"])
        _kinds(place, run)
        if run["vae"] is not None:
            require_defined(f"config: {place}.vae", run["vae"], config["vaes"])
            _latents(place, run, config["datasets"][run["dataset"]], config["vaes"][run["vae"]])
        else:
            _sizes(place, run, config["datasets"][run["dataset"]])
        _labels(place, run, config["datasets"][run["dataset"]])
        _paper(place, run)
        _milestones(place, run)
        check_sampler(config, name, run["sampler"])


def check_sampler(config: dict, run_name: str, sampler_name: str) -> None:
    """Raise :class:`UserError` if a run cannot be sampled with a sampler: its own, or one that a target names."""
    run, sampler = config["runs"][run_name], config["samplers"][sampler_name]
    both = f"config: runs.{run_name} cannot be sampled with samplers.{sampler_name}: "
    kinds = [name for name, one in SAMPLERS.items() if run["process"]["kind"] in one.processes]
    if sampler["kind"] not in kinds:
        raise UserError(
            f"{both}its kind is {sampler['kind']!r}, and a process of kind {run['process']['kind']!r} takes "
            f"{' or '.join(kinds)}; choose another sampler"
        )
    if PROCESSES[run["process"]["kind"]].sees != "latents":
        return
    if sampler["steps"] > run["process"]["timesteps"]:
        raise UserError(
            f"{both}{sampler['steps']} steps are more than the {run['process']['timesteps']} timesteps of its process; "
            "take fewer steps"
        )
    if sampler["guidance"]["kind"] != "none":
        _guidable(both, run, config["datasets"][run["dataset"]])
    _known_classes(both, run, config["datasets"][run["dataset"]], sampler)
    own = known_facts(config["vaes"][run["vae"]])
    channels, known = sampler["guidance"].get("channels"), own["channels"]
    if channels is not None and known is not None and channels > known:
        raise UserError(
            f"{both}it guides {channels} channels of latents that have {known}; set channels: null in its guidance "
            "for all of them"
        )
    if sampler["decoder"]:
        other = known_facts(config["vaes"][sampler["decoder"]])
        unlike = [fact for fact in own if None not in (own[fact], other[fact]) and own[fact] != other[fact]]
        if unlike:
            raise UserError(
                f"{both}its decoder {sampler['decoder']!r} has the {unlike[0]} {other[unlike[0]]} and the run's VAE "
                f"{own[unlike[0]]}; name a decoder of the same latents, or none"
            )


def require_defined(place: str, name: str, defined: Collection[str]) -> None:
    """Raise :class:`UserError` if ``name``, which ``place`` refers to, is not defined."""
    if name not in defined:
        raise UserError(f"{place} names {name!r}, which is not defined; {suggestion(str(name), defined)}")


def _reference(place: str, protocol: str, dataset: dict, name: str, datasets: dict) -> None:
    require_defined(f"config: {place}", name, datasets)
    if datasets[name]["resolution"] != dataset["resolution"]:
        raise UserError(
            f"config: {place} names {name!r}, whose resolution is {datasets[name]['resolution']} and not "
            f"{dataset['resolution']}; name one of the same resolution"
        )
    if SOURCES[datasets[name]["source"]].statistics and not PROTOCOLS[protocol].published_statistics:
        others = " or ".join(f"references.{other}" for other, one in PROTOCOLS.items() if one.published_statistics)
        raise UserError(
            f"config: {place} names {name!r}, whose published statistics the protocol {protocol} does not use; move it "
            f"to {others}"
        )


def _names(section: str, names: Collection[str]) -> None:
    """Names become folders: none may be one that the workflow makes itself, or differ from another in case only."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in paths.FOLDERS:
            raise UserError(f"config: {section}.{name} has the name of a folder of the workflow itself; rename it")
        if name.lower() in seen:
            raise UserError(
                f"config: {section}.{name} and {section}.{seen[name.lower()]} differ only in capital letters, which "
                "some file systems do not tell apart; rename one of them"
            )
        seen[name.lower()] = name


def _images(place: str, dataset: dict) -> None:
    """A data set cannot have more shards than images, where its source says how many there are."""
    count = SOURCES[dataset["source"]].images
    if count and not dataset.get("subset") and dataset["shards"] > count:
        raise UserError(f"config: {place}.shards is {dataset['shards']}, but it has only {count} images; lower shards")


def _sizes(place: str, run: dict, dataset: dict) -> None:
    """The sizes of a network for images must fit each other and the resolution of its data set."""
    try:
        NETWORKS[run["net"]["kind"]].check({**run["net"], "resolution": dataset["resolution"]})
    except ValueError as error:
        raise UserError(
            f"config: {place}.net: {error}; change it, or the resolution of the data set {run['dataset']!r}"
        ) from None


def _noise_levels(place: str, sampler: dict) -> None:
    low, high = sampler.get("sigma_min"), sampler.get("sigma_max")
    if low is not None and high is not None and low >= high:
        raise UserError(f"config: {place}.sigma_min {low} is not below sigma_max {high}; choose a smaller one")


def _shards(place: str, sampler: dict) -> None:
    first, count, block = sampler["first_seed"], sampler["images"] * sampler["sets"], sampler["block"]
    blocks = -(-(first + count) // block) - first // block
    if sampler["shards"] > blocks:
        raise UserError(
            f"config: {place}.shards is {sampler['shards']}, but {count} images are only {blocks} blocks "
            f"of {block}; ask for at most {blocks} shards"
        )


def _kinds(place: str, run: dict) -> None:
    """Network, process, VAE and published weights of a run must all be for images or all for latents."""
    net, process = run["net"]["kind"], run["process"]["kind"]
    latent = NETWORKS[net].sees == "latents"
    expected = [name for name, one in PROCESSES.items() if one.sees == NETWORKS[net].sees]
    if process not in expected:
        choice = " or ".join(map(repr, expected))
        raise UserError(f"config: {place}.process.kind is {process!r}; a net of kind {net!r} takes {choice}")
    if "weights" in run and net != "latent":
        raise UserError(
            f"config: {place}.weights are for a net of kind 'latent', and its net is {net!r}; remove weights"
        )
    if latent != (run["vae"] is not None):
        wanted = "needs a vae: add it" if latent else "sees images: remove vae"
        raise UserError(f"config: {place} with a net of kind {net!r} {wanted}; docs/config.md explains it")


def _latents(place: str, run: dict, dataset: dict, vae: dict) -> None:
    """Sizes must divide: the image's by the VAE's factor, the latent's by the patch, the token's width by the heads."""
    net, factor, resolution = run["net"], known_facts(vae)["factor"], dataset["resolution"]
    if factor and resolution % factor:
        raise UserError(
            f"config: {place}.vae shortens sides by {factor}, which does not divide the resolution "
            f"{resolution} of its data set; choose another resolution or another VAE"
        )
    if factor and "patch_size" in net and (resolution // factor) % net["patch_size"]:
        raise UserError(
            f"config: {place}.net.patch_size {net['patch_size']} does not divide the latents' side "
            f"{resolution // factor}; choose one that does"
        )
    if "hidden_size" not in net:
        return
    for key, number in [("num_heads", net["num_heads"]), ("the 4 parts of the position table,", 4)]:
        if net["hidden_size"] % number:
            raise UserError(
                f"config: {place}.net.hidden_size {net['hidden_size']} is not a multiple of {key} {number}; choose one "
                "that is"
            )


def _labels(place: str, run: dict, dataset: dict) -> None:
    """Class accuracy needs a data set with classes; published weights must have as many classes as the data set."""
    if run["class_accuracy"] and not dataset.get("labels", True):
        raise UserError(
            f"config: {place}.class_accuracy needs classes; set labels: true for the data set {run['dataset']!r}, or "
            "remove class_accuracy"
        )
    classes = SOURCES[dataset["source"]].classes
    if "weights" in run and dataset.get("labels", True) and classes and run["weights"]["classes"] != classes:
        raise UserError(
            f"config: {place}.weights.classes is {run['weights']['classes']}, and {run['dataset']} has {classes}; "
            "name weights of as many classes"
        )


def _paper(place: str, run: dict) -> None:
    """A published value is compared under its own protocol, so the run must be scored by it."""
    paper = run["paper"]
    if len(paper) > len(("source", "protocol", "statistic")) and paper["protocol"] not in run["protocols"]:
        raise UserError(
            f"config: {place}.paper is of the protocol {paper['protocol']!r}, which is not among the run's protocols "
            f"{run['protocols']}; add it there"
        )


def _milestones(place: str, run: dict) -> None:
    if "weights" in run and "untrained" in run["baselines"]:
        raise UserError(f"config: {place}.baselines has 'untrained', but its weights are published; remove it there")
    if "milestones" in run and run["milestones"] != sorted(set(run["milestones"])):
        raise UserError(f"config: {place}.milestones must increase without repetition: {run['milestones']}")


def _groups(place: str, vae: dict) -> None:
    for channels in vae["channels"]:
        if channels % vae["groups"]:
            raise UserError(
                f"config: {place}.groups {vae['groups']} does not divide its channels {channels}; choose a number that "
                "divides all of them"
            )


def _known_classes(both: str, run: dict, dataset: dict, sampler: dict) -> None:
    """Classes that a sampler lists must be classes of the network, where the configuration tells how many there are."""
    labelled = dataset.get("labels", True)
    classes = run["weights"]["classes"] if "weights" in run else SOURCES[dataset["source"]].classes if labelled else 0
    if classes is not None and isinstance(sampler["labels"], list) and max(sampler["labels"]) >= classes:
        raise UserError(
            f"{both}its labels have the class {max(sampler['labels'])}, and the network has {classes} classes, counted "
            "from 0; correct labels"
        )


def _guidable(both: str, run: dict, dataset: dict) -> None:
    """Classifier-free guidance needs a network that was trained with classes and, for some images, without them."""
    classes = run["weights"]["classes"] if "weights" in run else dataset.get("labels", True)
    if not classes:
        raise UserError(
            f"{both}it is guided by classes, but the network has none; set labels: true for the data set "
            f"{run['dataset']!r}, or take a sampler with guidance: {{kind: none}}"
        )
    if "weights" not in run and not run["process"]["label_dropout"]:
        raise UserError(
            f"{both}it is guided, but with label_dropout: 0 the network never sees an image without its class; give "
            "the run's process a label_dropout such as 0.1, or take a sampler with guidance: {kind: none}"
        )
