rule vae:
    input:
        data=vae_data,
    output:
        weights="results/vaes/{vae}/vae.safetensors",
        facts="results/vaes/{vae}/vae.json",
    log:
        "logs/vae/{vae}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=vae_spec,
        data=lambda wildcards, input: shlex.quote(str(Path(input.data).parent)) if input.data else "",
        code=vae_code,
    message:
        "Provide the VAE {wildcards.vae}"
    shell:
        "python -m diffit.train_vae {params.spec:q} $(dirname {output.facts:q}) {params.data} --log {log:q}"
