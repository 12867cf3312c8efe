# What Snakemake says about targets, in our words: it reports an unknown one without naming what there is.
import os
from functools import cache

from snakemake.cli import get_argument_parser

from diffit.config.targets import TOLERANT, known_targets, refuse_unknown


# The targets in the command line. Snakemake itself knows them only after it has read the rules.
def command_line():
    if Path(sys.argv[0]).name not in ("snakemake", "__main__.py", "dry_run.py"):
        return None  # Snakemake's Python interface
    return get_argument_parser().parse_known_args(sys.argv[1:])[0]


def refuse_unknown_targets(asked):
    options = (asked.targets, asked.forcerun, asked.until, asked.omit_from, asked.prioritize)
    for target in [name for names in options for name in names or []]:
        path = target if Path(target).is_absolute() else os.path.normpath(target)
        if not workflow.is_rule(target) and not any(one.is_producer(path) for one in workflow.rules):
            known = known_targets(config, paper.lookups.tables, paper.lookups.figures)
            named = [one.name for one in workflow.rules]
            exit_on_user_error(refuse_unknown)(target, known, named, RUNS)


# A missing folder or file of the user ends a run before its first job. A plan may be made without it, and so may a dry
# run of all results or tables, which lists it.
def tolerate_missing_files(asked):
    many = asked.dryrun and all(workflow.is_rule(target) for target in asked.targets)
    if many or TOLERANT in os.environ:
        warn = cache(lambda message: print(f"warning: {message}", file=sys.stderr))
        look.lookups.report_missing = lambda error: warn(str(error))


if asked := command_line():
    refuse_unknown_targets(asked)
    tolerate_missing_files(asked)
