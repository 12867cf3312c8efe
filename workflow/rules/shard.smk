rule shard:
    input:
        "results/archives/{dataset}/archive.json",
    output:
        tar="results/data/{dataset}/{piece}-of-{pieces}.tar",
        facts="results/data/{dataset}/{piece}-of-{pieces}.json",
        index="results/data/{dataset}/{piece}-of-{pieces}.index.npz",
    log:
        "logs/shard/{dataset}/{piece}-of-{pieces}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=dataset_spec,
        code=code("shard"),
    message:
        "Shard {wildcards.dataset}, piece {wildcards.piece} of {wildcards.pieces}"
    shell:
        "python -m diffit.shard {params.spec:q} $(dirname {input:q}) {output.tar:q} --log {log:q}"


rule gather_data:
    input:
        data_pieces,
    output:
        "results/data/{dataset}/manifest.json",
    log:
        "logs/shard/{dataset}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        pieces=lambda wildcards: dataset(wildcards.dataset)["pieces"],
    message:
        "Gather the pieces of {wildcards.dataset} into one manifest"
    shell:
        "python -m diffit.tars $(dirname {output:q}) --pieces {params.pieces} --log {log:q}"
