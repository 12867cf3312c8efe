rule sample:
    input:
        weights="results/runs/{run}/{kimg}/ema.safetensors",
        record="results/runs/{run}/{kimg}/config.json",
        vae=sample_decoder,
    output:
        tar="results/samples/{run}/{kimg}/{sampler}/{shard}-of-{shards}.tar",
        facts="results/samples/{run}/{kimg}/{sampler}/{shard}-of-{shards}.json",
        index="results/samples/{run}/{kimg}/{sampler}/{shard}-of-{shards}.index.npz",
    log:
        "logs/sample/{run}/{kimg}/{sampler}/{shard}-of-{shards}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=sampler_spec,
        vae=lambda wildcards, input: f"--vae {shlex.quote(str(Path(input.vae).parent))}" if input.vae else "",
        code=sampling_code,
    message:
        "Sample from {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler},"
        " shard {wildcards.shard} of {wildcards.shards}"
    shell:
        "python -m diffit.sample {params.spec:q} $(dirname {input.weights:q}) {output.tar:q} {params.vae}"
        " --log {log:q}"


rule gather_samples:
    input:
        sample_shards,
    output:
        "results/samples/{run}/{kimg}/{sampler}/manifest.json",
    log:
        "logs/sample/{run}/{kimg}/{sampler}.log",
    localrule: True
    conda:
        "../envs/diffit.yaml"
    params:
        shards=lambda wildcards: sampler(wildcards.sampler)["shards"],
    message:
        "Gather the samples of {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler}"
    shell:
        "python -m diffit.store.tars $(dirname {output:q}) --shards {params.shards} --log {log:q}"


# For evaluators other than ours: ADM's reads samples as one file.
rule export:
    input:
        "results/samples/{run}/{kimg}/{sampler}/manifest.json",
    output:
        "results/samples/{run}/{kimg}/{sampler}/samples_{shape}.npz",
    log:
        "logs/export/{run}/{kimg}/{sampler}/{shape}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        code=code("export"),
    message:
        "Export the samples of {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler} for ADM's evaluator"
    shell:
        "python -m diffit.store.export_npz $(dirname {input:q}) {output:q} --log {log:q}"
