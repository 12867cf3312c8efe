rule shard:
    input:
        "results/archives/{dataset}/archive.json",
    output:
        tar="results/data/{dataset}/{shard}-of-{shards}.tar",
        facts="results/data/{dataset}/{shard}-of-{shards}.json",
        index="results/data/{dataset}/{shard}-of-{shards}.index.npz",
    log:
        "logs/shard/{dataset}/{shard}-of-{shards}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=dataset_spec,
        code=code("shard"),
    message:
        "Shard {wildcards.dataset}, shard {wildcards.shard} of {wildcards.shards}"
    shell:
        "python -m diffit.shard {params.spec:q} $(dirname {input:q}) {output.tar:q} --log {log:q}"


rule gather_data:
    input:
        data_shards,
    output:
        "results/data/{dataset}/manifest.json",
    log:
        "logs/shard/{dataset}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards: dataset(wildcards.dataset)["shards"],
    message:
        "Gather the shards of {wildcards.dataset} into one manifest"
    shell:
        "python -m diffit.store.tars $(dirname {output:q}) --shards {params.shards} --log {log:q}"
