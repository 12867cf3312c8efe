# Each milestone of a run is one job of this rule, and all of them share one training: a job continues from the run's
# state, waits while another one trains, and links milestones that are already written. The data are ancient, because the
# command itself compares their hash with that of the run.
# localrule: the rule runs where Snakemake runs. With launcher local it trains there; with launcher slurm it submits one
# job for all ranks and follows it.
# The settings of a machine are resources, because a change of resources runs nothing again. The plugin's names are used
# for the resources of the job: gpu and mem_mb are per node, cpus_per_task per rank (one per GPU), runtime in minutes;
# empty values and 0 are left to the cluster.
# retries: 0: never restart a job that the user cancelled or detached from. The job itself is requeued after a time limit
# or a preemption.
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
        slurm_partition="",
        slurm_account="",
        nodes=1,
        gpu=0,
        cpus_per_task=0,
        mem_mb=0,
        runtime=1440,
        slurm_extra="",
        setup="",
        options="",
        also_kimg=look.run_kimgs,
    params:
        spec=look.run_spec,
        folder=lambda wildcards: paths.RUN.format(run=wildcards.run),
    message:
        "Train {wildcards.run} up to {wildcards.kimg} thousand images"
    shell:
        "python -m diffit.train {params.spec:q} $(dirname {input:q}) {params.folder:q}"
        " --kimg {wildcards.kimg} --also-kimg {resources.also_kimg} --launcher={resources.launcher}"
        " --slurm-partition={resources.slurm_partition:q} --slurm-account={resources.slurm_account:q}"
        " --nodes={resources.nodes} --gpu={resources.gpu} --cpus-per-task={resources.cpus_per_task}"
        " --mem-mb={resources.mem_mb} --runtime={resources.runtime} --slurm-extra={resources.slurm_extra:q}"
        " --setup={resources.setup:q} {resources.options} --log {log:q}"
