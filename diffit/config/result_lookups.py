"""What the rules look up for the results of a run: its scores, samples, curve, and the jobs that made them."""

from typing import Any

from diffit.cli import UserError
from diffit.config import paths
from diffit.config.lookups import Lookups
from diffit.store.files import canonical


class ResultLookups(Lookups):
    """Lookups of the rules from the scores to the results of a run."""

    def result_sets(self, wildcards: Any) -> list[tuple[str, int | str, str]]:
        """Run, kimg and sampler of the samples in a result: of the last milestone and, on request, of kimg 0."""
        described = self.run(wildcards.run)
        kimgs = dict.fromkeys([self.last_kimg(wildcards.run)] + [0] * ("untrained" in described["baselines"]))
        return [(wildcards.run, kimg, described["sampler"]) for kimg in kimgs]

    def result_scores(self, wildcards: Any) -> list[str]:
        """The scores in a result, the last milestone's first."""
        return [
            paths.SCORE.format(run=run, kimg=kimg, sampler=sampler, protocol=protocol)
            for run, kimg, sampler in self.result_sets(wildcards)
            for protocol in self.run(run)["protocols"]
        ]

    def result_samples(self, wildcards: Any) -> str:
        """The samples that a result shows as a picture."""
        run, kimg, sampler = self.result_sets(wildcards)[0]
        return paths.SAMPLES.format(run=run, kimg=kimg, sampler=sampler)

    def result_spec(self, wildcards: Any) -> str:
        """What a result says of its run beside the scores."""
        described = self.run(wildcards.run)
        return canonical({"run": wildcards.run, "paper": described["paper"], "baselines": described["baselines"]})

    def result_curve(self, wildcards: Any) -> str | list:
        """The training curve of a run; nothing for published weights, which come without a log."""
        return paths.CURVE.format(run=wildcards.run) if self.trains(wildcards.run) else []

    def trained_weights(self, wildcards: Any) -> str:
        """The last milestone of a run, whose log the training curve is drawn from."""
        if not self.trains(wildcards.run):
            raise UserError(f"the weights of {wildcards.run} are published, without a training curve")
        return paths.MILESTONE.format(run=wildcards.run, kimg=self.last_kimg(wildcards.run))

    def result_jobs(self, wildcards: Any) -> list[str]:
        """The records that name the jobs behind a result, as ``stage=path``.

        Data that several results share are counted in each of them.
        """
        described, trains = self.run(wildcards.run), self.trains(wildcards.run)
        name, protocols = described["dataset"], described["protocols"]
        compared = {protocol: self._compared(name, protocol) for protocol in protocols}
        vaes = [described["vae"], self.sampler(described["sampler"]).get("decoder")]
        sets = [paths.samples_of(*one) for one in self.result_sets(wildcards)]
        sharded = dict.fromkeys([name] * trains + [*compared.values()])
        measured = [(p, images) for p, data in compared.items() for images in [paths.data_of(data), *sets]]
        encoded = [described["vae"]] if described["vae"] and trains else []
        return [
            *(f"shard={paths.DATA.format(dataset=data)}" for data in sharded),
            *(f"vae={paths.VAE.format(vae=vae)}" for vae in dict.fromkeys(filter(None, vaes))),
            *(f"encode={paths.LATENTS.format(dataset=name, vae=vae)}" for vae in encoded),
            *([f"train={paths.RUN_LEGS.format(run=wildcards.run)}"] if trains else []),
            *(f"sample={paths.IMAGES.format(images=images)}" for images in sets),
            *(f"measure={paths.FEATURES.format(images=i, protocol=p)}" for p, i in measured),
        ]
