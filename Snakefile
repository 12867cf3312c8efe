# From raw data to the paper's tables:
#   download → archives   shard → data   encode → latents   train → runs   sample → samples   measure → features
#   score → scores   tabulate → results
# Only latent runs have latents, encoded by a VAE in vaes.
from pathlib import Path

from snakemake.utils import min_version

from diffit.cli import exit_on_user_error
from diffit.config.yaml_files import check_files

min_version("9.0")

# Snakemake would name neither file nor line of a mistake, and would keep one of two equal keys.
LOCAL = "config.local.yaml"  # your own data sets and runs, which git ignores
exit_on_user_error(check_files)("config.yaml", LOCAL, workflow.overwrite_configfiles)


configfile: "config.yaml"


if Path(LOCAL).exists():

    configfile: LOCAL


report: "workflow/report/workflow.rst"


# Jobs that a killed Snakemake left in the queue would write the same files as the jobs of this one.
onstart:
    require_profile()
    cancel_orphaned_jobs()
    refuse_endless_arrays()


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/shard.smk"
include: "workflow/rules/vae.smk"
include: "workflow/rules/encode.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/release.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/cost.smk"
include: "workflow/rules/tabulate.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"


rule all:
    default_target: True
    input:
        expand(paths.RESULT, run=RUNS),
    message:
        "All configured runs have their results"


# What `make report` and `make accept` take without GOAL: all results that exist and that the configuration can make.
rule existing:
    input:
        paper.existing_results,
    message:
        "All existing results are up to date"


include: "workflow/rules/targets.smk"
