# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
DEMO_PROMPT ?= a smiling face
# Faces that do not smile.
DEMO_SEEDS ?= 3,4,6,9,10,19,20,22
DEMO_OUTDIR ?= outputs/demo
# Chosen on other seeds than those shown; the embedded models want a weaker hold than the
# official one.
DEMO_FLAGS ?= --steps=80 --l2_lambda=0.0045 --strength=auto

.PHONY: demo test test-fast test-newest fuzz kills lint format docs package clean

demo: .venv/installed
	.venv/bin/styleclip-edit --prompt="$(DEMO_PROMPT)" --seeds=$(DEMO_SEEDS) $(DEMO_FLAGS) \
	  --outdir="$(DEMO_OUTDIR)"

test: .venv-test/installed
	.venv-test/bin/python -m pytest

test-fast: .venv-test/installed
	.venv-test/bin/python -m pytest -m "not slow"

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
package: .venv-test/installed
	rm -rf dist build
	.venv-test/bin/python -m build --outdir dist .
	.venv-test/bin/python -m twine check --strict dist/*

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

.venv-test/installed: pyproject.toml
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The extra alone: docstrings are read, and nothing of the package is imported.
.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -c 'import tomllib; \
	  project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["optional-dependencies"]["docs"], sep="\n")' > .venv-docs/extra.txt
	.venv-docs/bin/python -m pip install --quiet --requirement .venv-docs/extra.txt
	touch $@

clean:
	rm -rf .venv .venv-test .venv-newest .venv-docs build dist site *.egg-info outputs
