"""The paper's runs and samplers, setting by setting, each with its source.

A recipe is written out as ``{setting: (value, source)}``. A run that varies another one names it and only what differs.
Sources:

- paper X: section or table X of the published text (arXiv 2312.02139v3)
- release: NVIDIA's repository NVlabs/DiffiT, its sampling script and page
- EDM: the code NVlabs/edm (train.py, training/training_loop.py, training/loss.py, README)
- EDM's Table N: the paper of EDM; from memory, because its text could not be looked up
- ADM: the code openai/guided-diffusion, whose diffusion the paper uses (I.2)
- DiT: the code facebookresearch/DiT (train.py, models.py), and its paper for lengths
- Song: the code yang-song/score_sde_pytorch, configs/{vp,ve}/cifar10_{ddpmpp,ncsnpp}_continuous.py
- ours: our choice, because no source states it
"""

import copy
import math

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.config.presets import FOLDER
from diffit.config.toy_runs import complete

CONFIG = complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)
PRESETS = [yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / FOLDER).glob("*.yaml"))]
RUNS = sorted(name for preset in PRESETS for name in preset.get("runs", {}))
SAMPLERS = sorted(name for preset in PRESETS for name in preset.get("samplers", {}))
IGNORED = {"paper", "baselines", "class_accuracy", "seed"}  # of a run: not part of its recipe


def halflife(decay: float, batch: int) -> float:
    """The half-life in kimg of an average with a decay per step."""
    return round(batch * math.log(0.5) / math.log(decay) / 1000, 1)


# ------------------------------------------------------------------------------------------------------ image space

CIFAR10 = {
    "dataset": ("cifar10", "paper 4.2, I.1"),
    "vae": (None, "paper 3.2.2: image space"),
    "net.kind": ("ushaped", "paper 3.2.2, Figure 4"),
    "net.width": (128, "paper Table S.2 at 64×64; EDM: model_channels 128"),
    "net.multipliers": ([2, 2, 2], "EDM: channel_mult of CIFAR-10; paper I.1: 3 stages"),
    "net.blocks": (4, "paper H.1: L1 to L3 are 4"),
    "net.window": (4, "paper I.1"),
    "net.head_dim": (64, "ours"),
    "net.mlp_ratio": (4, "ours; paper H.2 has 4 in the latent network"),
    "net.time_dim": (512, "paper 5.1, Table 3"),
    "net.groups": (32, "ours; EDM has 32 groups, too"),
    "net.dropout": (0.13, "EDM: --dropout, default"),
    "process.kind": ("edm", "paper I.1: EDM's training configuration"),
    "process.sigma_data": (0.5, "EDM: EDMLoss, EDMPrecond"),
    "process.p_mean": (-1.2, "EDM: EDMLoss"),
    "process.p_std": (1.2, "EDM: EDMLoss"),
    "process.augment.probability": (0.12, "EDM: --augment, default"),
    "process.augment.xflip": (True, "EDM: the augmentation mirrors, xflip=1e8"),
    "training.batch": (512, "paper I.1"),
    "training.optimizer": ("adam", "paper I.1"),
    "training.learning_rate": (1e-3, "paper I.1"),
    "training.betas": ([0.9, 0.999], "EDM: optimizer_kwargs"),
    "training.weight_decay": (0, "EDM: torch.optim.Adam without weight decay"),
    "training.warmup_kimg": (10_000, "EDM: lr_rampup_kimg"),
    "training.ema_halflife_kimg": (500, "EDM: --ema, default"),
    "training.ema_rampup": (0.05, "EDM: ema_rampup_ratio"),
    "training.precision": ("bfloat16", "ours; EDM: float32, --fp16 off, allow_tf32 off"),
    "milestones": ([102_400], "paper I.1: 200,000 iterations of 512 images"),
    "sampler": ("heun18-50k", "paper I.1: 18 steps"),
    "protocols": (["edm", "clean"], "paper I.1: 50K samples against the training set, as EDM; clean is ours"),
}

# EDM's row `ffhq-64x64-uncond-vp`: --batch=256 --cres=1,2,2,2 --lr=2e-4 --dropout=0.05 --augment=0.15
FFHQ64 = {
    **CIFAR10,
    "dataset": ("ffhq64", "paper 4.2, I.1"),
    "net.multipliers": ([1, 2, 2, 2], "paper I.1 and Table S.2; EDM: --cres=1,2,2,2"),
    "net.blocks": (4, "paper H.1: L1 to L4 are 4"),
    "net.window": (8, "paper I.1"),
    "net.dropout": (0.05, "EDM: --dropout=0.05"),
    "process.augment.probability": (0.15, "EDM: --augment=0.15"),
    "training.batch": (256, "paper I.1"),
    "training.learning_rate": (2e-4, "paper I.1"),
    "milestones": ([51_200], "paper I.1: 200,000 iterations of 256 images"),
    "sampler": ("heun40-50k", "paper I.1: 40 steps"),
}

