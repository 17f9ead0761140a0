# Commands for developers. Everything is installed in .venv (make VENV=... for another); output goes to build/.
#
#   make demo         profile the demo's two models here, then on a virtual Jetson
#   make test         the whole test suite
#   make test-fast    the core and the sensors, without PyTorch: under a minute, for while you work
#   make coverage     the whole suite, and which lines it never ran
#   make fix          format the code and fix what ruff can fix
#   make names        how the code names things, the worst files first
#   make fuzz         every reader on 10,000 damaged files each
#   make lint         ruff, mypy --strict, import layers, the worker's language floor
#   make bench-smoke  every benchmark once, briefly, to check that it runs; its numbers mean nothing
#   make soak         the exporter for HOURS=2: memory and its slope, descriptors, CPU, scrapes beside node_exporter's
#   make attacks      the exporter under floods and slow clients, beside node_exporter
#   make test-kernel  the sensors against real kernel drivers in user-mode Linux (builds it once, some minutes)
#   make test-arm64  help, doctor, sensors, a bench, run and the exporter on an emulated Debian arm64 (root; a quarter of an hour)
#   make test-empty  make demo in a Debian with nothing but python3, make and git (root)
#   make test-systemd the exporter's service under a real systemd in QEMU (builds Debian once; root; many minutes)
#   make test-runtimes    OpenVINO, OpenCV, ncnn, Keras and language models, each in its own environment (RUNTIMES="openvino keras")
#   make test-recipes the recipes of docs/recipes.md with MLflow, W&B, Optuna and Olive, in an environment of their own
#   make test-onnx-suite  all models of ONNX's own backend suite (a part of them is in make test)
#   make site         the documentation as a site in build/site, built in its own environment; a warning is an error
#   make deb          a Debian package in build/, for the release and the processor of this machine
#   make test-deb     that package installed, used and removed, in a copy-on-write view of this system (root)
#   make stranger     what a newcomer does, by the documents alone, with the time that each step takes
#   make docs         regenerate the parts of docs/ that come from --help and from tests

VENV ?= .venv
BIN := $(VENV)/bin
# The tests of a file run in one process: they share boards and daemons that are costly to start.
PYTEST_ARGS ?= -n auto --dist loadfile
# A profiler's tests often wait for windows and processes, so 1.5 processes for each core keep the cores busy.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) '*' 3 / 2)
HOURS ?= 2
DEMO := examples/demo
BENCHMARKS := startup harness benchmark_tools record_overhead sampler_cost perturbation integration_error coverage truth compress integral_truth attacks thrift_prices sandbox fleet_door fleet_month stages stage_overhead long_run reports

.PHONY: fuzz demo test lint bench-smoke soak attacks test-kernel test-systemd test-fleet test-onnx-suite docs site deb test-deb stranger test-fast coverage fix names clean
.DELETE_ON_ERROR:

$(VENV)/.run: pyproject.toml tools/venv
	@HOLDS='edgeprof with ONNX Runtime, about 200 MB on disk' tools/venv $(VENV) -e '.[onnx]'
	@touch $@

$(VENV)/.develop: pyproject.toml tools/venv tests/constraints.txt
	@HOLDS='edgeprof with everything that its tests use; PyTorch makes it 2 GB on disk, or 7 GB where pip takes its CUDA build' \
	    tools/venv $(VENV) -e '.[all]' --group dev -c tests/constraints.txt
	@touch $@ $(VENV)/.run $(VENV)/.fast

$(VENV)/.fast: pyproject.toml tools/venv tests/constraints.txt
	@HOLDS='edgeprof with ONNX Runtime and what its fast tests use, about 600 MB on disk' tools/venv $(VENV) -e '.[onnx,exporter]' --group dev -c tests/constraints.txt
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@BIN=$(BIN) $(DEMO)/demo.sh

test: $(VENV)/.develop
	@tools/old-pythons .old-pythons
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Packages of pure functions and of virtual boards, whose tests need neither PyTorch nor a worker that loads a model.
FAST := $(addprefix tests/profiler/,artifact calibration diagnosis energy reporters results sensing simulation verdicts \
    worker test_plugins.py test_roots.py test_units.py) tests/plugins/sensors tests/plugins/metrics

