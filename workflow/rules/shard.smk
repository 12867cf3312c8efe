rule shard:
    input:
        paths.ARCHIVE,
    output:
        tar=paths.DATA_SHARD,
        facts=paths.DATA_SIDECAR,
        index=paths.DATA_INDEX,
    log:
        paths.LOGS["shard"],
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.dataset_spec,
        code=partial(look.source_code, "shard"),
    message:
        "Cut {wildcards.dataset} into shards, {wildcards.shard} of {wildcards.shards}"
    shell:
        "python -m diffit.shard {params.spec:q} $(dirname {input:q}) {output.tar:q} --log {log:q}"


rule gather_data:
    input:
        look.data_shards,
    output:
        paths.DATA,
    log:
        paths.LOGS["gather_data"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards, input: len(input),
    message:
        "Gather the shards of {wildcards.dataset} into one manifest"
    shell:
        "python -m diffit.store.manifest $(dirname {output:q}) --shards {params.shards} --log {log:q}"
