# The few commands people type. Each sets up what it needs; a second call starts at once.
# Needs Python 3.11 or later, cargo and make. PIP_FIND_LINKS, PIP_CONSTRAINT and CARGO_TARGET_DIR are honoured.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
OUT ?= out
BIN := .venv/bin
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)

# Tests run optimised, with the checks that a release drops: overflow and debug assertions.
CARGO_TEST := cargo test --profile checked -p variegate-core

export PATH := $(CURDIR)/$(BIN):$(PATH)
# `kernels` is also a package on PyPI, and a folder here: keep the working directory off sys.path.
export PYTHONSAFEPATH := 1
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.PHONY: help demo test soak lint bench docs wheel clean

help:  ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

demo: .venv/.base  ## Build, and turn the standard library's own text into a training set in out/.
	$(BIN)/variegate demo -o $(OUT)

test: .venv/.dev  ## Run every test: Rust, Python, kernels in Triton's interpreter, the built wheel.
	$(CARGO_TEST)
	pytest

soak: .venv/.dev  ## Run the property tests for long, kill runs 300 times, and look for memory errors with valgrind.
	PROPTEST_CASES=20000 $(CARGO_TEST)
	HYPOTHESIS_PROFILE=soak FAULTS=300 pytest
	if command -v valgrind >/dev/null; then \
	  PROPTEST_CASES=4 CARGO_TARGET_$(TRIPLE)_RUNNER='valgrind --quiet --error-exitcode=1' \
	    $(CARGO_TEST) --lib; \
	else echo 'valgrind is not installed: memory errors were not looked for'; fi

lint: .venv/.dev  ## rustfmt, clippy, ruff, mypy --strict, and the stub against the extension.
	cargo fmt --check
	cargo clippy --profile checked --workspace --all-targets -- -D warnings
	ruff check
	ruff format --check
	mypy
	stubtest variegate._core --mypy-config-file pyproject.toml --allowlist tests/packaging/stubtest.allow

bench: .venv/.dev  ## Time everything on one thread, against peers; lines go to benches/results/.
	pytest benches --benchmark-quiet

docs: .venv/.dev  ## Build the documentation into site/, and stop at a broken link.
	RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps -p variegate-core
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

wheel: .venv/.dev  ## Build the wheel for this machine into dist/.
	maturin build --release --out dist

clean:  ## Remove what these commands made, except the results of benchmarks.
	rm -rf .venv dist site $(OUT) $(OUT)-input target .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f python/variegate/_core*.so

TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Variegate needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv
	pip install --quiet 'maturin>=1.12,<2'
	touch $@

# An editable install: Python changes count at once, Rust changes rebuild. The tests' environment contains the demo's.
.venv/.base: .venv/.made $(SOURCES)
	@echo 'Building variegate; the first time takes some minutes.'
	@if [ ! -e .venv/.dev ]; then pip install --quiet --no-build-isolation --editable '.[fast]'; \
	else $(MAKE) .venv/.dev; fi
	touch $@

.venv/.dev: .venv/.made $(SOURCES)
	@echo 'Building variegate and installing what its tests need; the first time takes some minutes.'
	@pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@ .venv/.base
