# `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
# The lock that .venv was installed from, and where: its scripts name this folder, so it cannot be moved.
STAMP := $(if $(realpath $(BIN)/python),$(shell cat $(INSTALLED) 2>/dev/null))
# LOCK=… chooses requirements-$(LOCK).lock. The default is the installed one, for a new .venv what this machine needs; a
# login node has no GPU, but sbatch.
ifndef LOCK
LOCK := $(or $(firstword $(STAMP)),$(shell if [ "$$(uname)" = Darwin ]; then echo macos; \
  elif { test -e /proc/driver/nvidia || command -v nvidia-smi || command -v sbatch; } > /dev/null; then echo gpu; else echo cpu; fi))
endif
ifneq ($(STAMP),$(LOCK) $(realpath $(VENV)))
.PHONY: $(INSTALLED)
endif
# Without a GPU, torch needs only libcudnn.so, not the 470 MB of kernels that it would load.
SHRINK = if [ $(LOCK) = cpu ]; then rm -f $(VENV)/lib/python3*/site-packages/nvidia/cudnn/lib/libcudnn_*; fi
CACHES = for site in $(VENV)/lib/python3*/site-packages; do cp workflow/envs/writable_caches.py $$site/ && \
  echo "import writable_caches" > $$site/writable_caches.pth || exit 1; done
MUTANTS := .venv-mutants/.installed
PROFILE ?= local
# Files of your own with further data sets and runs, as in CONFIG=mine.yaml; config.local.yaml is read without being named.
CONFIG ?=
# Narrows test-slow and test-slurm, as in SELECT="and not extended".
SELECT ?=
# Processes of make test; a file of tests stays in one of them.
WORKERS ?= 2
# Goals of `report` and `accept`: all existing results that a configured run makes, unless GOAL names some.
report accept: GOAL ?= existing

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

# Makes a new .venv, unless only a lock or pyproject.toml was edited. Without the stamp, .venv counts as incomplete.
$(INSTALLED): $(wildcard requirements*.lock) pyproject.toml workflow/envs/writable_caches.py
	@test -f requirements-$(LOCK).lock || \
	  { echo "error: there is no requirements-$(LOCK).lock; set LOCK to gpu, cpu, plain or macos, or leave it out"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo "error: $(PYTHON) is missing, has no module venv, or is not Python 3.11, 3.12 or 3.13; name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing requirements-$(LOCK).lock into $(VENV)"
	@rm -f $@ && { test "$(STAMP)" = "$(LOCK) $(realpath $(VENV))" || $(PYTHON) -m venv --clear $(VENV); } && \
	  $(PIP) -r requirements-$(LOCK).lock && $(PIP) -e . && $(SHRINK) && $(CACHES) && \
	  echo "$(LOCK) $$(cd $(VENV) && pwd -P)" > $@ || \
	  { echo "error: the installation failed for the reason above; remove it, then repeat: make $(MAKECMDGOALS)"; exit 1; }

install: $(INSTALLED) ## create .venv with the locked versions; LOCK=gpu or LOCK=cpu overrides the choice by this machine

demo: $(INSTALLED) ## train, sample and score handwritten digits on this machine
	$(BIN)/snakemake --profile local results/digits_fid.csv
	@cat results/digits_fid.md
	@echo "Generated digits:    results/digits_grid.png"
	@echo "Training curve:      results/digits_curve.png"
	@echo "All scores:          results/digits_fid.csv"
	@echo "TensorBoard:         .venv/bin/tensorboard --logdir results/runs"

toy-tables: $(INSTALLED) ## make all tables and figures of the paper with toy runs: within an hour on 2 cores
# Many small jobs: one core per job, as many jobs at a time as there are cores.
	$(BIN)/snakemake --cores all --keep-going --rerun-incomplete --quiet host reason -- toy_tables
	@cat results/toy_summary.md

plan: $(INSTALLED) ## print what GOAL=… (default: all runs) still needs: jobs, GPU-hours, disk, wall time; OPTIONS="--gpus 16 …", CONFIG=mine.yaml
	@$(BIN)/python -m diffit.planning.plan --profile $(PROFILE) $(addprefix --configfile ,$(CONFIG)) $(OPTIONS) $(GOAL)

preflight: PROFILE = slurm
preflight: $(INSTALLED) ## check whether GOAL=… (default: all runs) can be made on this cluster; OPTIONS="--no-probe …"
	@$(BIN)/python -m diffit.planning.preflight --profile $(PROFILE) $(addprefix --configfile ,$(CONFIG)) $(OPTIONS) $(GOAL)

test: $(INSTALLED) ## run the tests in two processes (WORKERS=2)
	$(BIN)/python -m pytest -m "not slow and not slurm" -n $(WORKERS) --dist loadfile

test-slow: $(INSTALLED) ## run the tests that take minutes each
	$(BIN)/python -m pytest -m "slow $(SELECT)"

test-pythons: $(INSTALLED) ## the tests that need no torch, on the other supported versions of Python installed here
	$(BIN)/python tests/helpers/other_pythons.py

test-slurm: $(INSTALLED) ## run the tests on a real SLURM with two nodes, which they start: as root, within 20 minutes on 2 cores
	$(BIN)/python -m pytest -m "slurm $(SELECT)"

$(MUTANTS): $(INSTALLED) tests/helpers/mutants.lock
	$(BIN)/python -m venv --clear .venv-mutants
	.venv-mutants/bin/pip install --quiet --disable-pip-version-check --no-deps -r tests/helpers/mutants.lock
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$(.venv-mutants/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages_of_venv.pth
	@touch $@

mutants: $(MUTANTS) ## put mistakes into MODULES="diffit/process/edm.py …" (default: all; days), see docs/mutants.md
	.venv-mutants/bin/python tests/helpers/mutants.py $(MODULES)

bench: $(INSTALLED) ## run the benchmarks: two implementations side by side
	@for bench in $(sort $(filter-out timing network quality,$(basename $(notdir $(wildcard bench/*.py))))); do $(BIN)/python -m bench.$$bench || exit 1; done

quality: $(INSTALLED) ## write docs/quality.md, the scores of real and damaged images: an hour on 2 cores
	$(BIN)/python -m bench.quality

report: $(INSTALLED) ## make one HTML page of all existing results, or of GOAL=…
	$(BIN)/snakemake --report results/report.html $(if $(CONFIG),--configfile $(CONFIG)) -- $(GOAL)

accept: $(INSTALLED) ## keep all existing results, or GOAL=…, after an edit that you know to be harmless
	$(BIN)/snakemake --profile local --touch $(if $(CONFIG),--configfile $(CONFIG)) -- $(GOAL)

lint: $(INSTALLED) ## check formatting and run static checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(INSTALLED) ## format all sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow

.PHONY: help install demo toy-tables plan preflight test test-slow test-pythons test-slurm mutants bench quality report accept lint format
