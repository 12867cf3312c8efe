"""Reading what a user wrote: ``config.yaml`` against its schema, with one sentence for each mistake."""

import copy
import difflib
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, validators

from diffit.cli import UserError


def _with_defaults(validator_class):
    """A validator that fills in the schema's ``default`` of each missing key before it looks at the properties."""
    check_properties = validator_class.VALIDATORS["properties"]

    def fill(validator, properties, instance, schema):
        if isinstance(instance, dict):
            for key, rule in properties.items():
                if "default" in rule:
                    instance.setdefault(key, copy.deepcopy(rule["default"]))
        yield from check_properties(validator, properties, instance, schema)

    # 4.0 is a whole number to JSON, and no count of pieces to anything else.
    whole = validator_class.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return validators.extend(validator_class, {"properties": fill}, type_checker=whole)


def validate(config: dict, schema_path: Path) -> dict:
    """Fill in the schema's defaults and check a configuration in place; return it.

    Raises :class:`UserError` for the first mistake, places in alphabetical order, with the nearest valid spelling
    where a key or a name is unknown. References between sections (a run's data set, its sampler) are checked as well.
    """
    schema = yaml.safe_load(schema_path.read_text())
    if errors := list(_with_defaults(Draft202012Validator)(schema).iter_errors(config)):
        # Their own order is that of a set, another in each process.
        raise UserError(_sentence(min(errors, key=lambda error: [str(part) for part in error.absolute_path])))
    for name, sampler in config["samplers"].items():
        first, count, block = sampler["first_seed"], sampler["images"], sampler["block"]
        blocks = -(-(first + count) // block) - first // block
        if sampler["pieces"] > blocks:
            raise UserError(
                f"config: samplers.{name}.pieces is {sampler['pieces']}, but {count} images are only {blocks} blocks "
                f"of {block}; ask for at most {blocks} pieces"
            )
        if sampler.get("decoder"):
            _known(f"samplers.{name}.decoder", sampler["decoder"], config["vaes"])
    for name, vae in config["vaes"].items():
        if vae["kind"] == "trained":
            _known(f"vaes.{name}.dataset", vae["dataset"], config["datasets"])
    for name, run in config["runs"].items():
        _known(f"runs.{name}.dataset", run["dataset"], config["datasets"])
        _known(f"runs.{name}.sampler", run["sampler"], config["samplers"])
        _fit(f"runs.{name}", run, config["samplers"][run["sampler"]])
        if run["vae"] is not None:
            _known(f"runs.{name}.vae", run["vae"], config["vaes"])
            _divides(f"runs.{name}", config["datasets"][run["dataset"]], config["vaes"][run["vae"]])
        _guidable(f"runs.{name}", run, config["datasets"][run["dataset"]], config["samplers"][run["sampler"]])
        if "milestones" in run and run["milestones"] != sorted(set(run["milestones"])):
            raise UserError(f"config: runs.{name}.milestones must rise, each once: {run['milestones']}")
    return config


def lookup(section: dict, kind: str, name: str) -> dict:
    """The entry ``name`` of a section, or a :class:`UserError` with the nearest name that there is."""
    if name not in section:
        raise UserError(f"there is no {kind} {name!r} in the config; {_nearest(name, section)}")
    return section[name]


def difference(old: dict, new: dict, place: str = "") -> list[str]:
    """The leaves in which two nested dictionaries differ, as ``key.path: old → new``, sorted by key."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{place}{key}.")
        elif a != b:
            lines.append(f"{place}{key}: {a} → {b}")
    return lines


def refuse_changes(folder: Path, before: dict, now: dict) -> None:
    """Raise :class:`UserError` where the run in ``folder`` began with another configuration, with the difference."""
    if changes := difference(before, now):
        raise UserError(
            f"the run in {folder} began with another configuration ({'; '.join(changes)}); "
            f"change it back, give the new one another run name, or start over by deleting {folder}"
        )


def shared_part(one: dict, other: dict) -> dict:
    """What ``one`` says about the keys that ``other`` has as well, at every depth."""
    return {
        key: shared_part(value, other[key]) if isinstance(value, dict) and isinstance(other[key], dict) else value
        for key, value in one.items()
        if key in other
    }


def _known(place: str, name: str, section: dict) -> None:
    if name not in section:
        raise UserError(f"config: {place} names {name!r}, which is not defined; {_nearest(name, section)}")


def _fit(place: str, run: dict, sampler: dict) -> None:
    """Refuse parts of a run that do not go together, before anything is made for it."""
    net, process, kind = run["net"]["kind"], run["process"]["kind"], sampler["kind"]
    expected, kinds = ("ddpm", ("ddpm", "ddim")) if net == "latent" else ("edm", ("heun",))
    if process != expected:
        raise UserError(f"config: {place}.process.kind is {process!r}; a net of kind {net!r} takes {expected!r}")
    if kind not in kinds:
        raise UserError(
            f"config: {place}.sampler names one of kind {kind!r}; "
            f"a process of kind {process!r} takes {' or '.join(kinds)}"
        )
    if "weights" in run and net != "latent":
        raise UserError(
            f"config: {place}.weights are for a net of kind 'latent', and its net is {net!r}; remove weights"
        )
    if (net == "latent") != (run["vae"] is not None):
        wanted = "needs a vae: add it" if net == "latent" else "sees images: remove vae"
        raise UserError(f"config: {place} with a net of kind {net!r} {wanted}; docs/config.md says what it means")


def _guidable(place: str, run: dict, dataset: dict, sampler: dict) -> None:
    """Refuse guidance by classes where the network has none."""
    classes = run["weights"]["classes"] if "weights" in run else dataset.get("labels", True)
    if sampler.get("guidance", {"kind": "none"})["kind"] != "none" and not classes:
        raise UserError(
            f"config: {place}.sampler is guided by classes, but the network has none: set labels: true for the data "
            f"set {run['dataset']!r}, or take a sampler with guidance: {{kind: none}}"
        )


def _divides(place: str, dataset: dict, vae: dict) -> None:
    """Refuse images that the VAE of a run cannot bring to whole latents."""
    factor = 2 ** (len(vae["channels"]) - 1) if vae["kind"] == "trained" else 8
    if dataset["resolution"] % factor:
        raise UserError(
            f"config: {place}.vae shortens sides by {factor}, which does not divide the resolution "
            f"{dataset['resolution']} of its data set; choose another resolution or another VAE"
        )


def _nearest(name: str, names) -> str:
    guess = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {guess[0]!r}?" if guess else f"there are: {', '.join(sorted(names)) or 'none'}"


def _sentence(error) -> str:
    place = ".".join(str(part) for part in error.absolute_path) or "the top level"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        key = min(set(error.instance) - set(known), key=str)
        return f"config: {place} has an unknown key {key!r}; {_nearest(str(key), known)}"
    if error.validator == "oneOf":
        return f"config: {place} needs either training and milestones, or weights; docs/config.md says what they mean"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"config: {place} lacks the key {missing!r}; add it, docs/config.md says what it means"
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        # YAML reads 1e-3 as text: its numbers with an exponent have a dot.
        return f"config: {place}: {error.instance!r} is text in YAML; write {float(error.instance)!r} for the number"
    return f"config: {place}: {error.message}; docs/config.md says what may stand there"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
