"""What a user may write into config.yaml, and the one sentence for each mistake."""

import copy

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.cli import UserError
from diffit.config.changes import difference
from diffit.config.schema import config_schema
from diffit.config.toy_runs import complete
from diffit.config.validation import lookup, validate

SCHEMA = config_schema(REPOSITORY / "workflow/schemas/config.schema.yaml")
MINIMAL = """
datasets:
  digits: {source: digits, resolution: 8, shards: 2}
  others: {source: digits, resolution: 8, shards: 2}
samplers:
  few: {steps: 18, images: 500, shards: 1}
runs:
  digits: &digits
    dataset: digits
    net: {width: 48, multipliers: [1, 2], blocks: 2, window: 4, head_dim: 16, time_dim: 128, groups: 8, dropout: 0.0}
    training: {batch: 64, learning_rate: 1.5e-3, warmup_kimg: 2, ema_halflife_kimg: 5, precision: float32}
    milestones: [0, 115]
    sampler: few
  longer:
    <<: *digits
    milestones: [200]
"""
LATENT = """
datasets:
  photos:    {source: imagenet, resolution: 64, shards: 2}
  unlabelled: {source: folder, resolution: 64, shards: 2, path: photos}
vaes:
  sd: {}
  scaled: {path: other-vae, scale: 0.5}
  small: {kind: trained, dataset: photos, channels: [8, 8], steps: 20, batch: 4, learning_rate: 1.0e-3, kl_weight: 0.1}
samplers:
  plain:  {kind: ddpm, steps: 250, images: 50, shards: 1}
  guided: {kind: ddpm, steps: 250, images: 50, shards: 1, guidance: {kind: constant, weight: 1.5}}
  heun:   {steps: 18, images: 50, shards: 1}
runs:
  latent: &latent
    dataset: photos
    vae: sd
    net: &net {kind: latent, patch_size: 2, hidden_size: 16, depth: 1, num_heads: 2}
    process: {kind: ddpm}
    training: &training {batch: 4, learning_rate: 1.0e-3, warmup_kimg: 0, ema_halflife_kimg: 5, precision: float32}
    milestones: [1]
    sampler: guided
  taken:
    dataset: photos
    vae: sd
    net: *net
    process: {kind: ddpm}
    weights: {repository: someone/something, file: weights.safetensors, classes: 1000}
    sampler: guided
"""
IMAGENET = {"source": "imagenet", "resolution": 256, "shards": 2}


@pytest.fixture
def config() -> dict:
    return yaml.safe_load(MINIMAL)


def refusal(config: dict) -> str:
    with pytest.raises(UserError) as refused:
        validate(config, SCHEMA)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_the_shipped_config_is_valid():
    complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)


def test_defaults_are_filled_in_at_every_depth(config):
    run = validate(config, SCHEMA)["runs"]["digits"]
    assert run["process"] == {
        "kind": "edm", "sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2,
        "augment": {"probability": 0, "xflip": False},
    }  # fmt: skip
    assert (run["seed"], run["baselines"], run["protocols"]) == (0, [], ["clean"])
    assert run["paper"] == {"source": "", "protocol": "clean", "statistic": "single"}
    assert (run["net"]["kind"], run["training"]["betas"]) == ("ushaped", [0.9, 0.999])
    assert config["samplers"]["few"]["rho"] == 7 and config["datasets"]["digits"]["resize"] == "center-crop"
    assert config["inception"] == {"path": None, "sha256": None}


def test_each_source_has_its_own_keys(config):
    config["datasets"]["photos"] = dict(IMAGENET)
    validate(config, SCHEMA)
    assert config["datasets"]["photos"] == IMAGENET | {
        "path": None, "md5": None, "revision": "49e2ee26f3810fb5a7536bbf732a7b07389a47b5", "subset": False,
        "labels": True, "resize": "center-crop", "references": {},
    }  # fmt: skip
    assert config["datasets"]["digits"].keys() == {*IMAGENET, "path", "labels", "resize", "min_side", "references"}


