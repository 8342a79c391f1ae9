# Every target works alone on a fresh clone: it installs what it needs into .venv first, and skips that when it is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Ray workers and DeepSpeed look for tools (ninja, ray) on PATH.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help install demo test lint docs docs-check
help:
	@echo "make demo     train a small teacher, distil it and show the result"
	@echo "make test     lint, types, docstrings, import order and all tests"
	@echo "make lint     lint, types, docstrings and import order only"
	@echo "make docs     build the site of the docs into site/"
	@echo "make docs-check  run every command of README and docs, with small settings (ONLY=PAGE for one page)"
	@echo "make install  install into $(VENV) (PYTHON=python3.12 to choose the interpreter)"

install: $(INSTALLED)

demo: $(INSTALLED)
	$(RUN) $(BIN)/pidscale demo $(SETTINGS)

docs: $(INSTALLED)
	$(BIN)/python docs/site/build.py site

docs-check: $(INSTALLED)
	$(RUN) $(BIN)/python -m tests.docs $(if $(ONLY),--only $(ONLY))

test: lint
	$(RUN) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint -q pidscale
	$(BIN)/lint-imports

# editable_mode=compat: the checkout is found as a path, or a script beside a checkout named pidscale would import that folder.
# The stamp is written last, so an interrupted installation is taken up again. pip writes the RECORD of a package last:
# a package without one is half installed, and pip would take it for complete.
$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v[:2] <= (3, 13) or sys.exit(f"pidscale needs Python 3.11, 3.12 or 3.13, $(PYTHON) is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@for d in $(VENV)/lib/python3*/site-packages/*.dist-info; do [ ! -d "$$d" ] || [ -f "$$d/RECORD" ] || rm -r "$$d"; done
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt --config-settings editable_mode=compat -e '.[train,remote,zarr,onnx,hub,dev]'
	@touch $@
