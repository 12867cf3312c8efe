# The paper's figures that are pictures; toy_figures/ has those of toys.
rule figure:
    input:
        paper.figure_inputs,
    output:
        report(paths.FIGURE, category="{toy}figures", caption="../report/figure.rst"),
    log:
        paths.LOGS["figure"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        module=paper.figure_module,
        arguments=paper.figure_arguments,
        code=paper.figure_code,
    message:
        "Draw {wildcards.toy}{wildcards.figure}"
    shell:
        "python -m {params.module} {output:q} {params.arguments:q} --log {log:q}"
