# make quickstart   install, train four learners on embedded data, print the table
# make test         the tests (minutes);  make test-all: the slow ones too;  make check: ruff and pyright
# make tables       the tables of the READMEs from experiments/results/;  RUNS=DIR takes over those of a folder of runs
# PYTHON=NAME       the Python of .venv, 3.11 to 3.13; otherwise find_python.sh chooses one
BIN := .venv/bin
export PYTHONSAFEPATH := 1
QUICKSTART := quickstart/protonet quickstart/matchingnet quickstart/maml quickstart/reptile

.PHONY: quickstart test test-all check tables clean

quickstart: .venv/installed
	"$(BIN)/metarun" train $(QUICKSTART)

# the programs are not optimised, which takes most of the time of compiling; test-all runs what users run. Three tests at
# a time, since some wait for jobs and processes
test: export XLA_FLAGS ?= --xla_backend_optimization_level=0
test: .venv/installed-dev
	"$(BIN)/python" -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: .venv/installed-dev
	"$(BIN)/python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev
	"$(BIN)/ruff" check .
	"$(BIN)/pyright"

tables: .venv/installed
	"$(BIN)/python" experiments/results/tables.py $(RUNS)

.venv/installed: setup.cfg constraints.txt pyproject.toml | .venv/bin/pip
	"$(BIN)/python" -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	"$(BIN)/python" -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

.venv/bin/pip:
	@python="$$(./find_python.sh "$(PYTHON)")" || exit 1; \
	"$$python" -m venv .venv || { rm -rf .venv; \
	  echo "cannot make a virtual environment: install your system's python3-venv package" >&2; exit 1; }

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
