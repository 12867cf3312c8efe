"""Wrong values, names and files of a configuration: each is refused in one sentence that names its place."""

import copy
import math

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.cli import UserError
from diffit.config.schema import config_schema
from diffit.config.toy_runs import complete
from diffit.config.validation import validate
from diffit.config.yaml_files import check_files, read_mapping

SCHEMA = config_schema(REPOSITORY / "workflow/schemas/config.schema.yaml")
CONFIG = """
datasets:
  mine:     {source: folder, path: /pictures, resolution: 32, shards: 4}
  labelled: {source: digits, resolution: 32, shards: 2, labels: true}
vaes:
  small: {kind: trained, dataset: labelled, channels: [8, 8], steps: 20, batch: 4, learning_rate: 0.001, kl_weight: 1}
samplers:
  few: {steps: 18, images: 500, shards: 1}
  ddim: {kind: ddim, steps: 25, images: 500, shards: 1, guidance: {kind: constant, weight: 3}}
runs:
  images:
    dataset: mine
    net: {width: 64, multipliers: [1, 2], blocks: 2, window: 4, head_dim: 32, time_dim: 256, groups: 16, dropout: 0.1}
    training: &training {batch: 64, learning_rate: 1.0e-3, warmup_kimg: 10, ema_halflife_kimg: 50, precision: float32}
    milestones: [200]
    sampler: few
  latent:
    dataset: labelled
    vae: small
    net: {kind: latent, patch_size: 2, hidden_size: 16, depth: 1, num_heads: 2}
    process: {kind: ddpm}
    training: *training
    milestones: [1]
    sampler: ddim
"""
RUN, NET, LATENT = "runs.images", "runs.images.net", "runs.latent"
VIT = {
    "kind": "vit", "patch_size": 2, "width": 32, "multipliers": [2], "depth": 4, "head_dim": 32, "decoder_dim": 64,
    "time_dim": 64, "groups": 16, "dropout": 0,
}  # fmt: skip
SONG = {
    "kind": "song", "form": "ddpmpp", "width": 32, "multipliers": [1, 2], "blocks": 1, "attention_resolution": 16,
    "tmsa": False, "dropout": 0,
}  # fmt: skip
WRONG = [
    # Numbers that are text, have a point where none belongs, or cannot be computed with.
    (f"{RUN}.milestones", "100", "milestones is '100', but must be a list"),
    (f"{RUN}.milestones", ["100"], "milestones.0: '100' is text in YAML; write 100 for the number"),
    (f"{RUN}.milestones", [1.0], "milestones.0 is 1.0, but must be a whole number; write 1"),
    (f"{RUN}.milestones", [1.5], "milestones.0 is 1.5, but must be a whole number"),
    (f"{RUN}.milestones", [True], "milestones.0 is true, but must be a whole number"),
    (f"{RUN}.milestones", [-1], "milestones.0: -1 is less than the minimum of 0"),
    (f"{RUN}.milestones", [10**10], "milestones.0: 10000000000 is greater than the maximum"),
    (f"{RUN}.milestones", None, "milestones is empty, but must be a list; fill it in or remove the key"),
    (f"{RUN}.training.learning_rate", math.nan, "training.learning_rate is nan; write a finite number"),
    (f"{RUN}.training.warmup_kimg", math.inf, "training.warmup_kimg is inf; write a finite number"),
    (f"{RUN}.training.batch", 2**64, "training.batch is 1.84e+19, beyond 2^53"),
    (f"{RUN}.training.batch", 0, "training.batch: 0 is less than the minimum of 1"),
    (f"{RUN}.training.batch", 64.0, "training.batch is 64.0, but must be a whole number; write 64"),
    (f"{RUN}.training.betas", [0.9, 1], "betas.1: 1 is greater than or equal to the maximum of 1"),
    (f"{RUN}.seed", 10**40, "seed is 1e+40, beyond 2^53"),
    (f"{RUN}.paper", {"fid": math.nan, "source": "T"}, "paper.fid is nan; write a finite number"),
    ("samplers.ddim.guidance.weight", -math.inf, "guidance.weight is -inf; write a finite number"),
    ("samplers.few.images", 0, "images: 0 is less than the minimum of 1"),
    ("samplers.few.images", -5, "images: -5 is less than the minimum of 1"),
    ("samplers.few.steps", 0, "steps: 0 is less than the minimum of 2"),
    ("samplers.few.steps", 1001, "steps: 1001 is greater than the maximum of 1000"),
    ("samplers.few.shards", 0, "shards: 0 is less than the minimum of 1"),
    ("samplers.few.shards", 9, "ask for at most 8 shards"),
    ("samplers.few.first_seed", -1, "first_seed: -1 is less than the minimum of 0"),
    ("samplers.few.sigma_min", 100, "samplers.few.sigma_min 100 is not below sigma_max 80"),
    ("datasets.mine.shards", 0, "shards: 0 is less than the minimum of 1"),
    ("datasets.mine.shards", 10**9, "shards: 1000000000 is greater than the maximum of 100000"),
    ("datasets.labelled.shards", 1798, "datasets.labelled.shards is 1798, but it has only 1797 images; lower shards"),
    ("datasets.labelled.resolution", 4, "resolution: 4 is less than the minimum of 8"),
    ("datasets.mine.resolution", 10**7, "resolution: 10000000 is greater than the maximum"),
    # Sizes that do not fit each other.
    ("datasets.mine.resolution", 31, "runs.images.net: resolution 31 cannot be halved 1 times"),
    (f"{NET}.multipliers", [], "multipliers: [] should be non-empty"),
    (f"{NET}.multipliers", [1] * 7, "resolution 32 cannot be halved 6 times, once per level after the first; change"),
    (f"{NET}.window", 5, "runs.images.net: window 5 does not divide the 32x32 grid of a stage"),
    (f"{NET}.head_dim", 48, "head_dim 48 does not divide 64 (width × multiplier)"),
    (f"{NET}.groups", 24, "groups 24 does not divide 64 (width × multiplier)"),
    (f"{NET}.width", 63, "width 63 is odd"),
    (f"{NET}.width", 2, "width 2 is below 4"),
    (f"{NET}.blocks", 10**6, "blocks: 1000000 is greater than the maximum of 1000"),
    (f"{NET}.dropout", 1, "dropout: 1 is greater than or equal to the maximum of 1"),
    (NET, VIT | {"patch_size": 3}, "resolution 32 is not a multiple of patch_size"),
    (NET, VIT | {"depth": 5}, "depth 5 is not a multiple of 4"),
    (NET, VIT | {"multipliers": [1, 2]}, "multipliers [1, 2] must have 1 entry, or 4"),
    (NET, VIT | {"decoder_dim": 60}, "groups 16 does not divide 60 (decoder_dim)"),
    (NET, SONG | {"attention_resolution": 8}, "attention_resolution 8 is not the resolution of a level: 32, 16"),
    (NET, SONG | {"width": 36}, "width 36 is not a multiple of 8"),
    (f"{LATENT}.net.patch_size", 3, "patch_size 3 does not divide the latents' side 16"),
    (f"{LATENT}.net.num_heads", 3, "hidden_size 16 is not a multiple of num_heads 3"),
    ("vaes.small.channels", [], "channels: [] should be non-empty"),
    ("vaes.small.groups", 3, "groups 3 does not divide its channels 8"),
    # Classes and guidance.
    ("datasets.labelled.labels", False, "it is guided by classes, but the network has none; set labels: true"),
    ("samplers.ddim.labels", [0, 10], "its labels have the class 10, and the network has 10 classes"),
    ("samplers.ddim.labels", [1, 1], "labels: [1, 1] must be random, balanced, or a list of different class numbers"),
    ("samplers.ddim.labels", "all", "labels: 'all' must be random, balanced, or a list"),
    ("samplers.ddim.guidance", {"kind": "constant"}, "guidance lacks the key 'weight'"),
    ("samplers.ddim.guidance", {"kind": "cosine"}, "guidance.kind: 'cosine' is not one of none, constant,"),
    ("samplers.ddim.steps", 0, "steps: 0 is less than the minimum of 2"),
    (f"{LATENT}.process.timesteps", 21, "25 steps are more than the 21 timesteps"),
    # Keys and sections.
    ("runs", None, "config: runs is empty, but must be a mapping of keys to values"),
    ("runs", [1], "config: runs is [1], but must be a mapping of keys to values"),
    ("runs.images", None, "config: runs.images is empty"),
    ("datasets.mine", [], "config: datasets.mine is [], but must be a mapping"),
    (f"{RUN}.training.batchs", 4, "training has an unknown key 'batchs'; did you mean 'batch'?"),
    (f"{NET}.kind", "latnet", "'latnet' is not one of ushaped, vit, song, latent, dit; did you mean 'latent'?"),
    ("datasets.mine.path", "", "path: '' should be non-empty"),
    ("presets", "tables", "config: presets is 'tables', but must be a list"),
    ("vaes.small.kind", 3, "vaes.small.kind: 3 is not one of published, trained"),
]  # fmt: skip


