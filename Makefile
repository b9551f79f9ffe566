# make lab         set everything up and open notebook 00
# make test        set everything up and run ruff, pytest and nbval over every notebook
# make notebooks   write both editions of each notebook from notebooks/source
# make clean       delete the environment, and with it every choice below
#
# PYTHON=python3.12   the interpreter that a new environment is made from
# TORCH_INDEX=URL     where to take torch from, for a CPU or a CUDA build (README, "CPU or CUDA"); remembered
# LAB_FLAGS=...       passed on to JupyterLab, such as --no-browser or --port=8899

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?= $(shell cat $(VENV)/torch-index 2>/dev/null)
LAB_FLAGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

# An environment is ready when it holds a stamp named after what it was made from. The name is a checksum of contents,
# because a checkout changes file times, and of this folder, because the package is installed as a link to it.
key = $(shell { echo '$(CURDIR)' '$(TORCH_INDEX)'; cat pyproject.toml constraints.txt $(1); } | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/runtime-$(call key,requirements.txt)
DEVELOPMENT := $(VENV)/development-$(call key,requirements.txt requirements-dev.txt)

# Without these JupyterLab asks the network for news and updates.
OFFLINE := --LabApp.news_url=None --LabApp.extension_manager=readonly \
           --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test notebooks clean

lab: $(RUNTIME)
	$(PY) -m jupyterlab $(OFFLINE) $(AS_ROOT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_FLAGS)

test: $(DEVELOPMENT)
	$(PY) -m ruff check .
	$(PY) -m pytest tests notebooks --nbval --nbval-current-env --nbval-sanitize-with=notebooks/sanitize.cfg \
	    --nbval-cell-timeout=300

notebooks: $(DEVELOPMENT)
	$(PY) notebooks/build.py

clean:
	rm -rf $(VENV) build rmat_tutorial.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian's Python has no ensurepip unless python3-venv is installed; its pip can fill an environment from outside.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
	    'Python 3.11 or later is needed, and $(PYTHON) is not. Name one that is: make PYTHON=python3.12 lab'; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv --clear $(VENV); \
	else $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	    $(PYTHON) -m pip --python $(PY) install -c constraints.txt pip; fi

# pip keeps an installed torch of the right version, whatever index it came from: a new choice must be forced.
$(RUNTIME): | $(PY)
	@rm -f $(VENV)/runtime-* $(VENV)/development-*
ifneq ($(TORCH_INDEX),)
	@test "$$(cat $(VENV)/torch-index 2>/dev/null)" = '$(TORCH_INDEX)' || \
	    $(PIP) install --force-reinstall --no-deps --index-url '$(TORCH_INDEX)' $(shell grep '^torch==' requirements.txt)
endif
	$(PIP) install $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') -r requirements.txt -e .
	@printf '%s' '$(TORCH_INDEX)' > $(VENV)/torch-index
# JupyterLab's front end asks to show its news whatever the flags above say.
	@mkdir -p $(VENV)/etc/jupyter/labconfig
	@echo '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' \
	    > $(VENV)/etc/jupyter/labconfig/page_config.json
# The first import lists the machine's fonts and says so; a notebook should not.
	$(PY) -c 'import matplotlib.pyplot'
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@rm -f $(VENV)/development-*
	$(PIP) install $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') -r requirements-dev.txt
	@touch $@
