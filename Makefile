# `make` lists what there is. Nothing but make and Python 3.11 or newer is needed.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench economics faults lock shot clean dev
PYTHON ?=
ARGS ?=
BIN := .venv/bin

# The first Python that is new enough; PYTHON=/path/to/python comes before all others.
define environment
@for name in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		exec "$$name" -I config/environment.py $(1); \
	fi; \
done; \
echo "Kontor needs Python 3.11 or newer, and none was found (looked for python3.11 to python3.14, python3 and python)."; \
echo "Install it (on Debian and Ubuntu: apt install python3 python3-venv), or name one: make $@ PYTHON=/path/to/python3.11"; \
exit 1
endef

help: ## Show what there is
	@echo "Kontor. The targets:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: ## Run everything with sample leads (WEB_PORT=8000 SIMULATOR_PORT=8901 RESET=1)
	$(call environment,requirements.lock)
	@$(BIN)/python -m config.demo

dev: ## Build the environment with the tools for development
	$(call environment,requirements-dev.lock)

test: dev ## Run the tests on SQLite, and on PostgreSQL where there is one (ARGS="-k router")
	@$(BIN)/python -m tests $(ARGS)

lint: dev ## Check style, types, templates, import directions, migrations and lock files
	@$(BIN)/python -m tests.lint

bench: dev ## Measure, print a table and write var/bench.json
	@$(BIN)/python -m tests.bench $(ARGS)

economics: dev ## What a lead costs at list prices, beside other choices of models (ARGS="--leads 100")
	@$(BIN)/python -m tests.bench.economics $(ARGS)

faults: dev ## Break everything there is on both databases and print a table (ARGS="--short")
	@$(BIN)/python -m tests.faults $(ARGS)

lock: dev ## Resolve the versions in pyproject.toml again
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-header -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-header -c requirements.lock -o requirements-dev.lock

shot: dev ## Take the README's pictures from the running demo (WEB_PORT=8000 LEAD=1)
	@$(BIN)/python -m tests.shot

clean: ## Delete the environment and what tools left behind; databases under var/ stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache var/test* var/*.test.sqlite3* var/discarded-venv-*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
