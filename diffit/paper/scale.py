"""The two scales of tables and figures, the paper's and the toys': runs by name, resolved to samples and networks."""

from dataclasses import dataclass

from diffit.cli import UserError
from diffit.config import paths
from diffit.config.cross_checks import require_defined
from diffit.config.lookups import RELEASED
from diffit.config.toy_runs import PREFIX, toy_milestone


@dataclass(frozen=True)
class SampleSet:
    """The samples of one run at one milestone, drawn by one sampler."""

    run: str
    kimg: int | str
    sampler: str

    def score(self, protocol: str) -> str:
        """The path of the samples' score under a protocol."""
        return paths.SCORE.format(**vars(self), protocol=protocol)


def of_score(path: str) -> tuple[SampleSet, str]:
    """The samples and the protocol of the score at a path that :meth:`SampleSet.score` returned."""
    *_, run, kimg, sampler, protocol = path.removesuffix(".json").split("/")
    return SampleSet(run, kimg, sampler), protocol


@dataclass(frozen=True)
class Scale:
    """A completed configuration, seen at the paper's scale or at the toys'.

    Args:
        config: the configuration as :func:`diffit.config.toy_runs.complete` completes it.
        overlay: workflow/toy.yaml for the toys' scale, None for the paper's.
    """

    config: dict
    overlay: dict | None = None

    def samples(self, place: str, name: str, sampler: str | None = None, milestone: int | None = None) -> SampleSet:
        """The samples of a run or, at the toys' scale, of its toy.

        Published weights have no toy of their own: the overlay names the run whose toy takes their place.

        Args:
            place: where the run is named, for error messages.
            name: the run, by its name at the paper's scale.
            sampler: the sampler at the paper's scale; None for the run's own.
            milestone: in thousand images; None for the last one.

        Raises :class:`UserError` for a run, sampler or milestone that is not defined.
        """
        require_defined(place, name, self.config["runs"])
        run = self.config["runs"][name]
        sampler = sampler or run["sampler"]
        require_defined(place, sampler, self.config["samplers"])
        is_released = "weights" in run
        kimg = RELEASED if is_released else run["milestones"][-1] if milestone is None else milestone
        if not is_released and kimg not in run["milestones"]:
            raise UserError(f"{place}: {name} has no milestone {kimg}; its milestones are {run['milestones']}")
        if self.overlay is None:
            return SampleSet(name, kimg, sampler)
        trained = self.overlay["weights"].get(name, name)
        run = self.config["runs"][trained]
        kimg = run["milestones"][-1] if is_released else kimg
        return SampleSet(PREFIX + trained, toy_milestone(run, kimg, self.overlay), PREFIX + sampler)

    def is_published(self, name: str) -> bool:
        """Whether a run has published weights, so that the toy of another run takes its place."""
        return self.overlay is not None and name in self.overlay["weights"]

    def network(self, place: str, name: str) -> dict:
        """The part of the configuration that defines a run's network, at the paper's scale.

        Raises :class:`UserError` for a run that is not defined.
        """
        require_defined(place, name, self.config["runs"])
        run = self.config["runs"][name]
        described = {key: run[key] for key in ("dataset", "vae", "net", "process", "seed")}
        datasets = {run["dataset"]: self.config["datasets"][run["dataset"]]}
        vaes = {run["vae"]: self.config["vaes"][run["vae"]]} if run["vae"] else {}
        return {"runs": {name: described}, "datasets": datasets, "vaes": vaes}
