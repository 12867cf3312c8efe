# The paper's tables and those of its figures that are numbers: every row of ours asks for its score. toy_tables/ are the
# same tables of toys.
rule table:
    input:
        table_scores,
    output:
        csv=report("results/{toy}tables/{table}.csv", category="{toy}tables", caption="../report/table.rst"),
        markdown="results/{toy}tables/{table}.md",
        latex="results/{toy}tables/{table}.tex",
    log:
        "logs/{toy}tables/{table}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=table_spec,
        code=code("table"),
    message:
        "Lay out {wildcards.toy}{wildcards.table}"
    shell:
        "python -m diffit.paper.table {params.spec:q} {output.csv:q} --log {log:q}"


rule plot:
    input:
        table_scores,
    output:
        report("results/{toy}tables/{table}.png", category="{toy}tables", caption="../report/table.rst"),
    log:
        "logs/{toy}tables/{table}_plot.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=table_spec,
        code=code("plot"),
    message:
        "Draw {wildcards.toy}{wildcards.table}"
    shell:
        "python -m diffit.paper.plot {params.spec:q} {output:q} --log {log:q}"


rule summary:
    input:
        lambda wildcards: [f"results/{wildcards.toy}tables/{table}.csv" for table in TABLES],
    output:
        report("results/{toy}summary.md", category="{toy}tables"),
    log:
        "logs/{toy}summary.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("summary"),
    message:
        "Say what is reproduced"
    shell:
        "python -m diffit.paper.summary {output:q} {input:q} --log {log:q}"


# What all of them cost. As with the cost of a run, its numbers make nothing again.
rule gpu_hours:
    input:
        lambda wildcards: [f"results/scores/{place}.json" for place in table_sets(wildcards.toy)],
    output:
        csv=report("results/{toy}gpu_hours.csv", category="{toy}tables", caption="../report/gpu_hours.rst"),
        markdown="results/{toy}gpu_hours.md",
    log:
        "logs/{toy}gpu_hours.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        jobs=table_jobs,
    message:
        "Ask the cluster's accounting what the tables cost"
    shell:
        "python -m diffit.planning.accounting {output.csv:q} {params.jobs:q} --log {log:q}"


rule tables:
    input:
        table_results("tables"),
        figure_results("figures"),
        lambda _: table_curves(""),
        "results/summary.md",
        "results/gpu_hours.csv",


rule toy_tables:
    input:
        table_results("toy_tables"),
        figure_results("toy_figures"),
        lambda _: table_curves(PREFIX),
        "results/toy_summary.md",
        "results/toy_gpu_hours.csv",
