# Downloads run where Snakemake runs: the nodes of a cluster often have no network.
rule download:
    output:
        paths.ARCHIVE,
    log:
        paths.LOGS["download"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.dataset_spec,
        folder=look.folder_state,
        code=partial(look.source_code, "download"),
    message:
        "Download or link the data set {wildcards.dataset}"
    shell:
        "python -m diffit.download {params.spec:q} $(dirname {output:q}) --log {log:q}"


rule download_inception:
    output:
        paths.INCEPTION,
    log:
        paths.LOGS["download_inception"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.inception_spec,
        code=code("scoring.inception_weights"),
    message:
        "Download the FID Inception network"
    shell:
        "python -m diffit.download {params.spec:q} $(dirname {output:q}) --log {log:q}"


ruleorder: download_inception > download
