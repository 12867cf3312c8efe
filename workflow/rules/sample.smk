rule sample:
    input:
        weights=paths.MILESTONE,
        record=paths.MILESTONE_RECORD,
        vae=look.sample_decoder,
    output:
        tar=paths.SAMPLE_SHARD,
        facts=paths.SAMPLE_SIDECAR,
        index=paths.SAMPLE_INDEX,
    log:
        paths.LOGS["sample"],
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.sampler_spec,
        vae=lambda wildcards, input: folder_option("--vae", input.vae),
        code=look.sample_code,
    message:
        "Sample from {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler},"
        " shard {wildcards.shard} of {wildcards.shards}"
    shell:
        "python -m diffit.sample {params.spec:q} $(dirname {input.weights:q}) {output.tar:q} {params.vae}"
        " --log {log:q}"


rule gather_samples:
    input:
        look.sample_shards,
    output:
        paths.SAMPLES,
    log:
        paths.LOGS["gather_samples"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards, input: len(input),
    message:
        "Gather the samples of {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler}"
    shell:
        "python -m diffit.store.manifest $(dirname {output:q}) --shards {params.shards} --log {log:q}"


# For other evaluators: ADM's reads samples as one file.
rule export:
    input:
        paths.SAMPLES,
    output:
        paths.SAMPLES_NPZ,
    log:
        paths.LOGS["export"],
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("store.export_npz"),
    message:
        "Export the samples of {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler} for ADM's evaluator"
    shell:
        "python -m diffit.store.export_npz $(dirname {input:q}) {output:q} --log {log:q}"
