rule release:
    input:
        release_vae,
    output:
        weights="results/runs/{run}/released/ema.safetensors",
        record="results/runs/{run}/released/config.json",
    log:
        "logs/release/{run}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=release_spec,
        code=code("release"),
    message:
        "Take the published weights of {wildcards.run}"
    shell:
        "python -m diffit.weights.release {params.spec:q} $(dirname {input:q}) $(dirname {output.weights:q}) --log {log:q}"
