# What the rules of tables and figures look up: rows of ours resolved to score files, runs of figures to their samples.
import yaml

from diffit.paper import table_files
from diffit.cli import nearest
from diffit.config.toy_runs import OVERLAY, load_overlay

TOYS = load_overlay(SOURCES / OVERLAY)
FIGURES = yaml.safe_load((SOURCES / "workflow/figures.yaml").read_text())


# A pattern of the names of figures of a kind.
def names_of(kind):
    return "|".join(FIGURES[kind])


wildcard_constraints:
    toy=r"(toy_)?",
    table=r"[A-Za-z0-9_]+",
    grid=names_of("grids"),
    attention=names_of("attention"),
    diagram=names_of("diagrams"),


# The paper's tables by name, without which rule asks for them.
def read_tables():
    paths = sorted((SOURCES / "workflow/tables").glob("*.yaml"))
    return {path.stem: table_files.read(path, SOURCES / table_files.SHAPE) for path in paths}


TABLES = or_one_sentence(read_tables)


# A table with its rows of ours resolved to score files, those of toys where toy_tables/ are meant.
def resolved_table(wildcards):
    name, overlay = wildcards.table, TOYS if wildcards.toy else None
    if name not in TABLES:
        sys.exit(f"error: there is no table {name!r}; {nearest(name, TABLES)}")
    return or_one_sentence(table_files.resolve, name, TABLES[name], config, overlay)


def table_spec(wildcards):
    return canonical(resolved_table(wildcards))


def table_scores(wildcards):
    return [f"results/{path}" for row in resolved_table(wildcards)["rows"] for path in row["scores"].values()]


# The sets of samples that the rows of all tables are scores of: run/milestone/sampler/protocol.
def table_sets(toy):
    overlay = TOYS if toy else None
    resolved = [or_one_sentence(table_files.resolve, name, table, config, overlay) for name, table in TABLES.items()]
    paths = [path for table in resolved for row in table["rows"] for path in row["scores"].values()]
    return dict.fromkeys(path.removeprefix("scores/").removesuffix(".json") for path in paths)


# The records that name the jobs behind all tables, by stage.
def table_jobs(wildcards):
    sets = [place.split("/") for place in table_sets(wildcards.toy)]
    runs = dict.fromkeys(name for name, milestone, *_ in sets if milestone != "released")
    images = dict.fromkeys(f"results/samples/{name}/{milestone}/{sampler}" for name, milestone, sampler, _ in sets)
    return [
        *(f"train=results/runs/{name}/state/legs.json" for name in runs),
        *(f"sample={folder}/manifest.json" for folder in images),
        *(
            f"measure=results/samples/{name}/{milestone}/{sampler}/features/{protocol}/manifest.json"
            for name, milestone, sampler, protocol in sets
        ),
    ]


# The training curves of the runs in all tables.
def table_curves(toy):
    places = [place.split("/") for place in table_sets(toy)]
    return [f"results/{name}_curve.png" for name in dict.fromkeys(p[0] for p in places if p[1] != "released")]


# All tables, and pictures of those that are figures.
def table_results(folder):
    figures = [name for name, table in TABLES.items() if "figure" in table]
    return [f"results/{folder}/{name}.csv" for name in TABLES] + [f"results/{folder}/{name}.png" for name in figures]


# The place of a figure's samples or milestone as tables resolve them: run/milestone/sampler.
def figure_place(wildcards, name, sampler=None):
    source = {"run": name} | ({"sampler": sampler} if sampler else {})
    overlay = TOYS if wildcards.toy else None
    return or_one_sentence(table_files.samples, f"workflow/figures.yaml: {name}", source, config, overlay)


def grid_samples(wildcards):
    figure = FIGURES["grids"][wildcards.grid]
    samplers = figure.get("samplers", [None] * len(figure["runs"]))
    places = [figure_place(wildcards, *pair) for pair in zip(figure["runs"], samplers)]
    return [f"results/samples/{place}/manifest.json" for place in places]


# Toys have other classes, and few images.
def grid_spec(wildcards):
    figure = FIGURES["grids"][wildcards.grid]
    rows = min(figure["rows"], 6) if wildcards.toy else figure["rows"]
    classes = None if wildcards.toy else figure.get("classes")
    return canonical({"rows": rows, "columns": figure["columns"], "classes": classes})


def attention_milestones(wildcards):
    runs = FIGURES["attention"][wildcards.attention]["runs"]
    places = [figure_place(wildcards, name).rpartition("/")[0] for name in runs]
    return [f"results/runs/{place}/ema.safetensors" for place in places]


def attention_sampler(wildcards):
    name = FIGURES["attention"][wildcards.attention]["runs"][0]
    return canonical(sampler(figure_place(wildcards, name).rpartition("/")[2]))


def diagram_network(wildcards):
    name = FIGURES["diagrams"][wildcards.diagram]["run"]
    return canonical(or_one_sentence(table_files.network, "workflow/figures.yaml", name, config))


# All pictures; diagrams have no toys.
def figure_results(folder):
    kinds = ("grids", "attention") if folder.startswith(PREFIX) else FIGURES
    return [f"results/{folder}/{name}.png" for kind in kinds for name in FIGURES[kind]]
