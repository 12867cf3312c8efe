rule sample:
    input:
        "results/runs/{run}/{kimg}/ema.safetensors",
        "results/runs/{run}/{kimg}/config.json",
    output:
        "results/samples/{run}/{kimg}/{sampler}/{piece}-of-{pieces}.tar",
        "results/samples/{run}/{kimg}/{sampler}/{piece}-of-{pieces}.json",
        "results/samples/{run}/{kimg}/{sampler}/{piece}-of-{pieces}.index.npz",
    log:
        "logs/sample/{run}/{kimg}/{sampler}/{piece}-of-{pieces}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        spec=sampler_spec,
        code=sampling_code,
    message:
        "Sample from {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler},"
        " piece {wildcards.piece} of {wildcards.pieces}"
    shell:
        "{PYTHON} -m diffit.sample {params.spec:q} $(dirname {input[0]:q}) {output[0]:q} --log {log:q}"


rule gather_samples:
    input:
        sample_pieces,
    output:
        "results/samples/{run}/{kimg}/{sampler}/manifest.json",
    log:
        "logs/sample/{run}/{kimg}/{sampler}.log",
    conda:
        "../envs/diffit.yaml"
    params:
        pieces=lambda wildcards: sampler(wildcards.sampler)["pieces"],
    message:
        "Gather the samples of {wildcards.run} at {wildcards.kimg} kimg with {wildcards.sampler}"
    shell:
        "{PYTHON} -m diffit.tars $(dirname {output:q}) --pieces {params.pieces} --log {log:q}"
