PYTHON ?= python3
BIN := .venv/bin
# Test files side by side: most of their time is waiting for groups, brokers and timeouts.
JOBS ?= 3

.PHONY: help demo test check lint format bench bench-kafka bench-check bench-engines soak kafka kafka-stop clean

help:  ## What there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	@echo "Installing into .venv (once; TensorFlow makes it large)"
	@test -d .venv || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[kernel]'
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing the development tools into .venv (once)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev,plots]'
	@touch $@

demo: .venv/installed  ## The main job on an embedded broker (ARGS="--keep" leaves it running)
	@$(BIN)/lstm-worker demo $(ARGS)

test: .venv/installed-dev  ## The whole test suite
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

check: lint  ## Linters, types and unit tests
	@$(BIN)/python -m pytest tests/unit tests/test_tidy.py

lint: .venv/installed-dev  ## Linters and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict worker

format: .venv/installed-dev  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

kafka: .venv/installed-dev  ## Start a real Apache Kafka from Maven jars (ARGS="--nodes 3")
	@$(BIN)/python -m tools.kafka start $(ARGS)

kafka-stop: .venv/installed-dev  ## Stop it and remove its data
	@$(BIN)/python -m tools.kafka stop

soak: .venv/installed-dev  ## All fault tests with all their faults, an hour or so (LSTM_WORKER_SEED=2 continues)
	@LSTM_WORKER_SOAK=1 $(BIN)/python -m pytest --verbose --numprocesses $(JOBS) --dist loadfile tests/sim tests/faults $(ARGS)

bench: .venv/installed  ## Throughput, step cost, start-up and memory on this machine
	@$(BIN)/lstm-worker bench $(ARGS)

bench-kafka: .venv/installed-dev  ## All figures on a real broker, 40 minutes at most (ARGS="--quick" tries it out)
	@$(BIN)/python -m benchmarks.on_kafka $(ARGS)

bench-check: .venv/installed-dev  ## Fails when the worker lost a third of its speed beside a pass-through loop
	@$(BIN)/python -m benchmarks.check $(ARGS)

bench-engines: .venv/installed-dev  ## What a step costs by engine, units and streams
	@$(BIN)/python -m benchmarks.engines $(ARGS)

clean:  ## Remove what was installed and made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
