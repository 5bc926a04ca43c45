# Everything sets itself up: a virtual environment in .venv, the pinned packages, then the command.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN = .venv/bin/python

.PHONY: demo test services chaos zoo peers rehearsal lint bench clean

demo: .venv/demo
	$(RUN) launch.py -m study=demo

test: .venv/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadscope -m "not slurm and not wandb_server and not gpu and not zoo and not peers"

# against a real Slurm and a W&B-compatible server, which the tests start themselves; see .ci/run
services: .venv/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "(slurm or wandb_server) and not chaos"
	$(MAKE) chaos

# everything that can go wrong on a cluster, in one run, on a cluster of its own
chaos: .venv/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m chaos

# all 1,344 models of the grid through a real Slurm, under faults; hours, and goes on where it was
rehearsal: .venv/test
	$(RUN) -m tests.rehearsal

# with RobustBench's package; it asks for an old setuptools, so it lies in an environment of its own
# that sees everything of the other
zoo: .venv/zoo/ready
	OMP_NUM_THREADS=1 .venv/zoo/bin/python -m pytest -m zoo

# our attacks against the authors' at full effort; long
peers: .venv/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m peers

lint: .venv/lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/test
	$(RUN) -m tests.benchmarks

.venv/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv || { echo 'error: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv' >&2; exit 1; }
	touch $@

# torch and torchvision go first and together, so that their builds fit each other
.venv/demo: .venv/python pyproject.toml constraints.txt
	$(PIP) torch torchvision
	$(PIP) -e .
	touch $@

.venv/test: .venv/demo
	$(PIP) -e '.[test]'
	$(PIP) --no-deps torchattacks  # it asks for a version of requests from 2020
	touch $@

.venv/zoo/ready: .venv/test
	$(RUN) -m venv .venv/zoo
	.venv/zoo/bin/python -c "import pathlib, site; here = site.getsitepackages()[0]; outer = here.replace('/.venv/zoo/', '/.venv/'); pathlib.Path(here, 'outer.pth').write_text(f'import site; site.addsitedir({outer!r})')"
	.venv/zoo/bin/python -m pip install --quiet --disable-pip-version-check robustbench 'setuptools<81'
	touch $@

.venv/lint: .venv/test
	$(PIP) -e '.[lint,dashboards]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
