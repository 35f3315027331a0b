# `make` lists the commands. All of them can be repeated; what is done already is not done again.

VENV := .venv
BIN := $(VENV)/bin
SETUP := etc/dev/setup.sh
SOURCES := slurm_power job_wrappers training bench tests

# A development cluster runs jobs of several users, which needs root.
ifneq ($(shell id -u),0)
AS_ROOT := $(if $(shell command -v sudo),sudo env "PATH=$$PATH" PYTHONDONTWRITEBYTECODE=1)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench bench-training bench-serving bench-peak bench-llm bench-telemetry clean
.PHONY: packages-base packages-cluster venv train emulator plugin

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: packages-cluster venv train emulator plugin ## prepare this machine: packages, .venv with torch, C parts

demo: setup ## one day on a real Slurm cluster, without and with power management (LOAD=file.csv STORE=influxdb)
	$(AS_ROOT) $(BIN)/slurm-power demo $(if $(LOAD),--load "$(LOAD)") $(if $(STORE),--store "$(STORE)")

# The tests that start real servers come last and one after the other (tests/conftest.py).
test: setup ## all tests, those on a real Slurm cluster and a real InfluxDB too
	$(AS_ROOT) $(BIN)/pytest -q -n 2 --dist loadgroup --no-loadscope-reorder $(PYTEST_OPTIONS)

check: packages-base venv emulator ## format, lint, types, import contracts, unit tests; needs no Slurm and no torch, only a C compiler
	$(BIN)/ruff format --check --quiet $(wildcard $(SOURCES))
	$(BIN)/ruff check --quiet $(wildcard $(SOURCES))
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports > build/imports.txt || { cat build/imports.txt; exit 1; }
	$(BIN)/pytest -q -n 2 -rfE -m "not cluster and not influxdb and not torch and not browser"

format: venv ## format the Python files and mend what ruff can
	$(BIN)/ruff format --quiet $(wildcard $(SOURCES))
	$(BIN)/ruff check --quiet --fix $(wildcard $(SOURCES))

bench: setup ## measure the agent, the SPANK plugin, the tick and the planner
	$(AS_ROOT) $(BIN)/python -m bench.core

bench-training: venv train ## measure training: parity, FP8 against BF16, bubbles, energy (build/bench/training.json)
	$(BIN)/python -m bench.training $(BENCH_OPTIONS)

bench-serving: setup ## measure serving: peers side by side, overload, steering, memory (build/bench/serving.json)
	$(BIN)/python -m bench.serving $(BENCH_OPTIONS)

bench-peak: venv ## measure peak shaving on recorded loads, against the bound (build/bench/peak.json)
	$(BIN)/python -m bench.peak $(BENCH_OPTIONS)

bench-llm: venv ## measure a simulated LLM fleet over a synthetic week, by policy (build/bench/llm.json)
	$(BIN)/python -m bench.llm $(BENCH_OPTIONS)

bench-telemetry: setup ## measure telemetry: points/s into both stores, bytes a point, outage, a week's report
	$(BIN)/python -m bench.telemetry

clean: ## remove what was built and cached, but not .venv
	@! test -d build/cluster || $(AS_ROOT) $(BIN)/slurm-power cluster down
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(wildcard $(SOURCES)) -name __pycache__ -prune -exec rm -rf {} +

packages-base:
	@$(SETUP) packages base

packages-cluster:
	@$(SETUP) packages cluster

venv: packages-base
	@$(SETUP) venv

train: venv
	@$(SETUP) train

emulator: packages-base
	@mkdir -p build
	@$(MAKE) --no-print-directory --quiet -C slurm_power/testing/nvml_emulator BUILD="$(CURDIR)/build/nvml"

plugin: packages-cluster
	@$(MAKE) --no-print-directory --quiet -C spank BUILD="$(CURDIR)/build/spank"
