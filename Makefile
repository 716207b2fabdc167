# Every target makes what it needs: a fresh clone with Python 3.11 and pip runs any of them.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-soak test-torch test-clients test-gpu test-ray mutants check format bench serve lock clean

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## Install the project and its tools into .venv

.venv/installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install ## Export the sample weights, serve them, ask three questions
	$(BIN)/hsoftmax demo

test: install ## Run the tests
	$(BIN)/pytest -n 2

test-slow: install ## Run the slow tests
	$(BIN)/pytest -m slow

test-ray: install ## Run the tests that start Ray clusters
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/ray.txt
	$(BIN)/pytest -m ray

test-clients: install ## Run clients of others (apt-get install openjdk-17-jdk-headless curl nginx-light haproxy prometheus nodejs npm)
	$(BIN)/pytest -n 0 -m clients

test-soak: install ## Run the service for minutes under load (SOAK_SECONDS=300)
	$(BIN)/pytest -n 0 -m soak

test-torch: install ## Run the tests that need PyTorch, which is installed
	$(BIN)/pip install --quiet --disable-pip-version-check 'torch>=2.5'
	$(BIN)/pytest -m torch

test-gpu: ## Run every check that needs CUDA, in an environment of its own
	PYTHON=$(PYTHON) tests/gpu.sh

MUTANTS ?= 200
SEED ?= 0
mutants: install ## Change the code at MUTANTS=200 places, one at a time: does a test notice? (resumes)
	test -e build/mutation/tools/coverage || $(BIN)/pip install --quiet --disable-pip-version-check \
		--target build/mutation/tools 'coverage>=7.10'
	$(BIN)/python -m tests.mutation --mutants $(MUTANTS) --seed $(SEED)

check: install ## Lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Measure this machine; figures and plots into docs/performance.md
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python -W ignore -m benchmarks $(BENCH)

serve: install build/repository ## Serve the sample model on port 8000
	$(BIN)/hsoftmax serve build/repository

build/repository: | install
	$(BIN)/hsoftmax export examples/state_of_the_union/weights.npz --from theano \
		--labels examples/state_of_the_union/labels.txt --to $@/sotu

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url pyproject.toml
lock: ## Pin every dependency with hashes (needs uv)
	$(COMPILE) --extra dev -o requirements/dev.txt
	$(COMPILE) --extra dev --extra ray -o requirements/ray.txt
	$(COMPILE) --extra bench -o requirements/bench.txt
	$(COMPILE) --extra service -o requirements/cpu.txt
	$(COMPILE) --extra service-cuda -o requirements/cuda.txt
	echo hatchling | $(COMPILE:pyproject.toml=-) -o requirements/build.txt

clean: ## Remove what was made
	rm -rf .venv build dist
