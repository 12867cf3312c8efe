# Lookups of the paper's tables and figures, and the constraints of their wildcards.
from diffit.paper.lookups import PaperLookups

paper = Adapter(exit_on_user_error(PaperLookups)(config, SOURCES))


wildcard_constraints:
    toy=r"(toy_)?",
    table=r"[A-Za-z0-9_]+",
    figure=paper.figure_names(),