def changed(place: str, value: object) -> dict:
    config = yaml.safe_load(CONFIG)
    *path, key = place.split(".")
    node = config
    for part in path:
        node = node.setdefault(part, {})
    node[key] = copy.deepcopy(value)
    return config


def refusal(config: dict) -> str:
    with pytest.raises(UserError) as refused:
        validate(config, SCHEMA)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_configuration_of_these_tests_is_valid():
    validate(yaml.safe_load(CONFIG), SCHEMA)
    for net in (VIT, SONG):
        validate(changed(NET, net), SCHEMA)


@pytest.mark.parametrize(("place", "value", "sentence"), WRONG)
def test_a_wrong_value_is_refused_in_one_sentence(place, value, sentence):
    message = refusal(changed(place, value))
    assert message.startswith("config: ") and sentence in message and "; " in message


@pytest.mark.parametrize("section", ["datasets", "vaes", "samplers", "runs"])
def test_names_that_cannot_be_folders_or_are_folders_already_are_refused(section):
    entry = next(iter(yaml.safe_load(CONFIG)[section].values()))
    first = next(iter(yaml.safe_load(CONFIG)[section]))
    for name, sentence in [
        ("inception", "has the name of a folder of the workflow itself; rename it"),
        ("tables", "has the name of a folder"), ("runs", "has the name of a folder"),
        ("Released", "has the name of a folder"), (first.upper(), "differ only in capital letters"),
        ("a b", "a name must be at most 100"), ("a/b", "a name must be"), ("a\n", "a name must be"),
        (".a", "a name must be"), ("-a", "a name must be"), ("", "a name must be"), ("ä", "a name must be"),
        ("..", "a name must be"), (7, "is not text in YAML; put it in quotes"), (True, "put it in quotes"),
    ]:  # fmt: skip
        config = yaml.safe_load(CONFIG)
        config[section][name] = copy.deepcopy(entry)
        assert sentence in refusal(config), name
    config = yaml.safe_load(CONFIG)
    config[section]["a" * 101] = entry
    assert "a name must be at most 100 letters" in refusal(config)