def test_what_latent_runs_need_is_filled_in():
    config = validate(yaml.safe_load(LATENT), SCHEMA)
    assert config["vaes"]["sd"]["scale"] == 0.18215 and config["vaes"]["sd"]["path"] is None
    assert config["samplers"]["plain"] | {"shards": 1} == {
        "kind": "ddpm", "steps": 250, "images": 50, "sets": 1, "shards": 1, "first_seed": 0, "block": 64,
        "precision": "float32", "decoder": None, "labels": "random", "guidance": {"kind": "none"},
    }  # fmt: skip
    assert config["samplers"]["guided"]["guidance"] == {
        "kind": "constant", "weight": 1.5, "channels": 3, "tolerance": 0
    }  # fmt: skip
    assert config["runs"]["latent"]["process"] == {
        "kind": "ddpm", "timesteps": 1000, "label_dropout": 0.1, "xflip": False
    }  # fmt: skip


@pytest.mark.parametrize(
    "place, value, sentence",
    [
        ("runs.latent.dataset", "unlabelled", "with samplers.guided: it is guided by classes, but the network has"),
        ("runs.latent.process.label_dropout", 0, "with samplers.guided: it is guided, but with label_dropout: 0"),
        ("runs.taken.weights.classes", 10, "runs.taken.weights.classes is 10, and photos has 1000; name"),
        ("runs.taken.baselines", ["untrained"], "runs.taken.baselines has 'untrained', but its weights are pub"),
        ("runs.latent.sampler", "heun", "samplers.heun: its kind is 'heun', and a process of kind 'ddpm' takes ddpm"),
        ("runs.latent.process.timesteps", 200, "250 steps are more than the 200 timesteps of its process; take fewer"),
        ("runs.latent.net.patch_size", 3, "runs.latent.net.patch_size 3 does not divide the latents' side 8; choose"),
        ("runs.latent.net.num_heads", 3, "runs.latent.net.hidden_size 16 is not a multiple of num_heads 3; choose"),
        ("runs.latent.net.hidden_size", 6, "hidden_size 6 is not a multiple of the 4 parts of the position table, 4"),
        ("samplers.guided.guidance.channels", 5, "it guides 5 channels of latents that have 4; set channels: null"),
        ("samplers.guided.decoder", "small", "its decoder 'small' has the factor 2 and the run's VAE 8; name a"),
        ("samplers.guided.decoder", "scaled", "its decoder 'scaled' has the scale 0.5 and the run's VAE 0.18215; name"),
        ("vaes.small.groups", 3, "config: vaes.small.groups 3 does not divide its channels 8; choose a number"),
        ("vaes.sd", {"repository": "a/b"}, "config: vaes.sd has 'repository' without 'revision'; add it"),
        ("vaes.sd", {"path": "vae"}, "config: vaes.sd has 'path' without 'scale'; add it"),
        ("runs.latent.process", {"kind": "edm"}, "process.kind is 'edm'; a net of kind 'latent' takes 'ddpm'"),
        ("runs.latent.vae", None, "config: runs.latent with a net of kind 'latent' needs a vae: add it"),
        ("runs.latent.vae", "sdd", "runs.latent.vae names 'sdd', which is not defined; did you mean 'sd'?"),
        ("datasets.photos.resolution", 60, "shortens sides by 8, which does not divide the resolution 60"),
        ("runs.taken.milestones", [1], "config: runs.taken needs either training and milestones, or weights"),
        ("runs.neither", {}, "config: runs.neither lacks the key 'dataset'"),
        ("samplers.guided.decoder", "mse", "samplers.guided.decoder names 'mse', which is not defined; available"),
        ("samplers.heun.guidance", {}, "config: samplers.heun has an unknown key 'guidance'"),
        ("samplers.guided.guidance.power", 4, "config: samplers.guided.guidance has an unknown key 'power'"),
        ("vaes.sd.scale", None, "config: vaes.sd.scale is empty, but must be a number; fill it in or remove the key"),
        ("vaes.sd.scale", 0, "config: vaes.sd.scale: 0 is less than or equal to the minimum of 0"),
        ("vaes.sd.revision", "main", "config: vaes.sd.revision: 'main' must be 40 hexadecimal digits; docs/config.md"),
        ("vaes.small.dataset", "photo", "vaes.small.dataset names 'photo', which is not defined; did you mean"),
    ],
)  # fmt: skip
def test_parts_of_a_latent_run_that_do_not_go_together_are_one_sentence(place, value, sentence):
    config = yaml.safe_load(LATENT)
    *path, key = place.split(".")
    node = config
    for part in path:
        node = node[part]
    node[key] = value
    assert sentence in refusal(config)


def test_class_accuracy_needs_classes():
    config = yaml.safe_load(LATENT)
    config["runs"]["latent"] |= {"dataset": "unlabelled", "sampler": "plain", "class_accuracy": True}
    assert "runs.latent.class_accuracy needs classes; set labels: true" in refusal(config)


