rule encode:
    input:
        shard="results/data/{dataset}/{shard}-of-{shards}.tar",
        manifest="results/data/{dataset}/manifest.json",
        vae="results/vaes/{vae}/vae.json",
    output:
        tar="results/latents/{dataset}/{vae}/{shard}-of-{shards}.tar",
        facts="results/latents/{dataset}/{vae}/{shard}-of-{shards}.json",
        index="results/latents/{dataset}/{vae}/{shard}-of-{shards}.index.npz",
    log:
        "logs/encode/{dataset}/{vae}/{shard}-of-{shards}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("encode"),
    message:
        "Encode {wildcards.dataset} with {wildcards.vae}, shard {wildcards.shard} of {wildcards.shards}"
    shell:
        "python -m diffit.encode {input.shard:q} $(dirname {input.vae:q}) {output.tar:q} --log {log:q}"


rule gather_latents:
    input:
        latent_shards,
    output:
        "results/latents/{dataset}/{vae}/manifest.json",
    log:
        "logs/encode/{dataset}/{vae}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards: dataset(wildcards.dataset)["shards"],
    message:
        "Gather the latents of {wildcards.dataset} by {wildcards.vae} into one manifest"
    shell:
        "python -m diffit.store.tars $(dirname {output:q}) --shards {params.shards} --log {log:q}"
