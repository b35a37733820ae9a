# Needs Python 3.11+ and make; everything else is set up here, below .venv/ and .headrace/.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
HEADRACE := $(BIN)/headrace
export DO_NOT_TRACK := 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help docs demo up down producer consumer test test-unit test-pythons test-postgres lint audit sbom format psql stats faults mutants kills celery your-airflow alerts lineage tools test-compose formats fuzz rounds bench bench-freshness clean lock lock-jars install install-dev

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 17

demo: install ## Run the main job end to end; leaves Airflow running
	@$(BIN)/python -m headrace.sample.demo

up: install ## Start PostgreSQL, Kafka and Airflow
	@$(HEADRACE) up

down: ## Stop the local services
	@if [ -x $(HEADRACE) ]; then $(HEADRACE) down; fi

psql: install ## Open psql on the database
	@$(HEADRACE) psql

stats: install ## Show lag, rows, dead letters and freshness
	@$(HEADRACE) status

producer: install ## Produce events until Ctrl-C, some of them invalid; DATASET=jobs, rides or telemetry: others
	@$(HEADRACE) produce $(or $(DATASET),events) --sample --per-second 20 --bad-percent 2

consumer: install ## Drain and build until Ctrl-C
	@$(HEADRACE) follow

# More workers than cores, because tests often wait for services; each has its own, so no more than six.
WORKERS := $(shell echo $$(($$(nproc) > 3 ? 6 : $$(nproc) * 2)))
test: install-dev ## Run unit, cost, integration and system tests, and a slice of the fault suite
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15 -m "not faults"

# worksteal leaves most modules whole to one process: what a module imports or sets up is mostly paid for once
test-unit: install-dev ## Run the unit tests, which need no services
	@$(BIN)/python -m pytest -q --numprocesses auto --dist worksteal tests/unit

PYTHONS := 3.11 3.12 3.13
test-pythons: install-dev ## Run the unit tests on each other Python from 3.11 to 3.13 on this machine, each in its own .venv
	@for version in $(PYTHONS); do \
		! $(BIN)/python -c "import sys; sys.exit(sys.version_info[:2] != tuple(map(int, '$$version'.split('.'))))" || continue; \
		python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -n 1); \
		[ -n "$$python" ] || python=$$($(BIN)/uv python find --no-python-downloads --no-project --system $$version 2>/dev/null) || \
			{ echo "Python $$version: NOT RUN, not on this machine"; continue; }; \
		./install.sh "$$python" requirements-dev.txt .venv-$$version && touch .venv-$$version/installed && \
			.venv-$$version/bin/python -m pytest -q --numprocesses auto --dist worksteal tests/unit || exit 1; \
	done

test-postgres: install-dev ## Compare the way from topic to mart on PostgreSQL 15, 16 and 18, and behind PgBouncer
	@$(BIN)/python -m pytest -p no:randomly -m "faults or not faults" tests/integration/test_postgres_versions.py \
		tests/integration/test_pgbouncer.py

faults: install-dev ## Run the long fault suite; SEED=5 repeats a run, TRIAL=drain-137 one trial
	@FAULTS_SEED=$(SEED) FAULTS_TRIAL=$(TRIAL) $(BIN)/python -m pytest --timeout=0 tests/faults/test_faults.py -m faults

mutants: install-dev ## Check that seeded bugs are caught; MUTANT=name tries one
	@FAULTS_SEED=$(SEED) FAULTS_MUTANT="$(MUTANT)" $(BIN)/python -m pytest --timeout=0 tests/faults/test_mutants.py \
		tests/faults/test_mart_mutants.py tests/faults/test_format_mutants.py -m faults

kills: install-dev ## Kill scheduler, worker, task and API server while topics are followed; nothing may be lost
	@$(BIN)/python -m pytest --timeout=0 -s -p no:randomly tests/system/test_kills.py -m faults

your-airflow: install-dev ## Follow docs/your-airflow.md with a new Airflow; AIRFLOW=3.3 PYTHON=3.13 EXECUTOR=celery
	@YOUR_AIRFLOW=$(AIRFLOW) YOUR_EXECUTOR=$(EXECUTOR) YOUR_PYTHON=$(filter 3.%,$(PYTHON)) $(BIN)/python -m pytest --timeout=0 -s -p no:randomly tests/system/test_your_airflow.py

celery: install-dev ## Kill one of two Celery workers during a drain, ROUNDS=20 times; SEED=5 repeats a run
	@CELERY_ROUNDS=$(ROUNDS) CELERY_SEED=$(SEED) $(BIN)/python -m pytest --timeout=0 -s -p no:randomly tests/system/test_celery.py -m faults

alerts: install-dev ## Test deploy/: alerts with promtool, dashboard and scrape with Debian's Prometheus
	@$(BIN)/python -m pytest --timeout=0 -p no:randomly tests/integration/test_prometheus.py -m faults

lineage: install-dev ## Run Airflow tasks with its provider for OpenLineage and check the events that a server receives
	@$(BIN)/python -m pytest --timeout=0 -p no:randomly tests/integration/test_lineage.py -m faults

tools: install-dev ## Call the notifiers of deploy/airflow, and run Kafka's tools as docs/kafka-ui.md uses them
	@$(BIN)/python -m pytest --timeout=0 -p no:randomly tests/integration/test_notifiers.py tests/integration/test_kafka_page.py -m faults