def test_published_weights_are_guided_whatever_label_dropout_they_were_trained_with():
    config = yaml.safe_load(LATENT)
    config["runs"]["taken"]["process"]["label_dropout"] = 0
    validate(config, SCHEMA)


def test_what_the_user_wrote_wins_over_defaults(config):
    config["runs"]["digits"]["process"] = {"augment": {"probability": 0.12}}
    config["samplers"]["few"]["rho"] = 5
    validate(config, SCHEMA)
    assert config["runs"]["digits"]["process"]["augment"] == {"probability": 0.12, "xflip": False}
    assert config["samplers"]["few"]["rho"] == 5


def test_filling_in_twice_changes_nothing(config):
    once = copy.deepcopy(validate(config, SCHEMA))
    assert validate(config, SCHEMA) == once


def test_defaults_are_not_shared_between_entries_or_between_configs(config):
    validate(config, SCHEMA)
    config["runs"]["digits"]["baselines"].append("real")
    config["runs"]["digits"]["process"]["augment"]["xflip"] = True
    config["runs"]["digits"]["paper"]["fid"] = 1.0
    assert config["runs"]["longer"]["baselines"] == []
    assert config["runs"]["longer"]["process"]["augment"]["xflip"] is False
    fresh = validate(yaml.safe_load(MINIMAL), SCHEMA)["runs"]["digits"]
    assert (fresh["baselines"], fresh["process"]["augment"]["xflip"]) == ([], False)
    assert "fid" not in fresh["paper"]


def test_an_entry_merged_from_an_anchor_is_whole_and_keeps_its_own_keys(config):
    runs = validate(config, SCHEMA)["runs"]
    assert runs["longer"]["milestones"] == [200] and runs["digits"]["milestones"] == [0, 115]
    assert runs["longer"]["net"] == runs["digits"]["net"]


