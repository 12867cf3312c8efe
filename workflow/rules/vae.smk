# A VAE is published, and taken over where Snakemake runs, or trained here.
rule vae:
    output:
        weights=paths.VAE_WEIGHTS,
        facts=paths.VAE,
    log:
        paths.LOGS["vae"],
    wildcard_constraints:
        vae=look.vaes_of_kind("published"),
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.vae_spec,
        code=code("weights.vae"),
    message:
        "Take over the published VAE {wildcards.vae}"
    shell:
        "python -m diffit.weights.vae {params.spec:q} $(dirname {output.facts:q}) --log {log:q}"


rule train_vae:
    input:
        look.vae_data,
    output:
        weights=paths.VAE_WEIGHTS,
        facts=paths.VAE,
    log:
        paths.LOGS["vae"],
    wildcard_constraints:
        vae=look.vaes_of_kind("trained"),
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.vae_spec,
        code=code("training.train_vae"),
    message:
        "Train the VAE {wildcards.vae}"
    shell:
        "python -m diffit.training.train_vae {params.spec:q} $(dirname {input:q}) $(dirname {output.facts:q})"
        " --log {log:q}"
