# Two commands: `make demo` tries the service out, `make test` proves it. Each sets up what it needs below .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check bench fuzz lock clean

demo: .venv/demo
	@$(BIN)/python -m payments_service demo $(ARGS)

# Three processes on two cores, each with its own PostgreSQL: much of the time is spent waiting. ARGS=-n0 runs one.
# PROOFS=full runs the long proofs whole, for a release. The tests start many processes, which compile nothing twice.
test: check
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

# What is quick: style, types, the direction of imports, the Dockerfile.
check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=client $(BIN)/lint-imports
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi

bench: .venv/dev
	$(BIN)/python -m benchmarks $(ARGS)

# schemathesis for some minutes: FUZZ times as many made-up requests as in the suite, and others in each run.
FUZZ ?= 20
fuzz: .venv/dev
	FUZZ=$(FUZZ) $(BIN)/python -m pytest -n0 -p no:randomly tests/test_schemathesis.py $(ARGS)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "Python's venv module is missing: on Debian, apt-get install python3-venv"; exit 1; }

.venv/demo: requirements-demo.lock | .venv/bin/python
	$(PIP) install --quiet --require-hashes -r requirements-demo.lock
	touch $@

.venv/dev: requirements-dev.lock | .venv/bin/python
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	touch $@ .venv/demo

# Pin anew: the three files are what pyproject.toml asks for, for all platforms, with hashes.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock" $(ARGS) pyproject.toml
lock: | .venv/bin/python
	$(PIP) install --quiet uv
	$(LOCK) -o requirements.lock
	$(LOCK) --extra demo -o requirements-demo.lock
	$(LOCK) --extra dev -o requirements-dev.lock

clean:
	rm -rf .venv .data build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/*/node_modules
