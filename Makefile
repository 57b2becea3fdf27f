# Every target sets itself up: `make demo` and `make test` create .venv when it is missing and install
# again only when setup.py, pyproject.toml or constraints.txt changed.

# The first of these that is Python 3.10 or later and has venv makes .venv; PYTHON=... names another.
PYTHON ?= python3.12 python3.11 python3.10 python3
DLT ?= dlt[lance,postgres,sql_database]>=1.31,<1.32
AIRFLOW ?= apache-airflow==3.3.2
AIRBYTE ?= airbyte-cdk>=7.39,<8 airbyte-source-github==2.7.1
AIRBYTE_SLACK ?= airbyte-cdk==6.58.0 airbyte-source-slack==3.0.0
# They all split, embed and store with the same libraries.
DOCUMENT_LIBRARIES := html-to-markdown==3.21.2 langchain-text-splitters==1.1.3 lancedb==0.40.0 wordllama==0.4.0.post1
PYAIRBYTE ?= airbyte==0.71.3
COCOINDEX ?= cocoindex[lancedb]==1.0.26
LANGCHAIN ?= langchain-classic==1.0.8 langchain-community==0.4.2 langchain-google-community[drive]==5.1.1 greenlet
UNSTRUCTURED ?= unstructured-ingest==1.12.0 unstructured[md]==0.27.35
LLAMAINDEX ?= llama-index-core==0.14.25 llama-index-readers-discord==0.6.0 llama-index-readers-github==0.12.0 llama-index-readers-google==0.8.0 llama-index-readers-file==0.7.0 docx2txt==0.9 llama-index-readers-linear==0.6.0 llama-index-readers-notion==0.6.0 llama-index-readers-obsidian==0.8.0 llama-index-readers-slack==0.6.0 discord.py==2.7.1 llama-index-vector-stores-lancedb==0.6.0 pandas

VENV := .venv
VENV_BENCH := .venv-bench
VENV_DLT := .venv-dlt
VENV_AIRBYTE := .venv-airbyte
VENV_PYAIRBYTE := .venv-pyairbyte
VENV_AIRBYTE_SLACK := .venv-airbyte-slack
VENV_COCOINDEX := .venv-cocoindex
VENV_LANGCHAIN := .venv-langchain
VENV_LLAMAINDEX := .venv-llamaindex
VENV_UNSTRUCTURED := .venv-unstructured
VENVS_BENCH := $(VENV_BENCH) $(VENV_DLT) $(VENV_AIRBYTE) $(VENV_AIRBYTE_SLACK) $(VENV_PYAIRBYTE) $(VENV_COCOINDEX) $(VENV_LANGCHAIN) $(VENV_LLAMAINDEX) \
	$(VENV_UNSTRUCTURED)
# Outside the checkout, like the engines: large, and the same for all of them.
VENV_AIRFLOW := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/contextframe-beam/airflow
# Sources of Airbyte and taps of Singer, each with what it pins, and two manifests of Airbyte's.
PROGRAMS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/contextframe-beam/programs
FAKER ?= airbyte-source-faker==7.2.1
TAP_POSTGRES ?= meltanolabs-tap-postgres==0.10.0
TAP_JSONL ?= tap-jsonl==0.3.1
MANIFESTS ?= airbyte-source-callrail==0.1.14 airbyte-source-pokeapi==0.2.15
# Vendors' own clients, which read the worlds of the tests as a second opinion.
CLIENTS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/contextframe-beam/clients
NPM_CLIENTS ?= @linear/sdk@88.3.0 @notionhq/client@5.26.0 octokit@5.0.5
PIP_CLIENTS ?= discord.py==2.7.1 google-api-python-client==2.202.0 slack_sdk==3.48.0
# Libraries of loaders, which tests read documents by; the pinned versions of what we need go with them.
LOADERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/contextframe-beam/loaders
LOADER_LIBRARIES ?= beautifulsoup4 'dlt>=1.31,<1.32' GitPython langchain-community==0.4.2 llama-index-core==0.14.25 \
	llama-index-readers-file==0.7.0 pypdf
PY := $(VENV)/bin/python
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

# A caller's interpreter settings must not leak into ours.
unexport PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-engines lint types tests engines airflow browser clients loaders programs soak bench audit docs format clean

help: ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed ## Run the main job on real input: parse, chunk, embed, search, and a second run after one change.
	@$(PY) -m tools.demo

test: lint types tests ## Run every check that needs no engine: lint, types, tests.

