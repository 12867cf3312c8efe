# What samples are compared with: made once per data set and protocol, for all runs.
rule reference:
    input:
        features=look.reference_features,
        archive=look.reference_archive,
    output:
        reference=paths.REFERENCE,
        facts=paths.REFERENCE_SIDECAR,
    log:
        paths.LOGS["reference"],
    conda:
        "../envs/diffit.yaml"
    params:
        archive=lambda wildcards, input: folder_option("--published", input.archive),
        code=look.reference_code,
    message:
        "Make the reference of {wildcards.dataset} for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.scoring.reference $(dirname {input.features:q}) {output.reference:q}"
        " --dataset {wildcards.dataset:q} {params.archive} --log {log:q}"


rule score:
    input:
        samples=paths.SAMPLE_FEATURES,
        reference=look.run_reference,
        images=paths.SAMPLES,
    output:
        paths.SCORE,
    log:
        paths.LOGS["score"],
    conda:
        "../envs/diffit.yaml"
    params:
        options=look.score_options,
        code=look.score_code,
    message:
        "Score {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler} by the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.score $(dirname {input.samples:q}) {input.reference:q} {output:q} {params.options}"
        " --log {log:q}"
