# What people who carry on need day by day. Use your own Python: make test PYTHON=python3

PYTHON ?= .venv/bin/python
BENCHMARKS = backend optimizers convex nn_cpu nn_layers recurrent unrolled distributed

.PHONY: install check test slow bench figures

install:                        # a virtual environment with everything
	python3 -m venv .venv && .venv/bin/pip install -r requirements.txt

check:                          # style, imports and layout
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

test: check                     # the fast tests, on all cores
	$(PYTHON) -m pytest -n auto

slow:                           # all tests
	$(PYTHON) -m pytest -n auto -m 'not gpu'

bench:                          # tables of benchmarks/results, alone on the machine
	for name in $(BENCHMARKS); do $(PYTHON) benchmarks/$$name.py --write || exit 1; done

figures:                        # figures and reports again, from the stored runs
	$(PYTHON) -m lab.cli report
