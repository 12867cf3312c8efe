rule tabulate:
    input:
        scores=look.result_scores,
        samples=look.result_samples,
        curve=look.result_curve,
        cost=ancient(paths.COST),
    output:
        csv=report(paths.RESULT, category="{run}", caption="../report/fid.rst"),
        markdown=paths.RESULT_MARKDOWN,
        grid=report(paths.GRID, category="{run}", caption="../report/grid.rst"),
    log:
        paths.LOGS["tabulate"],
    conda:
        "../envs/diffit.yaml"
    params:
        spec=look.result_spec,
        code=code("tabulate"),
    message:
        "Tabulate the scores of {wildcards.run} and draw its samples"
    shell:
        "python -m diffit.tabulate {params.spec:q} {output.csv:q} --scores {input.scores:q}"
        " --samples $(dirname {input.samples:q}) --log {log:q}"


rule curve:
    input:
        look.trained_weights,
    output:
        report(paths.CURVE, category="{run}", caption="../report/curve.rst"),
    log:
        paths.LOGS["curve"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        training_log=lambda wildcards: paths.RUN_LOG.format(run=wildcards.run),
        code=code("paper.training_curve"),
    message:
        "Draw the training curve of {wildcards.run}"
    shell:
        "python -m diffit.paper.training_curve {params.training_log:q} {output:q} --log {log:q}"
