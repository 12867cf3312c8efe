# A VAE is published, and taken over where Snakemake runs, or trained here on a data set that has none.
rule vae:
    output:
        weights="results/vaes/{vae}/vae.safetensors",
        facts="results/vaes/{vae}/vae.json",
    log:
        "logs/vae/{vae}.log",
    wildcard_constraints:
        vae=vaes_of_kind("published"),
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=vae_spec,
        code=code("vae"),
    message:
        "Take over the published VAE {wildcards.vae}"
    shell:
        "python -m diffit.weights.vae {params.spec:q} $(dirname {output.facts:q}) --log {log:q}"


rule train_vae:
    input:
        vae_data,
    output:
        weights="results/vaes/{vae}/vae.safetensors",
        facts="results/vaes/{vae}/vae.json",
    log:
        "logs/vae/{vae}.log",
    wildcard_constraints:
        vae=vaes_of_kind("trained"),
    conda:
        "../envs/diffit.yaml"
    params:
        spec=vae_spec,
        code=code("train_vae"),
    message:
        "Train the VAE {wildcards.vae}"
    shell:
        "python -m diffit.training.train_vae {params.spec:q} $(dirname {input:q}) $(dirname {output.facts:q}) --log {log:q}"
