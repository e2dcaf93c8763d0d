# Each target does its own set-up; what is there already is not done again. All of it stays in .venv, but for the
# Debian packages that `make test` installs when it is run by root (tests/apt-packages.txt).
#
#   make run                              serve a 1 GiB demo disk
#   make run ARGS="disk.img --size 10G"   or what you like: the arguments of `blockyard serve`
#   make test                             everything that has to hold
#   make test PYTEST="-k login -x"        lint, then some of the tests
#   make bench, profile, soak             figures beside other targets, a flame graph, hours of load

PYTHON ?= $(firstword $(foreach python,python3.11 python3 python3.13 python3.12, \
	$(shell $(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))
VENV ?= .venv
BIN := $(VENV)/bin

ARGS ?=
PYTEST ?=
JOBS ?= 3  # tests that run at a time: most of them wait for processes more than they compute

.PHONY: run test bench profile soak lint format docs clean packages
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	@exec $(BIN)/blockyard serve $(ARGS)

test: lint packages
	$(BIN)/python -m pytest -m "not soak" -n $(JOBS) --dist worksteal --reruns 1 -p tests.unsteady $(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.installed-dev packages
	@tools/apt-packages tests/packaging/apt-packages.txt
	$(BIN)/python -m pytest -m soak --timeout=0 --hypothesis-profile=search $(PYTEST)

bench: $(VENV)/.installed-dev packages
	$(BIN)/python -m bench $(ARGS)

profile: $(VENV)/.installed-dev packages
	$(BIN)/python -m bench.profile $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages that are made from the code; the tests check that they are current.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m blockyard.cli.document > docs/command-line.md
	$(BIN)/python -m blockyard.control.catalogue > docs/events.md
	$(BIN)/python -m blockyard.cli.kinds_document > docs/layer-kinds.md
	$(BIN)/python -m blockyard.scsi.document > docs/supported-commands.md
	$(BIN)/python -m blockyard.media.document > docs/tape-commands.md
	$(BIN)/python -m blockyard.optical.document > docs/optical-commands.md
	$(BIN)/python -m tests.interop.conformance > docs/conformance.md
	$(BIN)/python -m tests.guest.compared > docs/compared-with-lio.md

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench tools -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/pip: tools/make_venv.py
	$(if $(PYTHON),,$(error Python 3.11 or later is needed: install it, or say where it is with `make PYTHON=...`))
	$(PYTHON) tools/make_venv.py $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# The other targets, initiators and tools that tests and benchmarks run against. Without root, those that are missing
# make the tests that need them fail in CI, and are said here.
packages: tests/apt-packages.txt
	@tools/apt-packages tests/apt-packages.txt
