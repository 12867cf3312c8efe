# What the result's jobs used. A table in results/ asks for it, but its numbers are no part of what is measured: without a
# fingerprint of its code, since an accounting forgets old jobs, and ancient there, so that no table is made again.
rule cost:
    input:
        result_scores,
    output:
        csv=report("results/{run}_cost.csv", category="{run}", caption="../report/cost.rst"),
        markdown="results/{run}_cost.md",
    log:
        "logs/cost/{run}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        jobs=result_jobs,
    message:
        "Ask the cluster's accounting what {wildcards.run} cost"
    shell:
        "python -m diffit.planning.accounting {output.csv:q} {params.jobs:q} --log {log:q}"
