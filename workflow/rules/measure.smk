# A data set and a set of samples are measured in the same way; {images} names either.
rule measure:
    input:
        shard=paths.IMAGE_SHARD,
        manifest=paths.IMAGES,
        network=paths.INCEPTION,
    output:
        features=paths.FEATURE_SHARD,
        facts=paths.FEATURE_SIDECAR,
    log:
        paths.LOGS["measure"],
    conda:
        "../envs/diffit.yaml"
    params:
        code=look.measure_code,
    message:
        "Measure {wildcards.images}, shard {wildcards.shard} of {wildcards.shards}, for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.measure {input.shard:q} {output.features:q} --network $(dirname {input.network:q})"
        " --protocol {wildcards.protocol:q} --log {log:q}"


rule gather_features:
    input:
        look.feature_shards,
    output:
        paths.FEATURES,
    log:
        paths.LOGS["gather_features"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards, input: len(input),
    message:
        "Gather the features of {wildcards.images} for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.store.manifest $(dirname {output:q}) --shards {params.shards} --log {log:q}"
