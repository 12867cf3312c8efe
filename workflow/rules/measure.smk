# Images are measured the same way whether they are a data set or samples: {images} is data/{dataset} or
# samples/{run}/{kimg}/{sampler}.
rule measure:
    input:
        shard="results/{images}/{shard}-of-{shards}.tar",
        manifest="results/{images}/manifest.json",
        network="results/archives/inception/archive.json",
    output:
        features="results/{images}/features/{protocol}/{shard}-of-{shards}.npz",
        facts="results/{images}/features/{protocol}/{shard}-of-{shards}.json",
    log:
        "logs/measure/{images}/{protocol}/{shard}-of-{shards}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("measure"),
    message:
        "Measure {wildcards.images}, shard {wildcards.shard} of {wildcards.shards}, for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.measure {input.shard:q} {output.features:q} --network $(dirname {input.network:q})"
        " --protocol {wildcards.protocol:q} --log {log:q}"


rule gather_features:
    input:
        feature_shards,
    output:
        "results/{images}/features/{protocol}/manifest.json",
    log:
        "logs/measure/{images}/{protocol}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards: len(feature_shards(wildcards)),
    message:
        "Gather the features of {wildcards.images} for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.store.tars $(dirname {output:q}) --shards {params.shards} --log {log:q}"