DDPMPP_VP = {
    "dataset": ("cifar10", "paper 5.3"),
    "vae": (None, "paper 5.3: image space"),
    "net.kind": ("song", "paper 5.3: the DDPM++ model"),
    "net.form": ("ddpmpp", "paper Table 5; Song: fir off, embedding_type positional, progressive_input none"),
    "net.width": (128, "Song: model.nf"),
    "net.multipliers": ([1, 2, 2, 2], "Song: model.ch_mult"),
    "net.blocks": (4, "Song: model.num_res_blocks"),
    "net.attention_resolution": (16, "Song: model.attn_resolutions"),
    "net.tmsa": (False, "paper Table 5: TMSA no"),
    "net.dropout": (0.1, "Song: model.dropout"),
    "process.kind": ("vp", "paper Table 5; Song: training.sde"),
    "process.augment.probability": (0, "Song: no augmentation but flips"),
    "process.augment.xflip": (False, "Song: the network is told nothing of flips"),
    "process.xflip": (True, "Song: data.random_flip; EDM's Table 7: dataset x-flips"),
    "training.batch": (128, "Song: training.batch_size"),
    "training.optimizer": ("adam", "Song: optim.optimizer"),
    "training.learning_rate": (2e-4, "Song: optim.lr"),
    "training.betas": ([0.9, 0.999], "Song: optim.beta1, and Adam's default"),
    "training.weight_decay": (0, "Song: optim.weight_decay"),
    "training.warmup_kimg": (640, "Song: optim.warmup, 5,000 steps of 128 images"),
    "training.ema_halflife_kimg": (halflife(0.9999, 128), "Song: model.ema_rate 0.9999"),
    "training.ema_rampup": (None, "Song: the training loop has none"),
    "training.clip_norm": (3072, "Song: optim.grad_clip 1 of a mean over 3,072 values; our losses are sums"),
    "training.precision": ("bfloat16", "ours; EDM: float32, allow_tf32 off"),
    "milestones": ([200_000], "EDM: --duration, default 200 Mimg; Song: n_iters, 166,400 kimg"),
    "sampler": ("heun18-50k", "EDM: 18 steps at 32×32"),
    "protocols": (["edm", "clean"], "EDM's FIDs are cited; clean is ours"),
}

NCSNPP_VE = {
    **DDPMPP_VP,
    "net.form": ("ncsnpp", "EDM: NCSN++ for VE; Song: fir on, embedding_type fourier, progressive_input residual"),
    "process.kind": ("ve", "paper Table 5; Song: training.sde"),
    "training.ema_halflife_kimg": (halflife(0.999, 128), "Song: model.ema_rate 0.999"),
    "training.clip_norm": (2, "Song: optim.grad_clip 1 of half a sum; our losses are sums"),
}

CONFIG_A = {
    **CIFAR10,
    "net.kind": ("vit", "paper 5.2: ViT with a SETR-MLA decoder"),
    "net.patch_size": (2, "ours"),
    "net.width": (128, "ours: width × multiplier is ViT-B's 768"),
    "net.multipliers": ([6], "paper 5.2: ViT base; one resolution"),
    "net.depth": (12, "paper 5.2: 12 layers"),
    "net.decoder_dim": (128, "ours"),
}
for key in ("net.blocks", "net.window"):
    del CONFIG_A[key]

# ----------------------------------------------------------------------------------------------------- latent space

