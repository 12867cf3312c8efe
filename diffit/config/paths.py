"""Where everything is: the path templates of results and logs, relative to the workflow's folder.

Braces are Snakemake's wildcards; Python fills them in with ``format``. ``shard`` is a number from 0 to ``shards`` - 1.
``images`` is ``data/{dataset}`` or ``samples/{run}/{kimg}/{sampler}``: both are measured in the same way. ``toy`` is
``toy_`` or empty.
"""

# What the download stage leaves.
ARCHIVE = "results/archives/{dataset}/archive.json"
INCEPTION = "results/archives/inception/archive.json"

# Image and latent shards: the tar, its sidecar and its index; the manifest of all shards.
DATA = "results/data/{dataset}/manifest.json"
DATA_SHARD = "results/data/{dataset}/{shard}-of-{shards}.tar"
DATA_SIDECAR = "results/data/{dataset}/{shard}-of-{shards}.json"
DATA_INDEX = "results/data/{dataset}/{shard}-of-{shards}.index.npz"
VAE_WEIGHTS = "results/vaes/{vae}/vae.safetensors"
VAE = "results/vaes/{vae}/vae.json"
LATENTS = "results/latents/{dataset}/{vae}/manifest.json"
LATENT_SHARD = "results/latents/{dataset}/{vae}/{shard}-of-{shards}.tar"
LATENT_SIDECAR = "results/latents/{dataset}/{vae}/{shard}-of-{shards}.json"
LATENT_INDEX = "results/latents/{dataset}/{vae}/{shard}-of-{shards}.index.npz"

# A run: its milestones, and the state that its training keeps beside them (see diffit/runs/).
RUN = "results/runs/{run}"
RUN_STATE = "results/runs/{run}/state"
RUN_RECORD = "results/runs/{run}/state/run.json"
RUN_LEGS = "results/runs/{run}/state/legs.json"
RUN_LOG = "results/runs/{run}/state/log.jsonl"
MILESTONE = "results/runs/{run}/{kimg}/ema.safetensors"
MILESTONE_RECORD = "results/runs/{run}/{kimg}/config.json"
RELEASED = "results/runs/{run}/released/ema.safetensors"
RELEASED_RECORD = "results/runs/{run}/released/config.json"

SAMPLES = "results/samples/{run}/{kimg}/{sampler}/manifest.json"
SAMPLE_SHARD = "results/samples/{run}/{kimg}/{sampler}/{shard}-of-{shards}.tar"
SAMPLE_SIDECAR = "results/samples/{run}/{kimg}/{sampler}/{shard}-of-{shards}.json"
SAMPLE_INDEX = "results/samples/{run}/{kimg}/{sampler}/{shard}-of-{shards}.index.npz"
SAMPLES_NPZ = "results/samples/{run}/{kimg}/{sampler}/samples_{shape}.npz"

IMAGES = "results/{images}/manifest.json"
IMAGE_SHARD = "results/{images}/{shard}-of-{shards}.tar"
FEATURES = "results/{images}/features/{protocol}/manifest.json"
FEATURE_SHARD = "results/{images}/features/{protocol}/{shard}-of-{shards}.npz"
FEATURE_SIDECAR = "results/{images}/features/{protocol}/{shard}-of-{shards}.json"
SAMPLE_FEATURES = "results/samples/{run}/{kimg}/{sampler}/features/{protocol}/manifest.json"
REFERENCE = "results/data/{dataset}/references/{protocol}.npz"
REFERENCE_SIDECAR = "results/data/{dataset}/references/{protocol}.json"
SCORE = "results/scores/{run}/{kimg}/{sampler}/{protocol}.json"

# The results of a run.
RESULT = "results/{run}_fid.csv"
RESULT_MARKDOWN = "results/{run}_fid.md"
GRID = "results/{run}_grid.png"
CURVE = "results/{run}_curve.png"
COST = "results/{run}_cost.csv"
COST_MARKDOWN = "results/{run}_cost.md"

# The paper's tables and figures, and the same of toys.
TABLE = "results/{toy}tables/{table}.csv"
TABLE_MARKDOWN = "results/{toy}tables/{table}.md"
TABLE_LATEX = "results/{toy}tables/{table}.tex"
TABLE_PLOT = "results/{toy}tables/{table}.png"
FIGURE = "results/{toy}figures/{figure}.png"
SUMMARY = "results/{toy}summary.md"
GPU_HOURS = "results/{toy}gpu_hours.csv"
GPU_HOURS_MARKDOWN = "results/{toy}gpu_hours.md"

# The log of each rule.
LOGS = {
    "download": "logs/download/{dataset}.log",
    "download_inception": "logs/download/inception.log",
    "shard": "logs/shard/{dataset}/{shard}-of-{shards}.log",
    "gather_data": "logs/shard/{dataset}.log",
    "vae": "logs/vae/{vae}.log",
    "encode": "logs/encode/{dataset}/{vae}/{shard}-of-{shards}.log",
    "gather_latents": "logs/encode/{dataset}/{vae}.log",
    "train": "logs/train/{run}/{kimg}.log",
    "release": "logs/release/{run}.log",
    "sample": "logs/sample/{run}/{kimg}/{sampler}/{shard}-of-{shards}.log",
    "gather_samples": "logs/sample/{run}/{kimg}/{sampler}.log",
    "export": "logs/export/{run}/{kimg}/{sampler}/{shape}.log",
    "measure": "logs/measure/{images}/{protocol}/{shard}-of-{shards}.log",
    "gather_features": "logs/measure/{images}/{protocol}.log",
    "reference": "logs/reference/{dataset}/{protocol}.log",
    "score": "logs/score/{run}/{kimg}/{sampler}/{protocol}.log",
    "cost": "logs/cost/{run}.log",
    "tabulate": "logs/tabulate/{run}.log",
    "curve": "logs/curve/{run}.log",
    "table": "logs/{toy}tables/{table}.log",
    "plot": "logs/{toy}tables/{table}_plot.log",
    "summary": "logs/{toy}summary.log",
    "gpu_hours": "logs/{toy}gpu_hours.log",
    "figure": "logs/{toy}figures/{figure}.log",
}

# Names of folders in the templates. No data set, VAE, sampler or run may have one of them.
FOLDERS = frozenset(
    part
    for name, template in list(globals().items())
    if name.isupper() and isinstance(template, str)
    for part in template.replace("{toy}", "").split("/")[:-1]
    if "{" not in part
)


def shards(template: str, count: int, **names: str) -> list[str]:
    """The paths of all ``count`` shards of a template, its other wildcards filled in."""
    return [template.format(shard=shard, shards=count, **names) for shard in range(count)]


def samples_of(run: str, kimg: int | str, sampler: str) -> str:
    """How a set of samples is named in ``images``."""
    return f"samples/{run}/{kimg}/{sampler}"


def data_of(dataset: str) -> str:
    """How a data set is named in ``images``."""
    return f"data/{dataset}"
