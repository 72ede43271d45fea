# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
DEMO_PROMPT ?= a smiling face
# Faces that do not smile.
DEMO_SEEDS ?= 3,4,6,9,10,19,20,22
DEMO_OUTDIR ?= outputs/demo
# Chosen on other seeds than those shown; the embedded models want a weaker hold than the
# official one.
DEMO_FLAGS ?= --steps=80 --l2_lambda=0.0045 --strength=auto

# Versions and hashes that environments install. `make CONSTRAINTS= demo` takes the newest in the
# ranges of pyproject.toml.
CONSTRAINTS ?= constraints.txt
# Nothing for `make UPGRADE= constraints`, which keeps the versions that still fit.
UPGRADE ?= --upgrade

.PHONY: demo test test-shown test-fast test-newest fuzz kills lint format docs package constraints clean

demo: .venv/installed
	.venv/bin/styleclip-edit --prompt="$(DEMO_PROMPT)" --seeds=$(DEMO_SEEDS) $(DEMO_FLAGS) \
	  --outdir="$(DEMO_OUTDIR)"

test: .venv-test/installed
	.venv-test/bin/python -m pytest -m "not shown"

# What the README, the documents, the notebook, the examples and the benchmarks show.
test-shown: .venv-test/installed
	.venv-test/bin/python -m pytest -m shown

test-fast: .venv-test/installed
	.venv-test/bin/python -m pytest -m "not slow and not shown"

# Without a stamp, which would hide what was released after it.
test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade \
	  --upgrade-strategy=eager --editable '.[dev-newest]'
	.venv-newest/bin/python -m pip freeze --exclude-editable
	.venv-newest/bin/python -m pip check
	.venv-newest/bin/python -m pytest -rs tests/app tests/convert/test_*clip*.py \
	  tests/io/test_*clip*.py tests/io/test_siglip*.py tests/models/test_*clip*.py \
	  tests/models/test_siglip.py tests/models/test_pieces.py tests/test_dependencies.py

# Damaged files of every kind, and bombs; FUZZ_FLAGS=--count=300 for fewer.
fuzz: .venv-test/installed
	.venv-test/bin/python -m tests.fuzz_bombs
	.venv-test/bin/python -m tests.fuzzing $(FUZZ_FLAGS)

# Every program killed at random moments and started again; KILL_FLAGS=--count=10 for fewer.
kills: .venv-test/installed
	.venv-test/bin/python -m tests.kills $(KILL_FLAGS)

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

format: .venv-test/installed
	.venv-test/bin/ruff check --fix .
	.venv-test/bin/ruff format .

docs: mkdocs.yml .venv-docs/installed
	.venv-docs/bin/mkdocs build --strict --site-dir site

# Both distributions as an index takes them; made anew, since stale ones would be checked too.
package: .venv-package/installed
	rm -rf dist build
	.venv-package/bin/python -m build --no-isolation --outdir dist .
	.venv-package/bin/python -m twine check --strict dist/*

# For every platform and Python at once. A release has a week to be found out before it is taken.
constraints: .venv-constraints/installed
	.venv-constraints/bin/uv pip compile --quiet --universal --python-version=3.11 \
	  --generate-hashes --only-binary=:all: --emit-build-options --no-strip-extras \
	  --no-emit-index-url --custom-compile-command='make constraints' \
	  --exclude-newer='1 week' $(UPGRADE) --extra=dev --extra=docs --extra=package \
	  --extra=constraints --output-file=constraints.txt pyproject.toml

.venv/installed: WANTED = dependencies build-system
.venv-test/installed: WANTED = dependencies build-system dev
# Docstrings are read, and nothing of the package is imported.
.venv-docs/installed: WANTED = docs
.venv-package/installed: WANTED = package
.venv-constraints/installed: WANTED = constraints

# pip compiles on one core. The project itself has no hash, and follows its dependencies.
%/installed: pyproject.toml requirements.py $(CONSTRAINTS)
	$(PYTHON) -m venv $(@D)
	$(PYTHON) requirements.py $(CONSTRAINTS:%=--constraints=%) $(WANTED) > $(@D)/requirements.txt
	$(@D)/bin/python -m pip install --quiet --no-compile \
	  --requirement $(@D)/requirements.txt
	-$(@D)/bin/python -m compileall -q -j 0 $(@D)/lib
	$(if $(filter dependencies,$(WANTED)),$(@D)/bin/python -m pip install --quiet \
	  --no-deps --no-build-isolation --editable .)
	touch $@

clean:
	rm -rf .venv .venv-test .venv-newest .venv-docs .venv-package .venv-constraints build dist site *.egg-info outputs