test-fast: $(VENV)/.fast
	EDGEPROF_TESTS_WITHOUT=torch $(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow" $(FAST)

coverage: $(VENV)/.develop
	@tools/old-pythons .old-pythons
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-report=term:skip-covered

fix: $(VENV)/.fast
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

names: $(VENV)/.fast
	@$(BIN)/python tools/names.py

fuzz: $(VENV)/.develop
	$(BIN)/python -m tests.fuzzing --cases 10000

lint: $(VENV)/.develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/floor.py

bench-smoke: $(VENV)/.develop
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py --smoke; done

soak: $(VENV)/.develop
	@mkdir -p build
	$(BIN)/python benchmarks/soak.py --hours $(HOURS) --json build/soak.json

attacks: $(VENV)/.develop
	@mkdir -p build
	$(BIN)/python benchmarks/attacks.py --json build/attacks.json

test-kernel: $(VENV)/.develop
	tests/kernel/build.sh --install
	$(BIN)/python -m pytest tests/kernel $(PYTEST_ARGS)

test-systemd: $(VENV)/.develop
	EDGEPROF_SYSTEMD=1 $(BIN)/python -m pytest tests/systemd

.PHONY: test-arm64 test-empty
test-arm64:
	@tools/test-arm64

test-empty:
	@tools/test-empty

# Twelve virtual boards behind twelve SSH servers, with a fault in each round; some minutes. Needs sshd.
test-fleet: $(VENV)/.develop
	$(BIN)/python -m tests.profiler.fleet.faults
	$(BIN)/python -m tests.profiler.fleet.faults --cluster --boards 6
	EDGEPROF_FLEET=1 $(BIN)/python -m pytest -q -n0 tests/profiler/fleet/test_nat.py tests/profiler/fleet/test_cluster.py tests/profiler/fleet/test_jobqueue.py

.PHONY: test-runtimes
test-runtimes:
	@tools/test-runtimes $(RUNTIMES)

.PHONY: test-recipes
test-recipes:
	@HOLDS='edgeprof with MLflow, W&B, Optuna and Olive, which brings PyTorch: 2 GB on disk, or 6 GB where pip takes its CUDA build' \
	    tools/venv build/recipes -e '.[onnx-compress,search]' mlflow-skinny sqlalchemy alembic wandb olive-ai pytest pytest-timeout hypothesis pyyaml
	build/recipes/bin/python -m pip list --format freeze 2>/dev/null | grep -i -E '^(mlflow|wandb|optuna|olive)[a-z-]*==' | paste -s -d ' ' -
	build/recipes/bin/python -m pip wheel -q --no-deps -w build/recipes/wheel .
	build/recipes/bin/python -m pytest -q -p no:cacheprovider tests/docs/test_recipes.py
	EDGEPROF_WHEEL=$$(ls -t $(CURDIR)/build/recipes/wheel/*.whl | head -1) EDGEPROF_PYTHON=$$(readlink -f build/recipes/bin/python) \
	    build/recipes/bin/python -m pytest -q -p no:cacheprovider tests/docs/test_pages.py -k real_installation

test-onnx-suite: $(VENV)/.develop
	EDGEPROF_ONNX_SUITE=1 $(BIN)/python -m pytest tests/plugins/runtimes/test_onnx_suite.py

docs: $(VENV)/.develop
	$(BIN)/python tools/docs.py

build/mkdocs/.done: Makefile
	@HOLDS='MkDocs with the theme Material, about 100 MB on disk' tools/venv build/mkdocs 'mkdocs-material>=9.5,<10'
	@touch $@

site: build/mkdocs/.done
	NO_MKDOCS_2_WARNING=1 build/mkdocs/bin/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

deb: $(VENV)/.run
	BIN=$(BIN) tools/deb

# The package needs only python3 from Debian: EDGEPROF_DEB_ROOT may be a system fresh from debootstrap.
test-deb: $(VENV)/.fast deb
	EDGEPROF_DEB=1 $(BIN)/python -m pytest tests/docs/test_man.py

stranger: $(VENV)/.develop
	@$(BIN)/python tools/stranger.py

clean:
	rm -rf build $(VENV)
