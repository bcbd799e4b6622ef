# Everything from a bare Python 3.11: `make` puts the tool at .venv/bin/bezant.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# Rooms whose tests know no clock but that of a simulation: at low priority, they take what the others leave.
CALM := simulator engine
# Rooms that know no clock but the patience of a minute, with which they wait for processes: before those above.
PATIENT := cli guides house net/archive net/metrics net/placement operations protocol sql \
  $(addprefix net/gateway/console/test_,access.py pages.py pictures.py) perf/test_peers_servers.py
# Rooms of real processes that wait for one another: one at a time, and before all others. (Two at a time would save some
# minutes, and cost a test now and then its patience.)
TIMED := others net/server perf net/cluster net/shards
ROOMS := $(filter-out others,$(CALM) $(TIMED))
TESTS := $(addprefix test-,$(CALM) patient $(TIMED))

# Every test of a node starts processes; none is to compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all demo test calm patient timed $(TESTS) kernels simulate check lock clean

all: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	touch $@

# The main job on real input: a bank's books over TCP, a million transfers, a crash, a recovery, a proof.
demo: all
	$(BIN)/bezant demo

# Style, types and every test: the kernels are compiled first, once for all tests, while style and types are looked at;
# then the tests of all rooms, whatever fails.
GO_ON := --no-print-directory --keep-going --output-sync=target
# What was made is not asked for again, by a make of its own.
MADE := --old-file kernels
# The flags of a make of its own number of jobs: those of this one but for its jobs (-n, say, must stay).
FLAGS = $(filter-out -j% --jobserver-auth=% --jobserver-fds=%,$(MAKEFLAGS))
test: all
	$(MAKE) $(GO_ON) --jobs 4 check calm patient timed

calm: kernels
	MAKEFLAGS='$(FLAGS)' nice -n 19 $(MAKE) $(GO_ON) $(MADE) --jobs 2 $(addprefix test-,$(CALM))

patient: kernels
	MAKEFLAGS='$(FLAGS)' nice -n 10 $(MAKE) $(GO_ON) $(MADE) test-patient

timed: kernels
	MAKEFLAGS='$(FLAGS)' $(MAKE) $(GO_ON) $(MADE) --jobs 1 $(addprefix test-,$(TIMED))

$(addprefix test-,$(ROOMS)): test-%: kernels
	$(BIN)/python -m pytest tests/$* $(addprefix --ignore tests/,$(filter $*/%,$(PATIENT)))

test-patient: kernels
	$(BIN)/python -m pytest $(addprefix tests/,$(PATIENT))

test-others: kernels
	$(BIN)/python -m pytest $(addprefix --ignore tests/,$(ROOMS) $(PATIENT))

# All that `make test` compiles, so that no two tests do it at once, and none again because its node ended before.
kernels: all
	$(BIN)/python -m tests.kernels

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