lint: $(VENV)/.installed ## Check style and formatting.
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

types: $(VENV)/.installed ## Check the types (mypy, strict).
	@$(PY) -m mypy

# Two more processes than cores, since half of them wait for servers, locks and ends of processes.
tests: $(VENV)/.installed ## Run the tests without engines; TESTS='tests/test_x.py -k name' selects.
	@$(PY) -m pytest -n 4 -m "not (engine or airflow or browser or soak)" --heaviest 10 $(TESTS)

test-engines: $(VENV)/.installed ## Run the tests of Flink, Spark, Prism, Airflow and Chromium (`make engines airflow browser` fetches them).
	@$(PY) -m pytest -m "(engine or airflow or browser) and not soak" --heaviest 10 $(TESTS)

engines: $(VENV)/.installed ## Fetch what the tests of Flink, Spark and Prism need (Java, Maven, Go).
	@$(PY) -m tools.engine_install

airflow: $(VENV_AIRFLOW)/.installed ## Install Airflow for the tests of its template, apart from everything else.

loaders: $(LOADERS)/.installed ## Install LangChain, LlamaIndex and dlt for the long tests of their loaders.

clients: $(CLIENTS)/.installed ## Install vendors' own clients, which read the tests' worlds as a second opinion (needs Node).

programs: $(PROGRAMS)/.installed ## Install sources of Airbyte and taps of Singer for the long tests of them.

browser: ## Install Chromium for the tests of the page (Debian and Ubuntu, as root).
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium chromium-driver >/dev/null; }

soak: $(VENV)/.installed ## Run the long tests that `make test` leaves out, and laws on many examples.
	@$(PY) -m pytest -m "soak or hypothesis" --hypothesis-profile thorough --heaviest 10 $(TESTS)

bench: $(VENVS_BENCH:=/.installed) ## Measure speed against the limit and the peers; BENCH=... passes arguments.
	@$(VENV_BENCH)/bin/python benchmarks/run.py $(BENCH)

audit: ## Look for known vulnerabilities in the pinned dependencies (asks a public database).
	$(call make_venv,build/audit)
	@build/audit/bin/python $(PIP_INSTALL) 'pip-audit>=2.9,<3'
	@build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

docs: $(VENV)/.installed ## Build the documentation site into build/site.
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "The documentation is in build/site/index.html"

format: $(VENV)/.installed ## Rewrite the code in the project's format.
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

clean: ## Remove environments, caches and builds.
	rm -rf $(VENV) $(VENVS_BENCH) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	@echo "Installing the pinned dependencies into $(VENV) (once) ..."
	@$(PY) $(PIP_INSTALL) --constraint constraints.txt --upgrade pip setuptools
	@PYTHONWARNINGS='ignore:Editable installation' \
		$(PY) $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

$(CLIENTS)/.installed: Makefile
	@mkdir -p $(CLIENTS)
	@echo "Installing vendors' clients into $(CLIENTS) (once) ..."
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(CLIENTS) $(NPM_CLIENTS)
	$(call make_venv,$(CLIENTS)/python)
	@$(CLIENTS)/python/bin/python $(PIP_INSTALL) $(PIP_CLIENTS)
	@touch $@

$(LOADERS)/.installed: Makefile constraints.txt $(VENV)/.installed
	@mkdir -p $(LOADERS)
	@echo "Installing libraries of loaders into $(LOADERS) (once) ..."
	@$(PY) $(PIP_INSTALL) --upgrade --constraint constraints.txt --target $(LOADERS) $(LOADER_LIBRARIES)
	@touch $@

$(PROGRAMS)/.installed: Makefile
	@mkdir -p $(PROGRAMS)
	$(call make_venv,$(PROGRAMS)/faker)
	$(call make_venv,$(PROGRAMS)/tap-postgres)
	$(call make_venv,$(PROGRAMS)/tap-jsonl)
	@echo "Installing sources and taps into $(PROGRAMS) (once) ..."
	@$(PROGRAMS)/faker/bin/python $(PIP_INSTALL) '$(FAKER)'
	@$(PROGRAMS)/tap-postgres/bin/python $(PIP_INSTALL) '$(TAP_POSTGRES)'
	@$(PROGRAMS)/tap-jsonl/bin/python $(PIP_INSTALL) '$(TAP_JSONL)'
	@$(PROGRAMS)/faker/bin/python $(PIP_INSTALL) --no-deps --upgrade --target $(PROGRAMS)/manifests $(MANIFESTS)
	@touch $@

