# Every command sets up what it needs, on a machine that has Python 3.11 or newer and nothing else.
# ARGS is handed on: make run ARGS="--port 9000", make test ARGS="-x -k failover".

.DEFAULT_GOAL := help
.PHONY: help run test slow lint types format check bench sdks lock clean

help:
	@echo "make run      the gateway (without a configuration: the sandbox on http://127.0.0.1:8000)"
	@echo "make test     the tests            make slow    the tests that take long"
	@echo "make lint     ruff                 make types   mypy"
	@echo "make format   ruff, in place       make check   all of these"
	@echo "make bench    the gateway's CPU seconds, beside the figures of scripts/bench.json; ARGS=--save keeps the new ones"
	@echo "make sdks     the SDKs and clients that tests run beside the project's own (make test and slow do it too)"
	@echo "make lock     the lock files anew; ARGS=--upgrade takes the newest versions"
	@echo "make clean    removes what the above have made"

run: .venv/.ready
	@.venv/bin/image-gateway serve $(ARGS)

# Two processes a core (tests/conftest.py), at most eight, and all tests of a file in one process.
# ARGS="-n 0": one process for everything. The tests are compiled once, also where the environment has Python keep nothing.
# Where the network is missing, the SDKs' tests say why they are left out; a complete run does not let them.
test: .venv/.ready
	@.venv/bin/python -m tests.sdks.install tests/sdks || test -z "$$GATEWAY_TESTS_COMPLETE"
	@PYTHONDONTWRITEBYTECODE= .venv/bin/pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

slow: .venv/.ready
	@.venv/bin/python -m tests.sdks.install tests/sdks tests/generators tests/clients tests/pages || test -z "$$GATEWAY_TESTS_COMPLETE"
	@PYTHONDONTWRITEBYTECODE= .venv/bin/pytest -m slow $(ARGS) || test $$? -eq 5  # 5: there are none

lint: .venv/.ready
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: .venv/.ready
	@.venv/bin/mypy

format: .venv/.ready
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

check: lint types test slow

bench: .venv/.ready
	@.venv/bin/python scripts/bench.py $(ARGS)

sdks: .venv/.ready
	@.venv/bin/python -m tests.sdks.install tests/sdks tests/generators tests/clients tests/pages

lock: .tools/.ready
	@.tools/bin/python scripts/lock.py $(ARGS)

clean:
	rm -rf .venv .tools .sdk .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A uv of our own: nothing is expected of the machine, and the lock file says which one.
.tools/.ready: requirements-tools.lock
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Python 3.11 or newer is needed and none is on the PATH; name one: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "setting up .tools with $$($$found --version)"; \
	$$found -m venv --clear .tools || { echo "this Python cannot make environments (Debian: apt install python3-venv)" >&2; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-tools.lock
	@touch $@

# Packages by hash; the gateway itself editable, built by the hatchling that was just installed.
.venv/.ready: .tools/.ready requirements-dev.lock pyproject.toml
	@.venv/bin/python -c '' 2>/dev/null || .tools/bin/uv venv --quiet --clear --no-project --python .tools/bin/python .venv
	@.tools/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements-dev.lock
	@.tools/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
