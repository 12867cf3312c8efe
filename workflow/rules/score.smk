rule score:
    input:
        samples="results/samples/{run}/{kimg}/{sampler}/features/{protocol}/manifest.json",
        reference=data_features,
        images="results/samples/{run}/{kimg}/{sampler}/manifest.json",
    output:
        "results/scores/{run}/{kimg}/{sampler}/{protocol}.json",
    log:
        "logs/score/{run}/{kimg}/{sampler}/{protocol}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        baseline=lambda wildcards: "--real-baseline" if "real" in run(wildcards.run)["baselines"] else "",
        classes=lambda wildcards: "--class-accuracy" if run(wildcards.run)["class_accuracy"] else "",
        code=code("score"),
    message:
        "Score {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler} by the protocol {wildcards.protocol}"
    shell:
        "python -m diffit.score $(dirname {input.samples:q}) $(dirname {input.reference:q}) {output:q}"
        " {params.baseline} {params.classes} --log {log:q}"
