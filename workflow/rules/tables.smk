# The paper's tables, and its figures that are plots. A row of ours asks for its score. toy_tables/ has the same tables of
# toys.
rule table:
    input:
        paper.table_scores,
    output:
        csv=report(paths.TABLE, category="{toy}tables", caption="../report/table.rst"),
        markdown=paths.TABLE_MARKDOWN,
        latex=paths.TABLE_LATEX,
    log:
        paths.LOGS["table"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=paper.table_spec,
        code=code("paper.table"),
    message:
        "Lay out {wildcards.toy}{wildcards.table}"
    shell:
        "python -m diffit.paper.table {params.spec:q} {output.csv:q} --log {log:q}"


rule plot:
    input:
        paper.table_scores,
    output:
        report(paths.TABLE_PLOT, category="{toy}tables", caption="../report/table.rst"),
    log:
        paths.LOGS["plot"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=paper.table_spec,
        code=code("paper.plot"),
    message:
        "Draw {wildcards.toy}{wildcards.table}"
    shell:
        "python -m diffit.paper.plot {params.spec:q} {output:q} --log {log:q}"


rule summary:
    input:
        paper.summary_tables,
    output:
        report(paths.SUMMARY, category="{toy}tables"),
    log:
        paths.LOGS["summary"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("paper.summary"),
    message:
        "Summarize what is reproduced"
    shell:
        "python -m diffit.paper.summary {output:q} {input:q} --log {log:q}"


# What all tables cost. As with the cost of a run, new numbers make nothing again.
rule gpu_hours:
    input:
        paper.all_scores,
    output:
        csv=report(paths.GPU_HOURS, category="{toy}tables", caption="../report/gpu_hours.rst"),
        markdown=paths.GPU_HOURS_MARKDOWN,
    log:
        paths.LOGS["gpu_hours"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        jobs=paper.table_jobs,
    message:
        "Tabulate what the tables cost"
    shell:
        "python -m diffit.planning.accounting {output.csv:q} {params.jobs:q} --log {log:q}"


rule tables:
    input:
        paper.table_results("tables"),
        paper.figure_results("figures"),
        lambda _: paper.table_curves(""),
        paths.SUMMARY.format(toy=""),
        paths.GPU_HOURS.format(toy=""),
    message:
        "All tables and figures are made"


rule toy_tables:
    input:
        paper.table_results("toy_tables"),
        paper.figure_results("toy_figures"),
        lambda _: paper.table_curves(PREFIX),
        paths.SUMMARY.format(toy=PREFIX),
        paths.GPU_HOURS.format(toy=PREFIX),
    message:
        "All tables and figures are made of toy runs"
