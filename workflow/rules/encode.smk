rule encode:
    input:
        shard=paths.DATA_SHARD,
        manifest=paths.DATA,
        vae=paths.VAE,
    output:
        tar=paths.LATENT_SHARD,
        facts=paths.LATENT_SIDECAR,
        index=paths.LATENT_INDEX,
    log:
        paths.LOGS["encode"],
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
        look.latent_shards,
    output:
        paths.LATENTS,
    log:
        paths.LOGS["gather_latents"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards, input: len(input),
    message:
        "Gather the latents of {wildcards.dataset} by {wildcards.vae} into one manifest"
    shell:
        "python -m diffit.store.manifest $(dirname {output:q}) --shards {params.shards} --log {log:q}"