# What users install with two extras, and no more: Beam also imports some packages that are only there for tests.
$(VENV_BENCH)/.installed: setup.py constraints.txt
	$(call make_venv,$(VENV_BENCH))
	@echo "Installing the package with its extras into $(VENV_BENCH) (once) ..."
	@$(VENV_BENCH)/bin/python $(PIP_INSTALL) --constraint constraints.txt --upgrade pip setuptools
	@PYTHONWARNINGS='ignore:Editable installation' \
		$(VENV_BENCH)/bin/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[documents,embed]'
	@touch $@

# dlt pins another pylance, so it lives apart.
$(VENV_DLT)/.installed: Makefile
	$(call make_venv,$(VENV_DLT))
	@echo "Installing dlt into $(VENV_DLT) (once) ..."
	@$(VENV_DLT)/bin/python $(PIP_INSTALL) --upgrade pip
	@$(VENV_DLT)/bin/python $(PIP_INSTALL) '$(DLT)'
	@touch $@

# So does Airbyte's CDK, which pins most of what it needs, and once more for a source that needs an older one.
$(VENV_AIRBYTE)/.installed: PEER := $(AIRBYTE)
$(VENV_AIRBYTE_SLACK)/.installed: PEER := $(AIRBYTE_SLACK)
$(VENV_AIRBYTE)/.installed $(VENV_AIRBYTE_SLACK)/.installed: Makefile
	$(call make_venv,$(@D))
	@echo "Installing $(PEER) into $(@D) (once) ..."
	@$(@D)/bin/python $(PIP_INSTALL) --upgrade pip
	@$(@D)/bin/python $(PIP_INSTALL) $(foreach one,$(PEER),'$(one)')
	@touch $@

# Airbyte's own way to run its sources from Python.
$(VENV_PYAIRBYTE)/.installed: Makefile
	$(call make_venv,$(VENV_PYAIRBYTE))
	@echo "Installing $(PYAIRBYTE) into $(VENV_PYAIRBYTE) (once) ..."
	@$(VENV_PYAIRBYTE)/bin/python $(PIP_INSTALL) --upgrade pip
	@$(VENV_PYAIRBYTE)/bin/python $(PIP_INSTALL) '$(PYAIRBYTE)'
	@touch $@

# The peers of documents, each with what it pins.
$(VENV_COCOINDEX)/.installed: PEER := $(COCOINDEX)
$(VENV_LANGCHAIN)/.installed: PEER := $(LANGCHAIN)
$(VENV_LLAMAINDEX)/.installed: PEER := $(LLAMAINDEX)
$(VENV_UNSTRUCTURED)/.installed: PEER := $(UNSTRUCTURED)
$(VENV_COCOINDEX)/.installed $(VENV_LANGCHAIN)/.installed $(VENV_LLAMAINDEX)/.installed \
$(VENV_UNSTRUCTURED)/.installed: Makefile
	$(call make_venv,$(@D))
	@echo "Installing $(PEER) into $(@D) (once) ..."
	@$(@D)/bin/python $(PIP_INSTALL) --upgrade pip
	@$(@D)/bin/python $(PIP_INSTALL) $(foreach one,$(PEER) $(DOCUMENT_LIBRARIES),'$(one)')
	@touch $@

$(VENV_AIRFLOW)/.installed: Makefile
	@mkdir -p $(dir $(VENV_AIRFLOW))
	$(call make_venv,$(VENV_AIRFLOW))
	@echo "Installing Airflow into $(VENV_AIRFLOW) (once) ..."
	@$(VENV_AIRFLOW)/bin/python $(PIP_INSTALL) --upgrade pip
	@$(VENV_AIRFLOW)/bin/python $(PIP_INSTALL) '$(AIRFLOW)'
	@touch $@

# Debian and Ubuntu ship Python without ensurepip, and then `python -m venv` fails half-way: look first.
define make_venv
@if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	found=; usable=; \
	for python in $(PYTHON); do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || continue; \
		found=$${found:-$$python}; \
		if $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then usable=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python 3.10 or later found (looked for: $(PYTHON))." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi; \
	if [ -z "$$usable" ]; then \
		version=$$($$found -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$found (Python $$version) cannot create virtual environments: its venv or ensurepip module is missing." >&2; \
		echo "On Debian or Ubuntu: apt install python$$version-venv" >&2; \
		echo "Or name another Python 3.10 or later: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi; \
	echo "Creating $(1) with $$usable ..."; \
	$$usable -m venv --clear $(1); \
fi
endef
