# Every target makes what it needs: a fresh clone with Python 3.11 and pip runs any of them.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-soak fuzz test-torch test-clients test-postgres test-stores test-gpu gpu-check test-cuda test-native test-ray image test-image test-kubernetes test-page compat mutants check format bench docs serve proto lock clean

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed runtime/native/libhsoftmax.so ## Install the project and its tools into .venv

.venv/installed: requirements/dev.txt pyproject.toml hatch_build.py
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Without a C compiler everything runs, with ONNX Runtime alone.
runtime/native/libhsoftmax.so: $(wildcard native/*.[ch]) native/build.py | .venv/installed
	-$(BIN)/python native/build.py

demo: install ## Export the sample model, serve it, ask three questions in words
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

test-postgres: install ## Run the tests of jobs with PostgreSQL (apt-get install postgresql haproxy)
	$(BIN)/pytest -n 0 -m postgres

test-stores: install ## Run the tests with servers of S3 and Azure: moto and azurite (apt-get install nodejs npm postgresql haproxy)
	test -e build/stores-venv/bin/moto_server || ($(PYTHON) -m venv --clear build/stores-venv && \
		build/stores-venv/bin/pip install --quiet --disable-pip-version-check 'moto[s3,server]>=5.1')
	-test -e build/stores/node_modules/azurite || npm install --prefix build/stores --no-save --silent 'azurite@>=3.35'
	$(BIN)/pytest -n 0 -m stores

test-page: install ## Drive the page with a browser (apt-get install chromium npm); screenshots go to build/page
	test -e build/page/site/playwright || $(BIN)/pip install --quiet --disable-pip-version-check \
		--target build/page/site 'playwright>=1.49'
	-test -e build/page/node_modules/axe-core || npm install --prefix build/page --no-save --silent axe-core
	PYTHONPATH=build/page/site $(BIN)/pytest -n 0 -s -m page

SANITIZE := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
	-DCACHED_WEIGHTS=500 -DSTREAMED_WEIGHTS=900 -DWEIGHTS_PER_THREAD=400 -DTILE_WEIGHTS=300
test-native: install ## Run the native kernels' tests and a fuzzer under sanitizers (NATIVE_FUZZ_SECONDS=300)
	mkdir -p build/native
	$(BIN)/python native/build.py build/native/libhsoftmax.so $(SANITIZE)
	LD_PRELOAD=$$($${CC:-gcc} -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
		NATIVE_LIBRARY=build/native/libhsoftmax.so NATIVE_FUZZ_SECONDS=$${NATIVE_FUZZ_SECONDS:-300} \
		$(BIN)/pytest -n 0 -s tests/runtime/test_native_*.py

image: ## Build the image with Docker or buildah (VARIANT=cpu, full or cuda)
	deploy/image/build.sh $${VARIANT:-cpu}

IMAGES ?= cpu full
test-image: install ## Build the images IMAGES="cpu full" and run them (without Docker: apt-get install buildah debootstrap runc)
	for variant in $(IMAGES); do deploy/image/build.sh $$variant || exit 1; done
	IMAGES="$(IMAGES)" $(BIN)/pytest -n 0 -m image -s

CRDS ?=
test-kubernetes: install ## Render the manifests with kubectl and check them against schemas (CRDS=folder of custom resource definitions)
	test -e build/kubernetes/site/kubernetes_validate || $(BIN)/pip install --quiet --disable-pip-version-check \
		--target build/kubernetes/site 'kubernetes-validate>=1.37'
	PYTHONPATH=build/kubernetes/site CRDS="$(CRDS)" $(BIN)/pytest -n 0 -m kubernetes -rs

test-soak: install ## Run the service for minutes under load (SOAK_SECONDS=300)
	$(BIN)/pytest -n 0 -m soak

fuzz: install ## Try hostile inputs on every parser (FUZZ_SECONDS=600, FUZZ_SEED=0); failing ones go to build/fuzz
	$(BIN)/python -m tests.fuzz

test-torch: install ## Run the tests that need PyTorch, which is installed
	$(BIN)/pip install --quiet --disable-pip-version-check 'torch>=2.5' onnxscript 'tokenizers>=0.21'
	$(BIN)/pytest -m torch
	$(BIN)/pytest tests/runtime/test_tokenizer.py

test-gpu: ## Run every check that needs CUDA, in an environment of its own
	PYTHON=$(PYTHON) tests/gpu.sh

gpu-check: install ## Make build/gpu-check.tar.gz, which checks and times the graphs on a machine with a GPU alone
	$(BIN)/python -m tests.gpu_check.archive build/gpu-check.tar.gz

test-cuda: ## Check without a GPU where each node of the graphs for CUDA runs, in an environment of its own
	PYTHON=$(PYTHON) tests/pretend_cuda/run.sh

MUTANTS ?= 200
SEED ?= 0
mutants: install ## Change the code at MUTANTS=200 places, one at a time: does a test notice? (resumes)
	test -e build/mutation/tools/coverage || $(BIN)/pip install --quiet --disable-pip-version-check \
		--target build/mutation/tools 'coverage>=7.10'
	$(BIN)/python -m tests.mutation --mutants $(MUTANTS) --seed $(SEED)

compat: ## Run the tests with each Python that is promised, and the lowest and newest packages (COMPAT=lowest: one)
	$(PYTHON) -m tests.compatibility -n 2

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

docs: build/docs-venv/installed ## Write the documentation as a site into build/site, in an environment of its own
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/mkdocs build --strict

build/docs-venv/installed: requirements/docs.txt
	$(PYTHON) -m venv --clear build/docs-venv
	build/docs-venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	touch $@

serve: install build/repository ## Serve the sample model on port 8000
	$(BIN)/hsoftmax serve build/repository

build/repository: | install
	$(BIN)/hsoftmax export examples/state_of_the_union/weights.npz --from theano \
		--labels examples/state_of_the_union/labels.txt --to $@/sotu

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url pyproject.toml
proto: install ## Compile inference.proto for the service
	$(BIN)/python -m grpc_tools.protoc -I service/grpc \
		--descriptor_set_out=service/grpc/inference.binpb inference.proto

lock: ## Pin every dependency with hashes (needs uv)
	$(COMPILE) --extra dev -o requirements/dev.txt
	$(COMPILE) --extra dev --extra ray -o requirements/ray.txt
	$(COMPILE) --extra bench -o requirements/bench.txt
	$(COMPILE) --extra service -c requirements/dev.txt -o requirements/cpu.txt
	$(COMPILE) --extra full -c requirements/dev.txt -o requirements/full.txt
	$(COMPILE) --extra service-cuda --extra grpc -c requirements/dev.txt -o requirements/cuda.txt
	echo hatchling cyclonedx-bom | tr ' ' '\n' | $(COMPILE:pyproject.toml=-) -o requirements/build.txt
	printf '%s\n' mkdocs-material mkdocstrings-python ruff | $(COMPILE:pyproject.toml=-) -o requirements/docs.txt

clean: ## Remove what was made
	rm -rf .venv build dist
