rule tabulate:
    input:
        scores=result_scores,
        samples=result_samples,
    output:
        csv=report("results/{run}_fid.csv", category="{run}", caption="../report/fid.rst"),
        markdown="results/{run}_fid.md",
        grid=report("results/{run}_grid.png", category="{run}", caption="../report/grid.rst"),
        curve=report("results/{run}_curve.png", category="{run}", caption="../report/curve.rst"),
    log:
        "logs/tabulate/{run}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=result_spec,
        code=code("tabulate"),
    message:
        "Tabulate the scores of {wildcards.run}, draw its samples and its training curve"
    shell:
        "python -m diffit.tabulate {params.spec:q} {output.csv:q} --scores {input.scores:q}"
        " --samples $(dirname {input.samples:q}) --state results/runs/{wildcards.run}/state --log {log:q}"
