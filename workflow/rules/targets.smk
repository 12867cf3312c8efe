# Targets of the command line are checked here, because Snakemake reports an unknown one without saying what there is.
# Snakemake knows its targets only after it has read the rules, so the command line is read a second time.
from snakemake.cli import get_argument_parser

from diffit.config.targets import known_targets, refuse_unknown


def check_targets():
    asked, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    for target in asked.targets:
        path = target if Path(target).is_absolute() else os.path.relpath(target)
        if not workflow.is_rule(target) and not any(rule.is_producer(path) for rule in workflow.rules):
            known = known_targets(config, paper.lookups.tables, paper.lookups.figures)
            named = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
            exit_on_user_error(refuse_unknown)(target, known, named, RUNS)


# Jobs of other executors call Snakemake without targets, and its Python interface has no command line.
if Path(sys.argv[0]).name in ("snakemake", "__main__.py", "dry_run.py"):
    check_targets()
