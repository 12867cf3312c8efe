# What the jobs behind a result used. The rule has no fingerprint of its code, since the accounting forgets old jobs, and
# its output is ancient for the result, so that new numbers make no table again.
rule cost:
    input:
        look.result_scores,
    output:
        csv=report(paths.COST, category="{run}", caption="../report/cost.rst"),
        markdown=paths.COST_MARKDOWN,
    log:
        paths.LOGS["cost"],
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        jobs=look.result_jobs,
    message:
        "Tabulate what {wildcards.run} cost"
    shell:
        "python -m diffit.planning.accounting {output.csv:q} {params.jobs:q} --log {log:q}"
