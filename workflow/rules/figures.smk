# The paper's figures that are pictures; toy_figures/ are those of toys.
rule grid:
    input:
        grid_samples,
    output:
        report("results/{toy}figures/{grid}.png", category="{toy}figures", caption="../report/figure.rst"),
    log:
        "logs/{toy}figures/{grid}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        spec=grid_spec,
        folders=lambda wildcards, input: [str(Path(manifest).parent) for manifest in input],
        code=code("figure"),
    message:
        "Draw {wildcards.toy}{wildcards.grid}"
    shell:
        "python -m diffit.paper.image_grid {params.spec:q} {output:q} {params.folders:q} --log {log:q}"


rule attention:
    input:
        attention_milestones,
    output:
        report("results/{toy}figures/{attention}.png", category="{toy}figures", caption="../report/figure.rst"),
    log:
        "logs/{toy}figures/{attention}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        sampler=attention_sampler,
        seed=lambda wildcards: FIGURES["attention"][wildcards.attention]["seed"],
        folders=lambda wildcards, input: [str(Path(weights).parent) for weights in input],
        code=code("attention"),
    message:
        "Draw {wildcards.toy}{wildcards.attention}"
    shell:
        "python -m diffit.paper.attention_maps {params.sampler:q} {output:q} {params.folders:q} --seed {params.seed} --log {log:q}"


rule diagram:
    output:
        report("results/figures/{diagram}.png", category="figures", caption="../report/figure.rst"),
    log:
        "logs/figures/{diagram}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        network=diagram_network,
        code=code("diagram"),
    message:
        "Draw {wildcards.diagram}"
    shell:
        "python -m diffit.paper.network_diagram {params.network:q} {output:q} --log {log:q}"
