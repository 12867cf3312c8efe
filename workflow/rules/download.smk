# Whatever downloads runs where Snakemake runs: the nodes of a cluster often see no network.
rule download:
    output:
        "results/archives/{dataset}/archive.json",
    log:
        "logs/download/{dataset}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=dataset_spec,
        folder=folder_state,
        code=code("download"),
    message:
        "Download or link the data set {wildcards.dataset}"
    shell:
        "python -m diffit.download {params.spec:q} $(dirname {output:q}) --log {log:q}"


rule download_inception:
    output:
        "results/archives/inception/archive.json",
    log:
        "logs/download/inception.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=inception_spec,
        code=code("download"),
    message:
        "Download the FID Inception network"
    shell:
        "python -m diffit.download {params.spec:q} $(dirname {output:q}) --log {log:q}"


ruleorder: download_inception > download
