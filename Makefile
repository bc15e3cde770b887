# Two commands: `make demo` and `make test`. PIP_ARGS reaches every pip call, so that a CPU-only box can point
# pip at PyTorch's CPU wheels (see the README).
PYTHON ?= python3
PIP_ARGS ?=
TEST_JOBS ?= 4
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/demo.toml

.PHONY: demo serve test containers check format clean

demo: $(VENV)/.installed
	$(BIN)/hunyuan-custom demo

serve: $(VENV)/.installed
	$(BIN)/hunyuan-custom serve --config $(CONFIG)

# Tests often wait for processes: four files at a time, also on two cores, in the order that tests/conftest.py gives.
# Compiled modules are written also where the environment forbids it: a hundred servers import them.
test: $(VENV)/.installed
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

# Builds the images and runs the compose file for real; needs Docker, or Podman, Buildah and podman-compose.
containers: $(VENV)/.installed
	CI=true CONTAINERS=1 PIP_ARGS="$(PIP_ARGS)" $(BIN)/python -m pytest -s tests/containers

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
