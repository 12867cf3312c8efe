"""Targets that no rule makes: the nearest one that can be made."""

import difflib
from collections.abc import Iterable

from diffit.cli import UserError
from diffit.config import paths
from diffit.config.lookups import RELEASED
from diffit.config.toy_runs import PREFIX

TOLERANT = "DIFFIT_PLANS"  # environment variable: the user's missing files do not end a dry run

_OF_A_RUN = (paths.RESULT, paths.RESULT_MARKDOWN, paths.GRID, paths.CURVE, paths.COST, paths.COST_MARKDOWN)
_OF_A_TABLE = (paths.TABLE, paths.TABLE_MARKDOWN, paths.TABLE_LATEX, paths.TABLE_PLOT)
_WITHOUT_NAMES = (paths.SUMMARY, paths.GPU_HOURS, paths.GPU_HOURS_MARKDOWN)


def known_targets(config: dict, tables: Iterable[str], figures: Iterable[str]) -> list[str]:
    """Files that people ask for: results, tables and figures, and the files that name data sets, VAEs and runs."""
    found = []
    for name, run in config["runs"].items():
        found += [template.format(run=name) for template in _OF_A_RUN]
        for kimg in run.get("milestones", [RELEASED]):
            found += [paths.MILESTONE.format(run=name, kimg=kimg)]
            found += [paths.SAMPLES.format(run=name, kimg=kimg, sampler=run["sampler"])]
            found += [
                paths.SCORE.format(run=name, kimg=kimg, sampler=run["sampler"], protocol=protocol)
                for protocol in run["protocols"]
            ]
    for toy in ("", PREFIX):
        found += [template.format(toy=toy, table=table) for template in _OF_A_TABLE for table in tables]
        found += [paths.FIGURE.format(toy=toy, figure=figure) for figure in figures]
        found += [template.format(toy=toy) for template in _WITHOUT_NAMES]
    for name in config["datasets"]:
        found += [paths.ARCHIVE.format(dataset=name), paths.DATA.format(dataset=name)]
    return [*found, *(paths.VAE.format(vae=name) for name in config["vaes"])]


def refuse_unknown(target: str, known: Iterable[str], rules: Iterable[str], runs: Iterable[str]) -> None:
    """Raise :class:`UserError` for a target that no rule makes, with the nearest file or rule.

    Args:
        target: what was asked for.
        known: the result of :func:`known_targets`.
        rules: the names of the rules without wildcards.
        runs: the names of the runs.
    """
    choices = [*known, *rules]
    inside = [path for path in choices if target and path.startswith(f"{target.rstrip('/')}/")]
    if target in runs:
        near = paths.RESULT.format(run=target)
    elif inside:
        near = inside[0]
    else:
        # A path is compared as it is and with the folder that its author may have left out.
        found = [
            match
            for text in (target, f"results/{target}")
            for match in difflib.get_close_matches(text, choices, n=1, cutoff=0.75)
        ]
        near = max(found, key=lambda match: difflib.SequenceMatcher(None, target, match).ratio(), default="")
    way_out = f"did you mean {near}?" if near else f"ask for a result such as {paths.RESULT.format(run=list(runs)[-1])}"
    raise UserError(f"no rule makes {target or 'an empty name'}; {way_out}")
