"""The layers of the configuration: presets of the paper's runs below the user's file, and entries based on others."""

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.cli import UserError
from diffit.config.presets import FOLDER, add_presets, overlaid
from diffit.config.toy_runs import PREFIX, complete


def shipped(**changes) -> dict:
    return yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | changes


def completed(*files: dict) -> dict:
    """The shipped configuration with the user's files over it, as Snakemake merges them."""
    config = shipped()
    for file in files:
        config = overlaid(config, file)
    return complete(config, REPOSITORY)


def with_presets(config: dict) -> dict:
    add_presets(config, REPOSITORY)
    return config


def test_the_shipped_configuration_names_every_preset():
    assert set(shipped()["presets"]) == {path.stem for path in (REPOSITORY / FOLDER).glob("*.yaml")}


def test_the_shipped_configuration_fits_on_two_screens():
    assert len((REPOSITORY / "config.yaml").read_text().splitlines()) <= 100


def test_a_run_takes_over_its_base_and_changes_what_it_names():
    runs = completed()["runs"]
    base, run = runs["cifar10"], runs["cifar10_window2"]
    assert run["net"] == {**base["net"], "window": 2}
    assert {key: run[key] for key in run if key not in ("net", "paper")} == {
        key: base[key] for key in base if key not in ("net", "paper")
    }


def test_a_published_number_is_not_taken_over():
    runs = completed()["runs"]
    assert runs["cifar10"]["paper"]["fid"] == 1.95
    assert "fid" not in runs["cifar10_window2"]["paper"]


def test_a_section_of_another_kind_replaces_the_bases():
    runs = completed()["runs"]
    assert runs["cifar10_ddpmpp_vp"]["net"]["kind"] == "song" and "window" not in runs["cifar10_ddpmpp_vp"]["net"]
    assert runs["cifar10_ncsnpp_ve"]["process"]["kind"] == "ve"


def test_the_users_file_overrides_a_preset_and_all_that_is_based_on_it():
    runs = completed({"runs": {"cifar10": {"training": {"batch": 256}}}})["runs"]
    assert runs["cifar10"]["training"] == {**completed()["runs"]["cifar10"]["training"], "batch": 256}
    assert runs["cifar10_window2"]["training"]["batch"] == 256
    assert runs["ffhq64"]["training"]["batch"] == 256  # its own batch size


def test_the_users_run_may_be_based_on_a_preset():
    runs = completed({"runs": {"mine": {"base": "cifar10", "milestones": [1000]}}})["runs"]
    assert runs["mine"]["milestones"] == [1000] and runs["mine"]["net"] == runs["cifar10"]["net"]


def test_a_configuration_without_presets_has_its_own_runs_only():
    config = completed({"presets": []})
    assert [name for name in config["runs"] if not name.startswith(PREFIX)] == ["digits", "digits_latent"]


def test_samplers_have_bases_too():
    samplers = completed()["samplers"]
    assert samplers["ddpm250-cosine-4_4-50k"]["guidance"] == {
        **samplers["ddpm250-cosine-50k"]["guidance"],
        "weight": 4.4,
    }


def test_a_base_of_a_base_is_resolved_whatever_the_order():
    entries = {"c": {"base": "b", "z": 3}, "b": {"base": "a", "y": 2}, "a": {"x": 1}}
    assert with_presets({"runs": entries})["runs"]["c"] == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"presets": ["table22"]}, "presets names 'table22', which is not in workflow/runs; did you mean 'table2'?"),
        ({"runs": {"a": {"base": "b"}, "bb": {}}}, "runs.a.base names 'b', which is not defined; did you mean 'bb'?"),
        ({"runs": {"a": {"base": "b"}, "b": {"base": "a"}}}, "runs.b.base leads back to 'a'"),
        ({"runs": {"a": {"base": "a"}}}, "runs.a.base leads back to 'a'"),
        ({"samplers": {"a": {"base": 7}}}, "samplers.a.base names 7, which is not defined"),
    ],
    ids=["unknown preset", "unknown base", "circle", "itself", "a number"],
)
def test_mistakes_are_named(changes, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        with_presets({"runs": {}, "samplers": {}, **changes})


def test_what_is_of_the_wrong_shape_is_left_to_the_schema():
    config = {"presets": "table1", "runs": [], "samplers": {"a": None}}
    assert with_presets(config) == {"presets": "table1", "runs": [], "samplers": {"a": None}}
