# Everything from a bare Python 3.11: `make` puts the tool at .venv/bin/bezant.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: all demo test simulate check lock clean

all: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	touch $@

# The main job on real input: a bank's books over TCP, a million transfers, a crash, a recovery, a proof.
demo: all
	$(BIN)/bezant demo

# Style, types and every test; the simulator on one core, all others on the other one.
test: all check
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-rooms test-simulator

test-rooms: all
	$(BIN)/python -m pytest --ignore tests/simulator

test-simulator: all
	$(BIN)/python -m pytest tests/simulator

# Groups of real members under drawn faults; leaves a line in the record of what was run.
SEEDS ?= 1000
FROM ?= 0
PROFILE ?= all
simulate: all
	$(BIN)/python -m tests.simulator --seeds $(SEEDS) --from $(FROM) --profile $(PROFILE) --record tests/simulator/RECORD.jsonl

check: all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Renews the lock: versions and hashes, no addresses.
lock: all
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --extra dev --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --python-version 3.11 --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
