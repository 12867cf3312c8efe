"""The path templates of results and logs."""

import re

from helpers.places import REPOSITORY

from diffit.config import paths

RULES = sorted((REPOSITORY / "workflow/rules").glob("*.smk"))
TEMPLATES = {name: value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}


def test_all_results_and_logs_lie_in_two_folders():
    assert all(path.startswith("results/") for path in TEMPLATES.values())
    assert all(path.startswith("logs/") and path.endswith(".log") for path in paths.LOGS.values())


def test_no_two_templates_are_the_same_path():
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)
    assert len(set(paths.LOGS.values())) == len(paths.LOGS)


def test_rules_contain_no_path_of_a_result_or_log():
    for path in RULES:
        assert not re.search(r"""["'](results|logs)/""", path.read_text()), path


def test_each_rule_has_its_own_log_and_each_log_its_rule():
    text = "\n".join(path.read_text() for path in RULES)
    rules = re.findall(r"^rule (\w+):(.*?)(?=^rule |\Z)", text, re.MULTILINE | re.DOTALL)
    logs = {name: re.search(r'paths\.LOGS\["(\w+)"\]', body) for name, body in rules if "shell:" in body}
    assert {name: found and found[1] for name, found in logs.items()} == {
        **{name: name for name in paths.LOGS},
        "train_vae": "vae",
    }


def test_shards_are_counted_from_zero():
    made = paths.shards(paths.SAMPLE_SHARD, 2, run="r", kimg=3, sampler="s")
    assert made == ["results/samples/r/3/s/0-of-2.tar", "results/samples/r/3/s/1-of-2.tar"]


def test_images_of_data_and_of_samples_are_measured_in_the_same_place():
    samples = paths.samples_of("r", 3, "s")
    assert paths.IMAGES.format(images=samples) == paths.SAMPLES.format(run="r", kimg=3, sampler="s")
    assert paths.FEATURES.format(images=samples, protocol="p") == paths.SAMPLE_FEATURES.format(
        run="r", kimg=3, sampler="s", protocol="p"
    )
    assert paths.IMAGES.format(images=paths.data_of("d")) == paths.DATA.format(dataset="d")