IMAGENET256 = {
    "dataset": ("imagenet256", "paper 4.1"),
    "vae": ("sd-vae-ft-ema", "release: sample.py, vae_decoder ema; paper 3.2.1 cites [59]"),
    "net.kind": ("latent", "paper 3.2.1, Figure 3"),
    "net.patch_size": (2, "paper H.2"),
    "net.hidden_size": (1152, "paper H.2"),
    "net.depth": (28, "release: the weights have 28 blocks; paper H.2 says 30"),
    "net.num_heads": (16, "paper H.2"),
    "net.mlp_ratio": (4, "paper H.2"),
    "process.kind": ("ddpm", "paper I.2: ADM's diffusion"),
    "process.timesteps": (1000, "ADM: diffusion_steps"),
    "process.label_dropout": (0.1, "DiT: class_dropout_prob"),
    "process.xflip": (True, "DiT: RandomHorizontalFlip"),
    "training.batch": (256, "paper I.2"),
    "training.optimizer": ("adamw", "DiT: AdamW; paper I.1 names Adam for image space only"),
    "training.learning_rate": (3e-4, "paper I.2"),
    "training.betas": ([0.9, 0.999], "DiT: AdamW's default"),
    "training.weight_decay": (0, "DiT: weight_decay=0"),
    "training.warmup_kimg": (0, "DiT: a constant learning rate"),
    "training.ema_halflife_kimg": (halflife(0.9999, 256), "paper I.2: decay 0.9999"),
    "training.ema_rampup": (None, "DiT: none"),
    "training.precision": ("bfloat16", "ours; DiT: float32 with allow_tf32"),
    "milestones": (
        [25_600, 102_400, 256_000, 512_000, 1_024_000, 1_792_000],
        "ours: the last one is DiT's 7M steps of 256 images",
    ),
    "sampler": ("ddpm250-cosine-50k", "paper I.2, 5.8"),
    "protocols": (["adm", "clean"], "paper Table 1: ADM's evaluator; clean is ours"),
}

IMAGENET512 = {
    **IMAGENET256,
    "dataset": ("imagenet512", "paper 4.1"),
    "training.batch": (512, "paper I.2"),
    "training.learning_rate": (1e-4, "paper I.2"),
    "training.ema_halflife_kimg": (halflife(0.9999, 512), "paper I.2: decay 0.9999"),
    "milestones": ([25_600, 102_400, 256_000, 512_000, 768_000], "ours: the last one is DiT's 3M steps of 256 images"),
    "sampler": ("ddpm250-constant-50k", "paper I.2, 5.8"),
}

RELEASED256 = {
    **{key: value for key, value in IMAGENET256.items() if not key.startswith(("training.", "milestones"))},
    "weights.repository": ("nvidia/DiffiT", "release"),
    "weights.file": ("diffit_256.safetensors", "release: slurm_sample_256.sh"),
    "weights.classes": (1000, "release: NUM_CLASSES"),
    "weights.revision": (None, "ours: the newest"),
    "weights.path": (None, "ours: downloaded"),
    "weights.sha256": (None, "ours: not pinned"),
    "sampler": ("ddpm250-cosine-4_4-50k", "release: slurm_sample_256.sh, --cfg_scale 4.4"),
    "protocols": (["adm"], "paper Table 1: ADM's evaluator"),
}

RECIPES = {
    "cifar10": CIFAR10,
    "ffhq64": FFHQ64,
    "cifar10_config_a": CONFIG_A,
    "cifar10_ddpmpp_vp": DDPMPP_VP,
    "cifar10_ncsnpp_ve": NCSNPP_VE,
    "imagenet256": IMAGENET256,
    "imagenet512": IMAGENET512,
    "imagenet256_released": RELEASED256,
}

DIT = {
    "net.kind": ("dit", "paper 5.9: DiT-XL"),
    "net.conditioning": ("adaln-zero", "paper 5.9: its original modulation"),
    "training.learning_rate": (1e-4, "DiT: lr"),
    "milestones": ([25_600 * i for i in range(1, 11)], "paper 5.9: 1000K iterations; DiT: of 256 images"),
    "sampler": ("ddpm250-unguided-50k", "paper Figure 7 (b): FIDs from 14 to 24 are those of no guidance"),
}

