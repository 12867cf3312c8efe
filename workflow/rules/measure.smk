# Images are measured the same way whether they are a data set or samples: {images} is data/{dataset} or
# samples/{run}/{kimg}/{sampler}.
rule measure:
    input:
        piece="results/{images}/{piece}-of-{pieces}.tar",
        manifest="results/{images}/manifest.json",
        network="results/archives/inception/archive.json",
    output:
        features="results/{images}/features/{protocol}/{piece}-of-{pieces}.npz",
        facts="results/{images}/features/{protocol}/{piece}-of-{pieces}.json",
    log:
        "logs/measure/{images}/{protocol}/{piece}-of-{pieces}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("measure"),
    message:
        "Measure {wildcards.images}, piece {wildcards.piece} of {wildcards.pieces}, for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.measure {input.piece:q} {output.features:q} --network $(dirname {input.network:q})"
        " --protocol {wildcards.protocol:q} --log {log:q}"


rule gather_features:
    input:
        feature_pieces,
    output:
        "results/{images}/features/{protocol}/manifest.json",
    log:
        "logs/measure/{images}/{protocol}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        pieces=lambda wildcards: len(feature_pieces(wildcards)),
    message:
        "Gather the features of {wildcards.images} for the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.tars $(dirname {output:q}) --pieces {params.pieces} --log {log:q}"
