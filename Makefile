# make demo   the whole line on a phantom data set (or DATA=...), with the real default encoder
# make test   all tests, by as many processes as there are cores, 4 at most (TESTERS=1: by one)
# make docs   the documentation as a site
# make bench  how fast each stage is here: on the data set of the demo, or of BENCH_ROOT=... DATASET=27
# Each makes the environment in $(VENV) first; what is there already is used again.

VENV ?= .venv
PYTHON ?= python3
ROOT ?= demo
DATA ?=
CONFIGURATION ?= cnn
BENCH_ROOT ?= $(ROOT)/Example
DATASET ?= 900
TESTERS ?= auto

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
SIDE_BY_SIDE = --numprocesses "$(TESTERS)" --maxprocesses 4 --dist loadfile

.PHONY: help install demo test bench coverage docs lint format typecheck
.DEFAULT_GOAL := help

help:
	@echo "make demo [DATA=FOLDER] [CONFIGURATION=cnn|vit|linear]   plan, train, predict, evaluate; everything lies in $(ROOT)/"
	@echo "make test        run all tests; make coverage also counts the lines that they run"
	@echo "make docs        build the documentation into build/site; open build/site/index.html"
	@echo "make bench [BENCH_ROOT=FOLDER DATASET=NUMBER]   measure each stage on a planned data set, beside nnU-Net"
	@echo "make lint        check the style; make format mends what it can"
	@echo "make typecheck   check the types"

# torch and torchvision must fit each other, so that one call of pip resolves everything together.
$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$$($(PYTHON) --version) is too old: install Python 3.10 or newer, or give PYTHON=/path/to/python3"; exit 1; }
	@echo "making the environment $(VENV); the first time this downloads several GB"
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --disable-pip-version-check --editable '.[dev]'
	@touch "$@"

install: $(INSTALLED)

demo: $(INSTALLED)
	@"$(BIN)/python" -m autosam_net.commands.demo --root "$(ROOT)" --configuration "$(CONFIGURATION)" $(if $(DATA),--data "$(DATA)")

test: $(INSTALLED)
	"$(BIN)/python" -m pytest $(SIDE_BY_SIDE)

coverage: $(INSTALLED)
	"$(BIN)/python" -m coverage erase
	"$(BIN)/python" -m coverage run -m pytest $(SIDE_BY_SIDE)
	"$(BIN)/python" -m coverage combine --quiet
	"$(BIN)/python" -m coverage report

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --strict --quiet

bench: $(INSTALLED)
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet --editable '.[bench]'
	@"$(BIN)/python" -m benchmarks --root "$(BENCH_ROOT)" --dataset "$(DATASET)"

lint: $(INSTALLED)
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .

format: $(INSTALLED)
	"$(BIN)/python" -m ruff check --fix .
	"$(BIN)/python" -m ruff format .

typecheck: $(INSTALLED)
	"$(BIN)/python" -m mypy