# A run, the run that it varies, and what differs.
VARIANTS = {
    "cifar10_edm_length": ("cifar10", {"milestones": ([200_000], "EDM: --duration, default 200 Mimg")}),
    "ffhq64_edm_length": ("ffhq64", {"milestones": ([200_000], "EDM: --duration, default 200 Mimg")}),
    "cifar10_token512": ("cifar10", {"net.width": (256, "paper Table 3: token dimension 512 is 2 × 256")}),
    "ffhq64_token512": ("ffhq64", {"net.width": (256, "paper Table 3: token dimension 512 is 2 × 256")}),
    "cifar10_time256": ("cifar10", {"net.time_dim": (256, "paper Table 3")}),
    "ffhq64_time256": ("ffhq64", {"net.time_dim": (256, "paper Table 3")}),
    "cifar10_config_b": ("cifar10_config_a", {"net.multipliers": ([1, 2, 2, 4], "paper 5.2: 4 stages; ours: widths")}),
    "cifar10_config_c": (
        "cifar10",
        {
            "net.encoder": ("vit", "paper Table 4: Multi-Resolution"),
            "net.decoder": ("vit", "paper Table 4: Multi-Resolution"),
            "net.multipliers": ([2, 2, 2, 2], "paper 5.2: 4 stages; ours: widths"),
        },
    ),
    "cifar10_config_d": ("cifar10", {"net.decoder": ("vit", "paper Table 4: Multi-Resolution")}),
    "cifar10_ddpmpp_vp_tmsa": ("cifar10_ddpmpp_vp", {"net.tmsa": (True, "paper Table 5: TMSA yes")}),
    "cifar10_ncsnpp_ve_tmsa": ("cifar10_ncsnpp_ve", {"net.tmsa": (True, "paper Table 5: TMSA yes")}),
    "cifar10_time_in_bias": ("cifar10", {"net.transformer": ("time-in-bias", "paper 5.4, F")}),
    "cifar10_time_in_mlp": ("cifar10", {"net.transformer": ("time-in-mlp", "paper 5.4, G")}),
    "cifar10_separate": ("cifar10", {"net.transformer": ("separate", "paper 5.5")}),
    "ffhq64_separate": ("ffhq64", {"net.transformer": ("separate", "paper 5.5")}),
    "cifar10_time_token": ("cifar10", {"net.transformer": ("time-token", "paper 5.5, its other reading")}),
    "ffhq64_time_token": ("ffhq64", {"net.transformer": ("time-token", "paper 5.5, its other reading")}),
    "cifar10_fourier": ("cifar10", {"net.time_embedding": ("fourier", "paper 5.6")}),
    "ffhq64_fourier": ("ffhq64", {"net.time_embedding": ("fourier", "paper 5.6")}),
    "cifar10_window2": ("cifar10", {"net.window": (2, "paper Figure 8")}),
    "cifar10_window8": ("cifar10", {"net.window": (8, "paper Figure 8")}),
    "ffhq64_window2": ("ffhq64", {"net.window": (2, "paper Figure 8")}),
    "ffhq64_window4": ("ffhq64", {"net.window": (4, "paper Figure 8")}),
    "cifar10_bilinear": ("cifar10", {"net.resizing": ("bilinear", "paper I.1")}),
    "ffhq64_bilinear": ("ffhq64", {"net.resizing": ("bilinear", "paper I.1")}),
    "imagenet256_dit": ("imagenet256", DIT),
    "imagenet256_dit_tmsa": ("imagenet256_dit", {"net.conditioning": ("tmsa", "paper 5.9")}),
    "imagenet512_released": (
        "imagenet256_released",
        {
            "dataset": ("imagenet512", "paper 4.1"),
            "weights.file": ("diffit_512.safetensors", "release: slurm_sample_512.sh"),
            "sampler": ("ddpm250-constant-50k", "release: slurm_sample_512.sh, --cfg_scale 1.49"),
        },
    ),
}

# --------------------------------------------------------------------------------------------------------- samplers

