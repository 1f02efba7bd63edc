# `make help` lists what there is. PYTHON chooses the interpreter of the virtual environment.
PYTHON ?= python3

# Relative on purpose: a clone may lie in a directory whose name has blanks.
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install system demo test lint format bench clean

help:
	@echo "make install   Debian packages where missing, .venv, gridproof in it (the others do it by themselves)"
	@echo "make demo      an interactive analysis on an embedded Grid, from pilots to histogram"
	@echo "make test      the tests (TESTS=\"...\" passes arguments to pytest)"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff rewrite what it can"
	@echo "make bench     the benchmarks, into benchmarks.json (BENCH=\"throughput tails --quick\": only these, small)"
	@echo "make clean     remove .venv and all that was built"

install: $(STAMP)

# What must be on the machine: command, Python module or (for ROOT's pictures) library -> Debian package.
# Networks of sites behind firewalls can be made by root alone.
system:
	@missing=; need() { missing="$$missing $$1"; }; \
	command -v xrootd >/dev/null 2>&1 || need xrootd-server; \
	{ command -v xrdcp && command -v xrdfs; } >/dev/null 2>&1 || need xrootd-client; \
	command -v g++ >/dev/null 2>&1 || need g++; \
	{ command -v setpriv && command -v nsenter; } >/dev/null 2>&1 || need util-linux; \
	if [ "$$(id -u)" -eq 0 ]; then \
	  { command -v ip && command -v tc; } >/dev/null 2>&1 || need iproute2; \
	  command -v nft >/dev/null 2>&1 || need nftables; \
	else \
	  command -v bwrap >/dev/null 2>&1 || need bubblewrap; \
	fi; \
	python() { "$(PYTHON)" -c "$$1" >/dev/null 2>&1; }; \
	python 'import ensurepip, venv' || need python3-venv; \
	for library in libSM.so.6=libsm6 libXext.so.6=libxext6 libXrender.so.1=libxrender1 \
	    libXrdAccSciTokens-5.so=xrootd-scitokens-plugins; do \
	  python "import ctypes; ctypes.CDLL('$${library%=*}')" || need "$${library#*=}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null 2>&1; then \
	  echo "gridproof needs programs that are not here. Debian calls their packages:$$missing" >&2; \
	  echo "Install what your system calls them (XRootD 5: https://xrootd.org), then run make again." >&2; \
	  exit 1; \
	fi; \
	if [ "$$(id -u)" -ne 0 ]; then \
	  echo "gridproof needs Debian packages that are not here. Run this, then run make again:" >&2; \
	  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$$missing" >&2; \
	  exit 1; \
	fi; \
	echo "Installing Debian packages:$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >/dev/null

$(STAMP): pyproject.toml | system
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@echo "Installing gridproof and ROOT into .venv (the first time takes a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m gridproof.cli demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(TESTS)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy --strict gridproof
	$(BIN)/python -m mypy --strict benchmarks

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf .venv build dist pt_spectrum.png .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
