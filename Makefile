# make demo | make test | make test-slow | make lint | make format | make runs | make clean
# Each target sets up .venv by itself the first time. PYTHON=python3.12 make demo chooses the Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint format runs clean

demo: $(READY)
	$(BIN)/python code_examples/01_autoencoder.py

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

runs: $(READY)
	$(BIN)/python -m code_examples.utils $(ARGS)

clean:
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache

# The stamp is written last, so an installation that broke off is taken up again.
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "expected Python 3.10 or newer as $(PYTHON): choose one, e.g. PYTHON=python3.12 make"; exit 1; }
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)
