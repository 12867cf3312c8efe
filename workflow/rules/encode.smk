rule encode:
    input:
        piece="results/data/{dataset}/{piece}-of-{pieces}.tar",
        manifest="results/data/{dataset}/manifest.json",
        vae="results/vaes/{vae}/vae.json",
    output:
        tar="results/latents/{dataset}/{vae}/{piece}-of-{pieces}.tar",
        facts="results/latents/{dataset}/{vae}/{piece}-of-{pieces}.json",
        index="results/latents/{dataset}/{vae}/{piece}-of-{pieces}.index.npz",
    log:
        "logs/encode/{dataset}/{vae}/{piece}-of-{pieces}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("encode"),
    message:
        "Encode {wildcards.dataset} with {wildcards.vae}, piece {wildcards.piece} of {wildcards.pieces}"
    shell:
        "python -m diffit.encode {input.piece:q} $(dirname {input.vae:q}) {output.tar:q} --log {log:q}"


rule gather_latents:
    input:
        latent_pieces,
    output:
        "results/latents/{dataset}/{vae}/manifest.json",
    log:
        "logs/encode/{dataset}/{vae}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        pieces=lambda wildcards: dataset(wildcards.dataset)["pieces"],
    message:
        "Gather the latents of {wildcards.dataset} by {wildcards.vae} into one manifest"
    shell:
        "python -m diffit.tars $(dirname {output:q}) --pieces {params.pieces} --log {log:q}"
