# What samples are compared with, once for a data set and a protocol, whatever the number of runs.
rule reference:
    input:
        features=reference_features,
        archive=reference_archive,
    output:
        reference="results/data/{dataset}/references/{protocol}.npz",
        facts="results/data/{dataset}/references/{protocol}.json",
    log:
        "logs/reference/{dataset}/{protocol}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        archive=lambda wildcards, input: (
            f"--published {shlex.quote(str(Path(input.archive).parent))}" if input.archive else ""
        ),
        code=code("reference"),
    message:
        "Make the reference of {wildcards.dataset} for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.scoring.reference $(dirname {input.features:q}) {output.reference:q} --dataset {wildcards.dataset:q}"
        " {params.archive} --log {log:q}"


rule score:
    input:
        samples="results/samples/{run}/{kimg}/{sampler}/features/{protocol}/manifest.json",
        reference=run_reference,
        images="results/samples/{run}/{kimg}/{sampler}/manifest.json",
    output:
        "results/scores/{run}/{kimg}/{sampler}/{protocol}.json",
    log:
        "logs/score/{run}/{kimg}/{sampler}/{protocol}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        options=score_options,
        code=code("score"),
    message:
        "Score {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler} by the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.score $(dirname {input.samples:q}) {input.reference:q} {output:q} {params.options}"
        " --log {log:q}"
