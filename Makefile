# `make quickstart` and `make test` do all their own set-up; they need Python 3.11.
VENV := .venv
PYTHON := $(VENV)/bin/python
BASE_PYTHON := $(shell command -v python3.11 || command -v python3)
STAMP := $(VENV)/.installed

.PHONY: quickstart test slow arm runtimes consumers gpu bytes web lint benchmarks clean

quickstart: $(STAMP)
	$(PYTHON) examples/quickstart.py $(QUICKSTART)

test: $(STAMP)
	$(PYTHON) -m pytest --numprocesses auto --dist worksteal tests tf_lsq tflite_export

slow: $(STAMP)
	$(PYTHON) -m pytest tests -m slow

arm: $(STAMP)
	PYTHONPATH=tests:. $(PYTHON) -m arm64 $(ARM)

web: $(STAMP)
	PYTHONPATH=tests:. $(PYTHON) -m web $(WEB)
	$(PYTHON) -m pytest -m "slow or not slow" tests/test_demo_browser.py tests/test_demo_sound_browser.py tests/test_runtimes_wasm.py

runtimes: $(STAMP)
	PYTHONPATH=tests:. $(PYTHON) -m years $(RUNTIMES)

consumers: $(STAMP)
	PYTHONPATH=tests:. $(PYTHON) -m consumers $(CONSUMERS)
	PYTHONPATH=tests:. $(PYTHON) -m years.page docs/runtimes.md

gpu: $(STAMP)
	PYTHONPATH=tests:. $(PYTHON) -m gpu $(GPU)

bytes: $(STAMP)
	PYTHONPATH=tests:. $(PYTHON) -m app_bytes $(BYTES)

lint: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)

benchmarks: $(STAMP)
	$(PYTHON) -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(STAMP): setup.py pyproject.toml
	@echo "Installing into $(VENV) (TensorFlow is large; this takes a few minutes)"
	$(BASE_PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'needs Python 3.11'"
	$(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)