HEUN18 = {
    "kind": ("heun", "paper I.1: EDM's sampler"),
    "steps": (18, "paper I.1"),
    "images": (50_000, "paper I.1: 50K samples"),
    "sets": (3, "EDM: README, the minimum of three calculations"),
    "first_seed": (0, "EDM: README, seeds from 0"),
    "sigma_min": (0.002, "EDM: generate.py"),
    "sigma_max": (80, "EDM: generate.py"),
    "rho": (7, "EDM: generate.py"),
    "s_churn": (0, "paper I.1: deterministic"),
    "precision": ("float32", "ours; EDM: float32, too"),
}
COSINE256 = {
    "kind": ("ddpm", "paper I.2"),
    "steps": (250, "paper I.2"),
    "images": (50_000, "paper I.2: FID-50K"),
    "sets": (1, "release: slurm_sample_256.sh, --num_samples 50000"),
    "labels": ("random", "release: sample.py, randint"),
    "decoder": (None, "release: sample.py, the decoder of the same VAE"),
    "precision": ("tf32", "release: sample.py, allow_tf32"),
    "guidance.kind": ("power-cosine", "paper 5.8: ImageNet-256"),
    "guidance.weight": (4.6, "paper 5.8"),
    "guidance.power": (4, "release: sample.py, scale_pow"),
    "guidance.channels": (3, "paper H.2: the first three channels"),
    "guidance.tolerance": (0, "ours: exact"),
}
CONSTANT512 = {
    **{key: value for key, value in COSINE256.items() if key != "guidance.power"},
    "guidance.kind": ("constant", "paper 5.8: no power-cosine schedule for ImageNet-512"),
    "guidance.weight": (1.49, "paper 5.8; release: slurm_sample_512.sh"),
}
SCALES = "ours: paper Figure 7 (a) prints no scales"
PICTURES = {
    "images": (64, "ours: pictures"),
    "labels": ([207, 88, 387, 250, 279, 360, 980, 975], "ours: paper names no classes"),
}
SAMPLER_RECIPES = {
    "heun18-50k": HEUN18,
    "heun40-50k": {**HEUN18, "steps": (40, "paper I.1")},
    "heun18-churn-50k": {
        **HEUN18,
        "s_churn": (30, "EDM's Table 5, CIFAR-10"),
        "s_min": (0.01, "EDM's Table 5, CIFAR-10"),
        "s_max": (1, "EDM's Table 5, CIFAR-10"),
        "s_noise": (1.007, "EDM's Table 5, CIFAR-10"),
    },
    "ddpm250-cosine-50k": COSINE256,
    "ddpm250-cosine-4_4-50k": {**COSINE256, "guidance.weight": (4.4, "release: slurm_sample_256.sh")},
    "ddpm250-cosine-3_8-50k": {**COSINE256, "guidance.weight": (3.8, SCALES)},
    "ddpm250-cosine-4_2-50k": {**COSINE256, "guidance.weight": (4.2, SCALES)},
    "ddpm250-cosine-5_0-50k": {**COSINE256, "guidance.weight": (5.0, SCALES)},
    "ddpm250-unguided-50k": {
        **{key: value for key, value in COSINE256.items() if not key.startswith("guidance")},
        "guidance.kind": ("none", "paper Figure 7 (b): FIDs from 14 to 24"),
    },
    "classes-256": {**COSINE256, **PICTURES},
    "ddpm250-constant-50k": CONSTANT512,
    "ddpm250-constant-1_3-50k": {**CONSTANT512, "guidance.weight": (1.3, SCALES)},
    "ddpm250-constant-1_4-50k": {**CONSTANT512, "guidance.weight": (1.4, SCALES)},
    "ddpm250-constant-1_6-50k": {**CONSTANT512, "guidance.weight": (1.6, SCALES)},
    "classes-512": {**CONSTANT512, **PICTURES},
}


# ------------------------------------------------------------------------------------------------------------ tests


def flat(section: dict, prefix: str = "") -> dict:
    """Nested settings as ``{"training.batch": 512}``."""
    found = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def settings(name: str) -> dict:
    run = {key: value for key, value in copy.deepcopy(CONFIG["runs"][name]).items() if key not in IGNORED}
    return flat(run)


def values(recipe: dict) -> dict:
    return {key: value for key, (value, _) in recipe.items()}


def test_every_run_and_sampler_of_the_paper_has_a_recipe():
    assert sorted(RECIPES.keys() | VARIANTS.keys()) == RUNS
    assert sorted(SAMPLER_RECIPES) == SAMPLERS


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_has_the_settings_of_its_sources(name):
    found = settings(name)
    assert found == values(RECIPES[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_its_base_in_what_its_source_says(name):
    base, changes = VARIANTS[name]
    before, after = settings(base), settings(name)
    differing = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {key: after.get(key, "is missing") for key in differing} == values(changes)


@pytest.mark.parametrize("name", SAMPLER_RECIPES)
def test_a_sampler_has_the_settings_of_its_sources(name):
    found = flat(CONFIG["samplers"][name])
    recipe = SAMPLER_RECIPES[name]
    assert {key: found.get(key, "is missing") for key in recipe} == values(recipe)
    unused = {"s_min", "s_max", "s_noise"} if recipe.get("s_churn", (0,))[0] == 0 else set()
    assert found.keys() - recipe.keys() <= {"shards", "block", "first_seed", *unused}


@pytest.mark.parametrize(
    ("name", "iterations"),
    [
        ("cifar10", 200_000), ("ffhq64", 200_000), ("imagenet256", 7_000_000), ("imagenet512", 1_500_000),
        ("imagenet256_dit", 1_000_000), ("cifar10_edm_length", 390_625), ("cifar10_ddpmpp_vp", 1_562_500),
    ],
)  # fmt: skip
def test_lengths_are_the_stated_iterations(name, iterations):
    run = CONFIG["runs"][name]
    assert run["milestones"][-1] * 1000 == iterations * run["training"]["batch"]