@pytest.mark.parametrize(
    "place, value, sentence",
    [
        ("samplers.few.stepz", 3, "config: samplers.few has an unknown key 'stepz'; did you mean 'steps'?"),
        ("samplers.few.7", 3, "config: samplers.few has an unknown key '7'; available: "),
        ("runs.digits.net.widht", 3, "config: runs.digits.net has an unknown key 'widht'; did you mean 'width'?"),
        ("dataset", {}, "config: the top level has an unknown key 'dataset'; did you mean 'datasets'?"),
        ("samplers.few.steps", None, "config: samplers.few.steps is empty, but must be a whole number"),
        ("samplers.few.steps", "two", "config: samplers.few.steps is 'two', but must be a whole number; docs"),
        ("samplers.few.steps", True, "config: samplers.few.steps is true, but must be a whole number; docs"),
        ("samplers.few.steps", 1, "config: samplers.few.steps: 1 is less than the minimum of 2"),
        ("runs.digits.training.learning_rate", "1e-3", "'1e-3' is text in YAML; write 0.001 for the number"),
        ("runs.digits.training.precision", "half", "'half' is not one of float32, bfloat16; docs/config.md"),
        ("runs.digits.training.betas", [0.9], "config: runs.digits.training.betas: [0.9] is too short"),
        ("runs.digits.milestones", [], "config: runs.digits.milestones: [] should be non-empty"),
        ("runs.digits.milestones", [2, 1], "config: runs.digits.milestones must increase without repetition: [2, 1]"),
        ("runs.digits.milestones", [1, 1], "config: runs.digits.milestones must increase without repetition: [1, 1]"),
        ("runs.digits.dataset", "digit", "runs.digits.dataset names 'digit', which is not defined; did you mean"),
        ("runs.digits.dataset", "faces", "which is not defined; available: batch, digits, others"),
        ("runs.digits.sampler", "fwe", "runs.digits.sampler names 'fwe', which is not defined; did you mean 'few'?"),
        ("runs.digits.baselines", ["fake"], "runs.digits.baselines.0: 'fake' is not one of"),
        ("runs.a/b", {}, "config: runs has the name 'a/b'; a name must be at most 100 letters"),
        ("runs", None, "config: runs is empty, but must be a mapping of keys to values; fill"),
        ("datasets.photos", IMAGENET | {"labels": False}, "config: datasets.photos.labels is false, but must be true"),
        ("datasets.photos", IMAGENET | {"min_side": 9}, "config: datasets.photos has an unknown key 'min_side'"),
        ("datasets.photos", IMAGENET | {"md5": "1d67"}, "photos.md5: '1d67' must be 32 hexadecimal digits; docs"),
        ("datasets.photos", IMAGENET | {"source": "folder", "subset": True}, "photos has an unknown key 'subset'"),
        ("datasets.photos", IMAGENET | {"source": "imagnet", "subset": True}, "photos.source: 'imagnet' is not one of"),
        ("datasets.photos", IMAGENET | {"references": {"fid": "digits"}}, "photos.references has an unknown key 'fid'"),
        ("datasets.photos", IMAGENET | {"references": {"adm": "digit"}}, "references.adm names 'digit', which is not"),
        ("datasets.photos", IMAGENET | {"references": {"adm": "digits"}}, "whose resolution is 8 and not 256; name"),
        ("datasets.photos", {"source": "adm", "resolution": 256, "shards": 1, "labels": True}, "labels is true, but"),
        ("datasets.digits.references", {"clean": "batch"}, "protocol clean does not use; move it to references.adm"),
        ("runs.digits.protocols", ["fid"], "config: runs.digits.protocols.0: 'fid' is not one of"),
        ("runs.digits.protocols", [], "config: runs.digits.protocols: [] should be non-empty"),
        ("runs.digits.paper", {"fid": 2, "protocol": "edm", "source": "T"}, "protocol 'edm', which is not among the"),
        ("inception.sha256", "abc", "config: inception.sha256: 'abc' must be 64 hexadecimal digits"),
        ("inception.url", "host/x.pt", "config: inception.url: 'host/x.pt' does not match"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_its_place_and_the_way_out(config, place, value, sentence):
    config["datasets"]["batch"] = {"source": "adm", "resolution": 8, "shards": 1}
    *path, key = place.split(".")
    node = config
    for part in path:
        node = node.setdefault(part, {})
    node[key] = value
    message = refusal(config)
    assert sentence in message
    assert "; " in message or "must increase" in message


@pytest.mark.parametrize("place", ["runs", "runs.digits.net", "datasets.digits.source", "runs.digits.training.batch"])
def test_a_missing_key_is_named_with_its_place(config, place):
    *path, key = place.split(".")
    node = config
    for part in path:
        node = node[part]
    del node[key]
    where = ".".join(path) or "the top level"
    assert refusal(config).startswith(f"config: {where} lacks the key {key!r}; add it")


def test_a_misspelt_key_that_is_needed_is_called_misspelt_and_not_missing(config):
    config["samplers"]["few"]["stepz"] = config["samplers"]["few"].pop("steps")
    assert "has an unknown key 'stepz'; did you mean 'steps'?" in refusal(config)


def test_difference_names_each_leaf_that_differs():
    old = {"same": 1, "training": {"batch": 64, "betas": [0.9, 0.999]}, "gone": True, "net": {"width": 8}}
    new = {"same": 1, "training": {"batch": 32, "betas": [0.9, 0.99]}, "new": {"a": 1}, "net": 3}
    assert difference(old, new) == [
        "gone: True → (absent)",
        "net: {'width': 8} → 3",
        "new: (absent) → {'a': 1}",
        "training.batch: 64 → 32",
        "training.betas: [0.9, 0.999] → [0.9, 0.99]",
    ]
    assert difference(old, copy.deepcopy(old)) == []


def test_lookup_finds_an_entry_or_says_which_there_are():
    section = {"digits": {"a": 1}, "cifar10": {}}
    assert lookup(section, "run", "digits") is section["digits"]
    with pytest.raises(UserError, match=r"there is no run 'digit' in the config; did you mean 'digits'\?"):
        lookup(section, "run", "digit")
    with pytest.raises(UserError, match="there is no run 'faces' in the config; available: cifar10, digits"):
        lookup(section, "run", "faces")
    with pytest.raises(UserError, match="available: none"):
        lookup({}, "run", "digits")


def test_a_whole_number_written_with_a_point_is_refused(config):
    config["samplers"]["few"]["images"] = 5.0e2
    assert "samplers.few.images" in refusal(config)


def test_shards_are_cut_from_the_blocks_of_all_sets(config):
    config["samplers"]["few"] |= {"shards": 9, "sets": 2}
    validate(config, SCHEMA)


def test_more_shards_than_blocks_are_refused_with_how_many_there_can_be(config):
    config["samplers"]["few"]["shards"] = 9
    assert "ask for at most 8 shards" in refusal(config)
