rule release:
    input:
        look.release_vae,
    output:
        weights=paths.RELEASED,
        record=paths.RELEASED_RECORD,
    log:
        paths.LOGS["release"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.release_spec,
        code=look.release_code,
    message:
        "Take over the published weights of {wildcards.run}"
    shell:
        "python -m diffit.weights.release {params.spec:q} $(dirname {input:q}) $(dirname {output.weights:q})"
        " --log {log:q}"
