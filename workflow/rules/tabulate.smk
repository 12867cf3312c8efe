rule tabulate:
    input:
        scores=result_scores,
        samples=result_samples,
        curve=result_curve,
        cost=ancient("results/{run}_cost.csv"),
    output:
        csv=report("results/{run}_fid.csv", category="{run}", caption="../report/fid.rst"),
        markdown="results/{run}_fid.md",
        grid=report("results/{run}_grid.png", category="{run}", caption="../report/grid.rst"),
    log:
        "logs/tabulate/{run}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=result_spec,
        code=code("tabulate"),
    message:
        "Tabulate the scores of {wildcards.run} and draw its samples"
    shell:
        "python -m diffit.tabulate {params.spec:q} {output.csv:q} --scores {input.scores:q}"
        " --samples $(dirname {input.samples:q}) --log {log:q}"


rule curve:
    input:
        trained_weights,
    output:
        report("results/{run}_curve.png", category="{run}", caption="../report/curve.rst"),
    log:
        "logs/curve/{run}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("curve"),
    message:
        "Draw the training curve of {wildcards.run}"
    shell:
        "python -m diffit.paper.training_curve results/runs/{wildcards.run}/state/log.jsonl {output:q} --log {log:q}"