@pytest.mark.parametrize("section", ["runs", "samplers"])
def test_only_toys_begin_like_toys(section):
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    config[section]["toy_mine"] = {"base": next(iter(config[section]))}
    with pytest.raises(UserError, match=f"config: {section}.toy_mine begins with toy_"):
        complete(config, REPOSITORY)


@pytest.mark.parametrize("base", [[], {}, None, 3, ["cifar10"]])
def test_a_base_that_is_not_a_name_is_refused(base):
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    config["runs"]["mine"] = {"base": base}
    with pytest.raises(UserError, match=r"runs\.mine\.base names .*, which is not defined; "):
        complete(config, REPOSITORY)


# ------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "mine.yaml is empty; write at least one key"),
        ("# nothing\n", "mine.yaml is empty"),
        ("- runs\n- datasets\n", "mine.yaml is a list at its top level; write keys such as `runs:` there"),
        ("runs\n", "mine.yaml is text at its top level"),
        ("runs:\n  a: 1\n  b:\n\tc: 2\n", "mine.yaml, line 4: the line is indented with a tab; use spaces"),
        ("runs: {a: 1\ndatasets: 2\n", "mine.yaml, line 2: "),
        ("runs: {a: 1}\nvaes: {}\nruns: {b: 2}\n", "mine.yaml, line 3: the key 'runs' is also in line 1; remove one"),
        ("runs:\n  a: {seed: 1, seed: 2}\n", "mine.yaml, line 2: the key 'seed' is also in line 2; remove one"),
        ("runs: {a: .nan}\n", "mine.yaml: runs.a is nan; write a finite number"),
        ("runs: {a: [1, -.inf]}\n", "mine.yaml: runs.a.1 is -inf; write a finite number"),
        (f"runs: {{a: {2**64}}}\n", "mine.yaml: runs.a is 1.84e+19, beyond 2^53"),
        ("runs: &a {b: *a}\n", "runs.b contains itself; remove the alias"),
        ("runs: *nobody\n", "mine.yaml, line 1: found undefined alias"),
        ("runs: {a: 2024-13-40}\n", "mine.yaml has a value that YAML cannot read"),
        ("runs: \x00\n", "mine.yaml has a character that YAML does not allow"),
        ("runs: {[1, 2]: 3}\n", "mine.yaml, line 1: found unhashable key"),
        ("runs: !!python/none x\n", "mine.yaml, line 1: could not determine a constructor"),
        (b"runs: {a: \xff}\n", "mine.yaml is not text in UTF-8"),
        (None, "mine.yaml does not exist; correct the name of the configuration file"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_line(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        read_mapping(path)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_mapping(tmp_path)


def test_anchors_and_merged_keys_are_no_duplicates(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n")
    assert read_mapping(path)["b"] == {"x": 3, "y": 2}


def test_the_main_file_may_be_missing_only_beside_others_and_the_local_one_always(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no config\.yaml in .*; run Snakemake in the folder of the project"):
        check_files("config.yaml", "config.local.yaml", [])
    other = tmp_path / "mine.yaml"
    other.write_text("runs: {}\n")
    check_files("config.yaml", "config.local.yaml", [other])
    for name in ("config.local.yaml", "config.yaml"):
        (tmp_path / name).write_text("")
        with pytest.raises(UserError, match=rf"^{name} is empty"):
            check_files("config.yaml", "config.local.yaml", [other])
