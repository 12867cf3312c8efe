"""What rules look up in the configuration, without Snakemake."""

import copy
import json
from argparse import Namespace

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.cli import UserError
from diffit.config.result_lookups import ResultLookups
from diffit.config.schema import archive_schema
from diffit.config.toy_runs import complete
from diffit.registry.arguments import described
from diffit.store import files


@pytest.fixture(scope="module")
def completed() -> dict:
    return complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)


@pytest.fixture
def config(completed) -> dict:
    return copy.deepcopy(completed)


@pytest.fixture
def look(config, tmp_path) -> ResultLookups:
    return ResultLookups(config, tmp_path)


def of(**names) -> Namespace:
    """Wildcards of these values."""
    return Namespace(**names)


def test_unknown_names_are_refused_with_the_nearest(look):
    for lookup, name, meant in [
        (look.dataset, "cifar1O", "cifar10"), (look.vae, "digits-vea", "digits-vae"),
        (look.sampler, "heun18-50", "heun18-50k"), (look.run, "digit", "digits"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=f"did you mean '{meant}'"):
            lookup(name)


def test_the_description_of_a_data_set_leaves_out_what_changes_no_image(look):
    spec = json.loads(look.dataset_spec(of(dataset="imagenet256")))
    assert spec["resolution"] == 256 and not spec.keys() & {"shards", "references"}


def test_a_folder_is_watched_while_it_exists_and_then_as_it_was_recorded(look, config, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    config["datasets"]["ffhq64"] |= {"path": str(pictures)}
    assert look.folder_state(of(dataset="ffhq64")) == files.modified(pictures)
    assert look.folder_state(of(dataset="digits")) is None
    pictures.rmdir()
    with pytest.raises(UserError, match=r"^datasets\.ffhq64\.path: '.*pictures' does not exist or is not a directory"):
        look.folder_state(of(dataset="ffhq64"))
    record = tmp_path / "results/archives/ffhq64/archive.json"
    files.write_json(record, {"path": str(pictures), "modified": 7})
    assert look.folder_state(of(dataset="ffhq64")) == 7
    files.write_json(record, {"path": str(tmp_path / "others"), "modified": 7})
    with pytest.raises(UserError, match=r"datasets\.ffhq64\.path"):
        look.folder_state(of(dataset="ffhq64"))
    config["datasets"]["ffhq64"]["path"] = None
    with pytest.raises(UserError, match=r"^datasets\.ffhq64\.path: is not set; set it to the folder of your images"):
        look.folder_state(of(dataset="ffhq64"))


def test_a_missing_file_of_the_user_is_named_by_its_key(look, config):
    config["datasets"]["cifar10"]["path"] = config["inception"]["path"] = "nowhere"
    config["vaes"]["sd-vae-ft-ema"]["path"] = config["runs"]["imagenet256_released"]["weights"]["path"] = "nowhere"
    for lookup, wildcards, key in [
        (look.folder_state, of(dataset="cifar10"), "datasets.cifar10.path"),
        (look.inception_spec, of(), "inception.path"),
        (look.vae_spec, of(vae="sd-vae-ft-ema"), "vaes.sd-vae-ft-ema.path"),
        (look.release_spec, of(run="imagenet256_released"), "runs.imagenet256_released.weights.path"),
    ]:
        with pytest.raises(UserError, match=f"^{key}: 'nowhere' does not exist; correct it or put the file there"):
            lookup(wildcards)


def test_missing_files_can_be_reported_without_ending_a_plan(look, config):
    config["datasets"]["ffhq64"]["path"], reported = "nowhere", []
    look.report_missing = reported.append
    assert look.folder_state(of(dataset="ffhq64")) is None
    assert [str(error).partition(":")[0] for error in reported] == ["datasets.ffhq64.path"]


def test_a_latent_run_trains_on_latents_and_an_image_space_run_on_images(look):
    assert look.run_data(of(run="digits")) == "results/data/digits/manifest.json"
    assert look.run_data(of(run="digits_latent")) == "results/latents/digits32/digits-vae/manifest.json"


def test_what_a_run_is_does_not_depend_on_milestones_samplers_or_the_path_of_its_vae(look, config):
    before = look.run_spec(of(run="digits_latent"))
    config["runs"]["digits_latent"] |= {"milestones": [1], "sampler": "heun18-demo", "baselines": []}
    assert look.run_spec(of(run="digits_latent")) == before
    spec = json.loads(look.run_spec(of(run="imagenet256")))
    assert "path" not in spec["vae_spec"] and spec["vae_spec"]["scale"] == 0.18215


def test_a_run_that_began_with_another_description_is_refused(look, tmp_path):
    begun = json.loads(look.run_spec(of(run="digits")))
    begun["training"]["batch"] = 32
    files.write_json(tmp_path / "results/runs/digits/state/run.json", begun)
    with pytest.raises(UserError, match=r"training.batch: 32 → 64"):
        look.run_spec(of(run="digits"))


def test_published_weights_are_not_trained_and_trained_ones_not_released(look):
    for lookup in (look.run_spec, look.trained_weights):
        with pytest.raises(UserError, match="published"):
            lookup(of(run="imagenet256_released"))
    for lookup in (look.release_vae,):
        with pytest.raises(UserError, match="is trained"):
            lookup(of(run="digits"))
    assert look.release_vae(of(run="imagenet256_released")) == "results/vaes/sd-vae-ft-ema/vae.json"
    assert look.last_kimg("imagenet256_released") == "released" and look.last_kimg("digits") == 64


def test_sets_of_a_sampler_are_sampled_as_one(look):
    spec = json.loads(look.sampler_spec(of(run="cifar10", sampler="heun18-50k")))
    assert spec["images"] == 150_000 and not spec.keys() & {"sets", "shards"}


def test_a_sampler_of_another_process_is_refused(look):
    with pytest.raises(UserError, match="cannot be sampled"):
        look.sampler_spec(of(run="digits", sampler="ddpm50-demo"))


def test_samples_of_a_latent_run_are_decoded_by_its_vae_or_by_the_samplers(look, config):
    names = of(run="digits_latent", sampler="ddpm50-demo")
    assert look.sample_decoder(names) == "results/vaes/digits-vae/vae.json"
    config["samplers"]["other"] = {**config["samplers"]["ddpm50-demo"], "decoder": "sd-vae-ft-mse"}
    assert look.sample_decoder(of(run="digits_latent", sampler="other")) == "results/vaes/sd-vae-ft-mse/vae.json"
    assert look.sample_decoder(of(run="digits", sampler="heun18-demo")) == []


def test_shards_are_those_of_the_data_set_or_of_the_sampler(look):
    assert len(look.data_shards(of(dataset="cifar10"))) == 8
    assert len(look.latent_shards(of(dataset="digits32", vae="digits-vae"))) == 2
    assert len(look.sample_shards(of(run="cifar10", kimg="102400", sampler="heun18-50k"))) == 12
    assert look.feature_shards(of(images="data/digits", protocol="clean")) == [
        f"results/data/digits/features/clean/{k}-of-2.npz" for k in range(2)
    ]
    assert len(look.feature_shards(of(images="samples/cifar10/102400/heun18-50k", protocol="edm"))) == 12


def test_a_reference_is_the_data_sets_own_or_the_one_that_stands_for_it(look):
    own, other = of(dataset="imagenet256", protocol="clean"), of(dataset="imagenet256", protocol="adm")
    assert look.reference_features(own) == "results/data/imagenet256/features/clean/manifest.json"
    assert look.reference_archive(own) == []
    assert look.reference_features(other) == "results/data/imagenet256_adm/features/adm/manifest.json"
    assert look.reference_archive(other) == "results/archives/imagenet256_adm/archive.json"


def test_codes_follow_the_parts_of_a_run(look):
    digits = of(run="digits", sampler="heun18-demo")
    assert look.sample_code(digits) == look.sample_code(of(run="cifar10", sampler="heun18-50k"))
    assert look.sample_code(digits) != look.sample_code(of(run="cifar10_ddpmpp_vp", sampler="heun18-50k"))
    assert look.measure_code(of(protocol="clean")) != look.measure_code(of(protocol="adm"))
    assert look.source_code("shard", of(dataset="digits")) == look.source_code("shard", of(dataset="digits32"))
    assert look.source_code("shard", of(dataset="digits")) != look.source_code("shard", of(dataset="cifar10"))


def test_options_of_the_score_stage_are_the_runs(look):
    options = look.score_options(of(run="digits", sampler="heun18-demo", protocol="clean"))
    assert options.split() == ["--images", "250", "--protocol", "clean", "--real-baseline"]
    options = look.score_options(of(run="digits_latent", sampler="ddpm50-demo", protocol="clean"))
    assert "--class-accuracy" in options


def test_a_result_shows_the_last_milestone_and_the_untrained_network(look):
    assert look.result_scores(of(run="digits")) == [
        f"results/scores/digits/{kimg}/heun18-demo/clean.json" for kimg in (64, 0)
    ]
    assert look.result_samples(of(run="digits")) == "results/samples/digits/64/heun18-demo/manifest.json"
    assert look.result_curve(of(run="digits")) == "results/digits_curve.png"
    assert look.result_curve(of(run="imagenet256_released")) == []


def test_the_jobs_of_a_result_are_named_by_stage(look):
    jobs = [job.partition("=")[0] for job in look.result_jobs(of(run="digits_latent"))]
    assert jobs == ["shard", "vae", "encode", "train", "sample", "measure", "measure"]
    jobs = look.result_jobs(of(run="imagenet256_released"))
    assert "shard=results/data/imagenet256_adm/manifest.json" in jobs
    assert not any(job.startswith(("train=", "encode=")) for job in jobs)


@pytest.mark.parametrize("inception", [{}, {"url": "https://host/inception.pt"}, {"sha256": "0" * 64}])
def test_the_download_stage_accepts_the_inception_network_as_the_configuration_describes_it(config, inception):
    config["inception"] |= inception
    spec = ResultLookups(config).inception_spec(of())
    assert described("the data set", archive_schema)(spec).items() >= inception.items()
