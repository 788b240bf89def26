# Everything that a newcomer needs:  make run  and  make test.
#
# Both make a virtual environment in .venv on their first run; stamp files in it make later
# runs start at once.  Another interpreter: make run PYTHON=/path/to/python3.12

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The first interpreter that is new enough; the plain name where there is none, for the message.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && exit; \
	done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SOAK_SEED ?= 0
SOAK_SEEDS ?= 1000
SOAK_PROTOCOLS ?= raft paxos zab
SOAK_MINUTES ?= 30

.PHONY: help
help:
	@echo "make run     start a cluster of three nodes on this machine  (ARGS='--nodes 5' passes options to quorate up)"
	@echo "make test    lint, types and all tests                       (ARGS='-k lock' passes options to pytest)"
	@echo "make crash   kill -9 nodes under load for two minutes           (QUORATE_CRASH_SECONDS=600 for longer)"
	@echo "make mutants put deliberate bugs into the code, one at a time: the simulator must find each (ARGS='--only NAME')"
	@echo "make soak    many seeds of the simulator, each service and protocol, three nodes and five (SOAK_SEEDS=5000 SOAK_SEED=100000 for others)"
	@echo "             then full load on three nodes: no election may happen        (SOAK_MINUTES=5 instead of 30)"
	@echo "make lint    ruff and mypy only"
	@echo "make format  let ruff rewrite the code"
	@echo "make bench   compare with ZooKeeper and etcd, speed and failover, and measure memory; needs scripts/install-peers.sh"
	@echo "make clean   remove the virtual environment and caches; data of clusters stays"

.PHONY: run
run: $(VENV)/.stamp-run
	@exec $(BIN)/quorate up $(ARGS)

.PHONY: test
test: lint
	@# Tests with real processes measure out real time, so nothing else runs beside them.  5: no test fits ARGS.
	@trap 'exit 130' INT; failed=0; \
	$(BIN)/pytest -m 'not processes' -n auto --dist loadfile --no-loadscope-reorder $(ARGS) || [ $$? -eq 5 ] || failed=1; \
	$(BIN)/pytest -m processes $(ARGS) || [ $$? -eq 5 ] || failed=1; \
	exit $$failed

.PHONY: crash
crash: $(VENV)/.stamp-dev
	QUORATE_CRASH_SECONDS=$${QUORATE_CRASH_SECONDS:-120} $(BIN)/pytest -s tests/processes/test_crash.py $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.stamp-dev
	$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: soak
soak: $(VENV)/.stamp-dev
	$(BIN)/quorate simulate --seed $(SOAK_SEED) --seeds $(SOAK_SEEDS) --keep-going $(ARGS)
	$(BIN)/quorate simulate --nodes 5 --seed $(SOAK_SEED) --seeds $$(( $(SOAK_SEEDS) * 3 / 10 )) --keep-going $(ARGS)
	$(BIN)/quorate simulate --service etcd --seed $(SOAK_SEED) --seeds $(SOAK_SEEDS) --keep-going $(ARGS)
	$(BIN)/quorate simulate --service etcd --nodes 5 --seed $(SOAK_SEED) --seeds $$(( $(SOAK_SEEDS) * 3 / 10 )) \
		--keep-going $(ARGS)
	@# What the defaults do not meet: each protocol under the other service, and under the cluster's own group.
	for protocol in $(SOAK_PROTOCOLS); do for service in zookeeper etcd; do \
		$(BIN)/quorate simulate --protocol $$protocol --service $$service --seed $(SOAK_SEED) \
			--seeds $$(( $(SOAK_SEEDS) * 3 / 10 )) --keep-going $(ARGS) || exit; \
		$(BIN)/quorate simulate --protocol $$protocol --service $$service --nodes 5 --seed $(SOAK_SEED) \
			--seeds $$(( $(SOAK_SEEDS) / 10 )) --keep-going $(ARGS) || exit; \
	done; done
	$(BIN)/python bench/steady.py --minutes $(SOAK_MINUTES)

.PHONY: lint
lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.stamp-dev
	$(BIN)/python bench/zookeeper.py $(ARGS)
	$(BIN)/python bench/etcd.py
	$(BIN)/python bench/failover.py
	$(BIN)/python bench/memory.py

.PHONY: clean
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(VENV)/.stamp-venv:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Quorate needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
		echo "Name another one:  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "'$(PYTHON)' cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@touch $@

# The package is installed in place, so only a change of its metadata asks for a new install.
$(VENV)/.stamp-run: $(VENV)/.stamp-venv pyproject.toml
	@echo "Installing Quorate and what it needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-venv pyproject.toml
	@echo "Installing Quorate and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.stamp-run $@
