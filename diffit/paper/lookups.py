"""What the rules look up for the paper's tables and figures: input files and the parameters of the commands.

Methods take Snakemake's wildcards, so that rules name them as they are: ``toy`` is ``toy_`` or empty, ``table`` and
``figure`` are names.
"""

import logging
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from diffit.cli import UserError, suggestion
from diffit.config import paths
from diffit.config.lookups import RELEASED
from diffit.config.toy_runs import OVERLAY, PREFIX, load_overlay
from diffit.paper import figure_files, table_files
from diffit.paper.figure_files import Figure
from diffit.paper.scale import SampleSet, Scale, of_score
from diffit.store.files import canonical
from diffit.store.fingerprint import fingerprint

log = logging.getLogger("diffit")


class PaperLookups:
    """Lookups in the tables and figures of the sources.

    Args:
        config: the configuration as :func:`diffit.config.toy_runs.complete` completes it.
        sources: the folder that holds ``workflow/``.

    The constructor raises :class:`UserError` for a mistake in a table or in workflow/figures.yaml, the methods for
    names that are not defined.
    """

    def __init__(self, config: dict, sources: Path):
        self.tables = table_files.read_all(sources)
        self.figures = figure_files.read(sources)
        self._runs = list(config["runs"])
        self._scales = {"": Scale(config), PREFIX: Scale(config, load_overlay(sources / OVERLAY))}

    # ----------------------------------------------------------------------------------------------------- tables

    def table_spec(self, wildcards: Any) -> str:
        """A table with its rows resolved to score files, as its commands read it."""
        return canonical(self._table(wildcards.table, wildcards.toy))

    def table_scores(self, wildcards: Any) -> list[str]:
        """The scores in a table."""
        return _scores(self._table(wildcards.table, wildcards.toy))

    def summary_tables(self, wildcards: Any) -> list[str]:
        """The tables that the summary reads."""
        return [paths.TABLE.format(toy=wildcards.toy, table=name) for name in self.tables]

    def all_scores(self, wildcards: Any) -> list[str]:
        """The scores in all tables."""
        return self._all_scores(wildcards.toy)

    def table_jobs(self, wildcards: Any) -> list[str]:
        """The records that name the jobs behind all tables, as ``stage=path``."""
        scored = [of_score(path) for path in self._all_scores(wildcards.toy)]
        samples = dict.fromkeys(samples for samples, _ in scored)
        features = [paths.SAMPLE_FEATURES.format(**vars(one), protocol=protocol) for one, protocol in scored]
        return [
            *(f"train={paths.RUN_LEGS.format(run=name)}" for name in _trained_runs(samples)),
            *(f"sample={paths.SAMPLES.format(**vars(one))}" for one in samples),
            *(f"measure={path}" for path in features),
        ]

    def table_curves(self, toy: str) -> list[str]:
        """The training curves of the runs in all tables."""
        samples = [of_score(path)[0] for path in self._all_scores(toy)]
        return [paths.CURVE.format(run=name) for name in _trained_runs(samples)]

    def table_results(self, folder: str) -> list[str]:
        """All tables in ``tables`` or ``toy_tables``, and the plots of those that are figures of the paper."""
        toy = folder.removesuffix("tables")
        plotted = [name for name, table in self.tables.items() if "figure" in table]
        tables = [paths.TABLE.format(toy=toy, table=name) for name in self.tables]
        return tables + [paths.TABLE_PLOT.format(toy=toy, table=name) for name in plotted]

    # --------------------------------------------------------------------------------------------- existing results

    def existing_results(self, _wildcards: Any) -> list[str]:
        """The results of runs, tables and figures that exist and that the configuration can make.

        Others are left out with a note. Raises :class:`UserError` if there are none.
        """
        found, known = _existing(Path.cwd()), self._known_results()
        if unknown := [path for path in found if path not in known]:
            _note_unknown(tuple(unknown))
        if not (results := [path for path in found if path in known]):
            raise UserError("there is no result yet; make one, for example with make demo")
        return results

    def _known_results(self) -> set[str]:
        results = {paths.RESULT.format(run=run) for run in self._runs}
        for toy in ("", PREFIX):
            results |= {paths.SUMMARY.format(toy=toy)}
            results |= {*self.table_results(f"{toy}tables"), *self.figure_results(f"{toy}figures")}
        return results

    # ----------------------------------------------------------------------------------------------------- details

    def _table(self, name: str, toy: str) -> dict:
        if name not in self.tables:
            raise UserError(f"there is no table {name!r}; {suggestion(name, self.tables)}")
        return table_files.resolve(name, self.tables[name], self._scales[toy])

    def _all_scores(self, toy: str) -> list[str]:
        scores = [path for name in self.tables for path in _scores(self._table(name, toy))]
        return list(dict.fromkeys(scores))

    # ---------------------------------------------------------------------------------------------------- figures

    def figure_names(self) -> str:
        """A pattern of the names of all figures."""
        return "|".join(self.figures)

    def figure_results(self, folder: str) -> list[str]:
        """All figures in ``figures`` or ``toy_figures``."""
        toy = folder.removesuffix("figures")
        return [
            paths.FIGURE.format(toy=toy, figure=name)
            for name, figure in self.figures.items()
            if figure.kind.has_toys or not toy
        ]

    def figure_inputs(self, wildcards: Any) -> list[str]:
        """The result files that a figure is drawn from."""
        figure = self._figure(wildcards)
        return figure.kind.inputs(figure.settings, self._scales[wildcards.toy])

    def figure_arguments(self, wildcards: Any) -> list[str]:
        """The arguments of a figure's command that follow ``OUT.png``, not yet quoted."""
        figure = self._figure(wildcards)
        return figure.kind.arguments(figure.settings, self._scales[wildcards.toy])

    def figure_module(self, wildcards: Any) -> str:
        """The module whose command draws a figure."""
        return self._figure(wildcards).kind.module

    def figure_code(self, wildcards: Any) -> str:
        """The fingerprint of the command that draws a figure."""
        return fingerprint([self.figure_module(wildcards)])

    def _figure(self, wildcards: Any) -> Figure:
        name = wildcards.figure
        if name not in self.figures:
            raise UserError(f"there is no figure {name!r}; {suggestion(name, self.figures)}")
        if wildcards.toy and not self.figures[name].kind.has_toys:
            raise UserError(f"figure {name!r} has no toy; ask for {paths.FIGURE.format(toy='', figure=name)}")
        return self.figures[name]


def _existing(folder: Path) -> list[str]:
    """The files under ``folder`` that have the form of a result, sorted."""
    forms = (paths.RESULT, paths.TABLE, paths.TABLE_PLOT, paths.FIGURE, paths.SUMMARY)
    patterns = {re.sub(r"{\w+}", "*", form) for form in forms}
    found = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    return sorted(found)


@cache  # Snakemake calls input functions more than once
def _note_unknown(names: tuple[str, ...]) -> None:
    log.warning(
        "note: no configured run, table or figure makes %s; left out. If another file defines it, name the file with "
        "CONFIG=FILE or move its content into config.local.yaml",
        ", ".join(names),
    )


def _scores(table: dict) -> list[str]:
    """The score files of a resolved table, each once."""
    found = (path for row in table["rows"] for path in row["scores"].values())
    return list(dict.fromkeys(table_files.RESULTS + path for path in found))


def _trained_runs(samples: Iterable[SampleSet]) -> list[str]:
    """The runs of samples that were not published."""
    return list(dict.fromkeys(one.run for one in samples if one.kimg != RELEASED))
