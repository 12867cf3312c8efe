# `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PROFILE ?= profiles/local
# What `report` and `accept` are about: all results that are there, unless one is named.
report accept: GOAL ?= $(wildcard results/*_fid.csv results/*tables/*.csv results/*tables/*.png results/*figures/*.png results/*summary.md)

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

install: $(INSTALLED) ## create .venv with the locked versions

demo: $(INSTALLED) ## train, sample and score handwritten digits on this machine
	$(BIN)/snakemake --profile profiles/local results/digits_fid.csv
	@cat results/digits_fid.md
	@echo "The digits it drew:  results/digits_grid.png"
	@echo "Its training curve:  results/digits_curve.png"
	@echo "All scores:          results/digits_fid.csv"
	@echo "TensorBoard:         .venv/bin/tensorboard --logdir results/runs"

toy-tables: $(INSTALLED) ## every table and figure of the paper with toys of its runs: within an hour on 2 cores
	$(BIN)/snakemake --profile profiles/toys toy_tables
	@cat results/toy_summary.md

plan: $(INSTALLED) ## what GOAL=… (or all) still needs: jobs, GPU-hours, disk, wall time; OPTIONS="--gpus 16 …"
	@$(BIN)/python -m diffit.planning.plan --profile $(PROFILE) $(OPTIONS) $(GOAL)

preflight: PROFILE = slurm
preflight: $(INSTALLED) ## whether GOAL=… (or all) can be made on this cluster; OPTIONS="--no-probe …"
	@$(BIN)/python -m diffit.planning.preflight --profile $(PROFILE) $(OPTIONS) $(GOAL)

test: $(INSTALLED) ## the tests, within 15 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow and not slurm"

test-slow: $(INSTALLED) ## tests that take minutes each
	$(BIN)/python -m pytest -m slow

test-slurm: $(INSTALLED) ## on a real SLURM of two nodes, started for it: as root, within 20 minutes on 2 cores
	$(BIN)/python -m pytest -m slurm

bench: $(INSTALLED) ## speed, two ways side by side
	@for bench in $(sort $(filter-out timing network quality,$(basename $(notdir $(wildcard bench/*.py))))); do $(BIN)/python -m bench.$$bench || exit 1; done

quality: $(INSTALLED) ## what the scores say of real and of damaged images, into docs: an hour on 2 cores
	$(BIN)/python -m bench.quality

report: $(INSTALLED) ## one HTML page of all results that are there
	@test -n "$(GOAL)" || { echo "error: there is no result yet to report; make demo makes one"; exit 1; }
	$(BIN)/snakemake --report results/report.html $(GOAL)

accept: $(INSTALLED) ## keep all results, or those of GOAL=…, after an edit that you know to be harmless
	@test -n "$(GOAL)" || { echo "error: there is no result yet to keep"; exit 1; }
	$(BIN)/snakemake --profile profiles/local --touch $(GOAL)

lint: $(INSTALLED) ## formatting and static checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(INSTALLED) ## format all sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow

.PHONY: help install demo toy-tables plan preflight test test-slow test-slurm bench quality report accept lint format