test-compose: install-dev ## Run docker-compose.yml: build, up, the main job, workers, down; PART=default, scale (workers) or extended (Airflow's image)
	@$(BIN)/python -m tests.compose $(PART) || [ $$? = 77 ] # 77: no engine can be had, it said so

formats: install-dev ## Drain a million records of each format under kills, 200,000 of Protobuf; FORMAT=avro RECORDS=20000 SEED=5
	@FORMATS_ONLY=$(FORMAT) FORMATS_RECORDS=$(RECORDS) FORMATS_SEED=$(SEED) $(BIN)/python -m pytest --timeout=0 \
		-p no:randomly tests/faults/test_formats.py -m faults

fuzz: install-dev ## Drain a million broken records of all formats and account for each; FORMAT=avro RECORDS=5000 SEED=7: fewer
	@$(BIN)/python -m tests.support.fuzz_drain --records $(or $(RECORDS),1000000) $(if $(SEED),--seed $(SEED)) \
		$(if $(FORMAT),--format $(FORMAT))

docs: install-dev ## Generate the documentation of the marts as one HTML file, from the running database
	@eval "$$($(BIN)/headrace env)" && cd dbt && "$(CURDIR)/$(BIN)/dbt" docs generate --static --quiet && echo "docs: dbt/target/static_index.html"

rounds: install-dev ## Compare marts and random models after random builds with their SELECTs; SEED=5 ROUND=17 repeats one; ONLY=marts or models
	@MARTS_SEED=$(SEED) MARTS_ROUND=$(ROUND) MARTS_ROUNDS=$(or $(ROUNDS),50) $(BIN)/python -m pytest --timeout=0 \
		$(if $(filter models,$(ONLY)),,tests/integration/test_build_rounds.py) \
		$(if $(filter marts,$(ONLY)),,tests/integration/test_random_models.py)

debezium: install-dev ## Compare mart and table after random transactions through a real Debezium connector, ROUNDS=100; SEED=5 repeats
	@DEBEZIUM_ROUNDS=$(ROUNDS) DEBEZIUM_SEED=$(SEED) $(BIN)/python -m pytest --timeout=0 -s -p no:randomly tests/faults/test_debezium.py -m faults

bench-freshness: install-dev ## Measure the time from record to mart at 1,000 records a second, followed and scheduled
	@$(BIN)/python -m tests.benchmarks --only freshness $(if $(FOR_S),--seconds $(FOR_S))

bench: install-dev ## Measure throughput and cost; ONLY=growth HISTORY=1000000, ONLY=throughput RECORDS=200000 ROUNDS=3: quicker
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(HISTORY),--history $(HISTORY)) \
		$(if $(RECORDS),--topic $(RECORDS)) $(if $(ROUNDS),--rounds $(ROUNDS))

lint: install-dev audit ## Run ruff, mypy --strict, sizes of modules and functions, order of imports, sqlfluff, pip-audit
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.sizes
	@cd plugins && ../$(BIN)/lint-imports ../pyproject.toml
	@$(BIN)/sqlfluff lint --processes 0 dbt/models dbt/tests

# OSV, not PyPI: one service that is made for it. Where it cannot be reached nothing is known, which is no finding.
OSV := https://api.osv.dev
audit: install-dev ## Check the locked packages for known vulnerabilities
	@if $(BIN)/python -c "import sys, urllib.request as u; u.urlopen(u.Request('$(OSV)/v1/query', b'{}'), timeout=10)" 2>&1 \
		| grep --quiet URLError; then \
		echo "NOT AUDITED: $(OSV) cannot be reached from here. Run \`make audit\` where it can." >&2; \
	else $(BIN)/pip-audit --vulnerability-service osv --requirement requirements.txt --require-hashes --disable-pip \
		--progress-spinner off; fi

sbom: install-dev ## Write sbom.cdx.json: packages and jars with checksums, in CycloneDX format
	@$(BIN)/python -m tests.sbom > $@.cdx.json.part && mv $@.cdx.json.part $@.cdx.json

format: install-dev ## Format the code and apply ruff's fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: down ## Stop the services; remove their data and all generated files
	rm -rf .venv .venv-* .headrace dbt/target dbt/logs .pytest_cache .mypy_cache .ruff_cache

# what the demo needs of the package: all but other workers and another client of Kafka
EXTRAS := $(addprefix --extra ,airflow dbt files local redis registry)
lock: ## Renew the locked requirements
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
		--custom-compile-command "make lock" $(EXTRAS) --group build pyproject.toml -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
		--custom-compile-command "make lock" $(EXTRAS) --group build --extra celery -c requirements.txt pyproject.toml \
		-o requirements-celery.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
		--custom-compile-command "make lock" $(EXTRAS) --group build --group dev -c requirements.txt pyproject.toml \
		-o requirements-dev.txt

lock-jars: install-dev ## Renew the checksums of Kafka's jars and of the benchmarks' peer, from Maven Central
	@$(BIN)/python -m tests.lock_jars

# A stamp is touched after an installation is complete: an interrupted one starts again.
install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: requirements.txt requirements-uv.txt pyproject.toml
	@./install.sh "$(PYTHON:3.%=python3.%)" requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	@./install.sh "$(PYTHON:3.%=python3.%)" requirements-dev.txt
	@touch $@
