# Two commands on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
VENV ?= .venv
BIN  := $(VENV)/bin/

$(VENV)/run: pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	touch $@
$(VENV)/dev: $(VENV)/run
	$(BIN)python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
demo: $(VENV)/run
	$(BIN)gnomon examine sentence-embedding --out gnomon-report
test: $(VENV)/dev
	$(BIN)python -m pytest -n auto --maxprocesses 4 --dist loadfile
check: $(VENV)/dev
	$(BIN)ruff check . && $(BIN)ruff format --check . && $(BIN)lint-imports && $(BIN)mypy
docs: $(VENV)/dev
	$(BIN)python -m sphinx -W --keep-going -q docs docs/_build
.PHONY: demo test check docs
