# Every milestone of a run is one instance of this rule, and all of them are one training: an instance goes on from the
# run's state, waits while another one trains, and links what has been published already. Its data are ancient because
# the command itself compares their content with what the run began with.
rule train:
    input:
        ancient(run_data),
    output:
        "results/runs/{run}/{kimg}/ema.safetensors",
        "results/runs/{run}/{kimg}/config.json",
    log:
        "logs/train/{run}/{kimg}.log",
    wildcard_constraints:
        kimg=r"\d+",
    conda:
        "../envs/diffit.yaml"
    resources:
        milestones=run_milestones,
        options="",
    params:
        spec=run_spec,
    message:
        "Train {wildcards.run} up to {wildcards.kimg} thousand images"
    shell:
        "python -m diffit.train {params.spec:q} $(dirname {input:q}) results/runs/{wildcards.run}"
        " --milestone {wildcards.kimg} --publish {resources.milestones} {resources.options} --log {log:q}"
