# Every command brings up .venv first. Stamps in .venv record what is installed, so a second call
# installs nothing and needs no network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The build backend is in .venv already, pinned: pip need not fetch another for an isolated build.
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt --no-build-isolation --editable

.PHONY: help demo test check bench format clean
.NOTPARALLEL:  # one pip at a time in one .venv

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## select a bias of a small model made here, in ./beftkit-demo
	$(BIN)/beftkit demo

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.installed-dev  ## format, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev  ## time the commands against the obvious ways
	$(BIN)/python bench/score_cli.py
	$(BIN)/python bench/score_hub.py
	$(BIN)/python bench/train.py --quick
	$(BIN)/python bench/fisher.py --quick
	$(BIN)/python bench/causal.py --quick
	$(BIN)/python bench/merge.py --repeats 1
	$(BIN)/python bench/survey.py --models 60
	mkdir -p .benchmarks
	$(BIN)/python -m pytest bench/kernels_cpu.py --benchmark-json=.benchmarks/kernels_cpu.json

format: $(VENV)/.installed-dev  ## format the code and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:  ## remove caches, builds and the demo's output (.venv stays)
	rm -rf build dist beftkit.egg-info beftkit-demo
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/.created: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt setuptools
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) '.[plot]'
	touch $@

# Holds all that .installed does and stamps both: after `make test`, `make demo` installs nothing.
$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) '.[dev,plot]'
	touch $(VENV)/.installed $@
