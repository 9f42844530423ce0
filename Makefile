# The two commands: `make demo` (set up, then the main job) and `make test` (set up, then the tests).
PYTHON ?= python3
# Versions tried; `make setup CONSTRAINTS=` takes what pyproject.toml allows, and keeps a torch that is already in .venv.
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin

.PHONY: setup demo test soak chaos protos clean

setup: .venv/.ready

.venv/.ready: pyproject.toml $(wildcard decentra/codec/*.[ch]) $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("decentra needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/decentra demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

soak: setup
	$(BIN)/python -m pytest -m soak --numprocesses 0 --timeout 1200 --ignore tests/chaos/test_real_faults.py

chaos: setup
	$(BIN)/python -m pytest -m soak --numprocesses 0 --capture no tests/chaos/test_real_faults.py

protos: setup
	$(BIN)/python -m decentra.wire.generate

clean:
	rm -rf .venv build *.egg-info
