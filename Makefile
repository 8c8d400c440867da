# One set of commands for a newcomer, the hook and CI. Each makes what it needs, and only once.

PYTHON ?= python3
CORES ?= all
EXPERIMENT ?= demo
CONFIG = config/$(EXPERIMENT).yaml
BIN = .venv/bin
SNAKEMAKE = $(BIN)/snakemake --cores $(CORES)
OF = --configfile $(CONFIG)

.PHONY: help demo report figures test check bench lock clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

demo: .venv/installed  ## train and judge on digits in minutes, print the table
	@start=$$(date +%s) \
	&& $(SNAKEMAKE) --quiet rules reason host $(OF) \
	&& $(SNAKEMAKE) --quiet all --report reports/$(EXPERIMENT)/report.html $(OF) \
	&& cat reports/$(EXPERIMENT)/summary.md \
	&& $(BIN)/python -m regbench.overhead --since $$start --cores $(CORES) \
	&& ls reports/$(EXPERIMENT)/summary.md reports/$(EXPERIMENT)/*.html reports/$(EXPERIMENT)/figures/*.png

report: .venv/installed  ## bind the report of EXPERIMENT into one HTML file
	$(SNAKEMAKE) --report reports/$(EXPERIMENT)/report.html $(OF)

figures: .venv/installed  ## redraw tables and figures of EXPERIMENT from results/ and its report
	$(SNAKEMAKE) report_figures $(OF)

test: .venv/developing  ## all that CI runs
	$(MAKE) check
	$(BIN)/python -m pytest -m "not long" -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: .venv/developing  ## format, lint, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile config/demo.yaml

bench: .venv/installed  ## time training, scaling and the harness on the device at hand
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/harness.py

lock: .venv/developing  ## write down the versions that are installed
	(echo "# The versions that CI tests, written by make lock"; $(BIN)/pip freeze --exclude-editable | sort -f) > constraints.txt

clean:  ## remove the environment and all results but the committed reports
	rm -rf .venv results .snakemake

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regbench needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/developing: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
