# make demo   install, then the main job on the embedded data set, minutes on two cores
# make test   install, then the whole test suite, about 13 minutes on two cores
# make lint   ruff, mypy, import directions
# make bench  timed benchmarks (never part of make test); writes benchmarks.json (FIGURES=PATH)

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
FIGURES ?= benchmarks.json

.PHONY: demo test lint bench docs clean install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Expected Python 3.11 or newer: set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/bench run --scheme all --attack pruning,removal-matting --jobs 2

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m pytest tests/benchmarks -p no:xdist --benchmark-sort=name --benchmark-columns=min,median,max,rounds --figures $(FIGURES)

docs: install
	$(BIN)/python tools/generate.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .benchmarks
