# Every milestone of a run is one instance of this rule, and all of them are one training: an instance goes on from the
# run's state, waits while another one trains, and links what has been published already. Its data are ancient because
# the command itself compares their content with what the run began with.
# It runs where Snakemake runs: here it trains, on a cluster it submits the run's one job and follows it. Profiles say
# which, and with how many GPUs, by resources, since those make nothing run again. Never retried by itself: what a
# person cancelled or left alone must not come back, and the job itself goes on after whatever the cluster does to it.
localrules:
    train,


rule train:
    input:
        ancient(look.run_data),
    output:
        paths.MILESTONE,
        paths.MILESTONE_RECORD,
    log:
        paths.LOGS["train"],
    wildcard_constraints:
        kimg=r"\d+",
    retries: 0
    conda:
        "../envs/diffit.yaml"
    threads: 1
    resources:
        launcher="local",
        partition="",
        account="",
        nodes=1,
        gpus=0,
        cpus=0,
        memory="",
        hours=24,
        sbatch="",
        setup="",
        options="",
        milestones=look.run_kimgs,
    params:
        spec=look.run_spec,
        folder=lambda wildcards: paths.RUN.format(run=wildcards.run),
    message:
        "Train {wildcards.run} up to {wildcards.kimg} thousand images"
    shell:
        "python -m diffit.train {params.spec:q} $(dirname {input:q}) {params.folder:q}"
        " --milestone {wildcards.kimg} --publish {resources.milestones}"
        " --launcher={resources.launcher} --partition={resources.partition:q} --account={resources.account:q}"
        " --nodes={resources.nodes} --gpus={resources.gpus} --cpus={resources.cpus} --memory={resources.memory:q}"
        " --hours={resources.hours} --sbatch={resources.sbatch:q} --setup={resources.setup:q}"
        " {resources.options} --log {log:q}"
