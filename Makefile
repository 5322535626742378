# Every task in this repository is a target here. `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

# Python 3.13, even if `python3` is another version; uv from PATH, or a private copy under .cache/.
PYTHON := $(shell for p in python3.13 python3 python; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null \
  && { command -v $$p; exit; }; done; uv python find --no-project 3.13 2>/dev/null)
UV := $(shell command -v uv 2>/dev/null || echo .cache/uv/bin/uv)
RUN := .venv/bin/python
START := $(RUN) bin/start.py
WORKERS ?= auto

.PHONY: help
help: ## list the targets
	@echo 'Sluice collects events over HTTP and loads them into Treasure Data.'
	@echo
	@for target in demo up test; do $(list_targets) | grep "^$$target:"; done | $(as_columns)
	@echo
	@$(list_targets) | grep -vE '^(demo|up|test):' | sort -t: -k1,1 | $(as_columns)

list_targets = grep -hE '^[a-z-]+:.* \#\# ' $(MAKEFILE_LIST)
as_columns = awk -F ':.* \#\# ' '{ \
  line = sprintf("  make %-16s ", $$1); count = split($$2, words, " "); \
  for (i = 1; i <= count; i++) { \
    if (length(line) + length(words[i]) > 79) { print line; line = sprintf("%24s", "") } \
    line = line " " words[i] \
  } \
  print line }'

.PHONY: demo
demo: .venv/installed ## send recorded browser requests through the whole pipeline and account for every event
	@$(START) local.demo

.PHONY: demo-outage
demo-outage: .venv/installed ## play through a Treasure Data outage and a loss of rows, in simulated time
	@$(START) chaos.outage

.PHONY: up
up: .venv/installed ## run the local stack, with a page to send events and watch them arrive
	@! command -v npm >/dev/null || $(MAKE) -s sdk/dist/manifest.json || echo 'The browser SDK cannot be built; everything else works.'
	@$(RUN) -m ops local

.PHONY: test
test: .venv/installed .venv-emulator/installed tests/clients/node_modules/.package-lock.json ## run the test suite
	@$(RUN) -m pytest -n $(WORKERS) --dist loadgroup --durations=10 $(ARGS)

.PHONY: lint
lint: .venv/installed ## check style, types and the template
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/mypy --python-version 3.10 -p sluice_client
	@.venv/bin/cfn-lint template.yaml
	@AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 .venv/bin/sam validate --lint

.PHONY: format
format: .venv/installed ## format the code
	@.venv/bin/ruff check --fix-only .
	@.venv/bin/ruff format .

EVENTS ?= 100000
SEEDS ?= 100
SEED ?= 0
# a run depends on nothing but its seed
chaos chaos-selfcheck chaos-exhaustive mutate: export PYTHONHASHSEED = 0
.PHONY: chaos
chaos: .venv/installed ## run the fault-injection tests: EVENTS=, SEEDS=, SEED=, TRACE=
	@$(START) chaos.__main__ --events $(EVENTS) --seeds $(SEEDS) --seed $(SEED) $(if $(TRACE),--trace $(TRACE))

.PHONY: chaos-selfcheck
chaos-selfcheck: .venv/installed ## the second half of make mutate: leave out each defence in turn, and check that the fault-injection tests notice: ONLY=
	@$(START) tests.mutation.__main__ --what defences $(if $(ONLY),--only "$(ONLY)")

.PHONY: chaos-exhaustive
chaos-exhaustive: .venv/installed ## try every interleaving of the specification's actors, and small scenarios of the handlers step by step: RUNS=
	@$(START) chaos.exhaustive $(if $(RUNS),--runs $(RUNS))

ATTACKED ?= 10
FLOODED ?= 5
.PHONY: hostile
hostile: .venv/installed ## let one sender do its worst beside 49 others, in simulated time: ATTACKED=, FLOODED=
	@$(START) chaos.hostile --attacked $(ATTACKED) --flooded $(FLOODED)

.PHONY: isolation
isolation: .venv/installed ## let 1 to 200 of 500 databases hang, break or be slow, and measure how long the others' rows take
	@$(START) chaos.isolation

LOAD = $(START) chaos.load $(foreach one,$(RATE),--rate $(one)) $(if $(SHARDS),--shards $(SHARDS))
.PHONY: outage
outage: .venv/installed ## let Treasure Data or Redis be away for hours under load, in simulated time: OUTAGE=hanging|refusing|redis, RATE=, CHUNKS=, HOURS=
	@$(LOAD) $(foreach one,$(OUTAGE),--outage $(one)) $(foreach one,$(CHUNKS),--chunks $(one)) --hours $(or $(HOURS),6)

.PHONY: simulate
simulate: RATE ?= 1 100 1000 10000
simulate: .venv/installed ## simulate the worker over many shards: RATE= (several: "100 1000"), SHARDS=, ACCOUNTS=, HOURS=
	@$(LOAD) --outage none --chunks $(or $(ACCOUNTS),100) --hours $(or $(HOURS),0.02)

.PHONY: endurance
endurance: .venv/installed ## send events to the local stack while its parts are killed, and count each: EVENTS=, KILLS=
	@$(START) local.endurance --events $(EVENTS) --kills $(or $(KILLS),30)

.PHONY: mutate
mutate: .venv/installed .venv-mutate/installed ## take away one thing at a time, rules by mutants and the protocol's defences, and check that tests notice: ONLY=
	@$(START) tests.mutation.__main__ $(if $(ONLY),--only "$(ONLY)")

.PHONY: bench
bench: .venv/installed $(if $(filter-out losses,$(ONLY)),,.venv-trackers/installed) | $(UV) ## run the benchmarks against simpler designs: ONLY=; WRITE=1 updates docs/internals/performance.md
	@PYTHONPATH=client $(START) benchmarks.__main__ $(ONLY) $(if $(WRITE),--write)

.PHONY: docs
docs: .venv/installed ## regenerate the tables in docs/ from the code
	@$(RUN) -m tests.support.docs_tables

.PHONY: screenshots
screenshots: .venv/installed ## take the screenshots in docs/images again, with Chromium
	@$(RUN) -m tests.support.console_pages

.PHONY: clients
clients: .venv/installed ## test the newest published versions of Treasure Data's clients
	@$(START) tests.clients.__main__

INPUTS ?= 100000
SEED ?= 1
.PHONY: fuzz
fuzz: .venv/installed ## send INPUTS random requests from a SEED to the ingest
	@INPUTS=$(INPUTS) $(RUN) -m pytest -q tests/ingest/test_fuzz.py --hypothesis-seed=$(SEED)

.PHONY: sdk
sdk: sdk/node_modules/.package-lock.json ## build the browser SDK into sdk/dist and print its sizes
	@cd sdk && node build.js

sdk/dist/manifest.json: sdk/node_modules/.package-lock.json sdk/build.js sdk/package.json $(wildcard sdk/src/* sdk/src/auto/*)
	@echo 'setting up: sdk/dist'
	@cd sdk && node build.js >/dev/null

.PHONY: sdk-dist
sdk-dist: sdk/node_modules/.package-lock.json ## build the browser SDK's package into build/sdk and check it
	@cd sdk && node pack.js

.PHONY: publish-sdk
publish-sdk: sdk .venv/installed ## build the browser SDK and publish it to a stack's bucket: STACK=
	@$(RUN) -m ops sdk publish --stack "$(STACK)"

.PHONY: sdk-test
sdk-test: sdk .venv/installed ## test the browser SDK, including in Chromium and Firefox
	@cd sdk && npm run --silent types && npm run --silent test

.PHONY: sdk-speed
sdk-speed: sdk .venv/installed ## benchmark the browser SDK on a slowed-down CPU
	@cd sdk && node test/speed.js

.PHONY: sdk-compare
sdk-compare: sdk .venv/installed ## compare trackers under the same failures and update docs/internals/performance.md (15 minutes)
	@cd sdk && node test/compare.js --write

# The same source gives the same bytes: it is built twice.
.PHONY: client-dist
client-dist: .venv-twine/installed | $(UV) ## build the server client's package into build/client and check it
	@rm -rf build/client build/client-again
	@for folder in client client-again; do \
	  $(UV) build -q --build-constraints requirements/client-build.txt --require-hashes --out-dir build/$$folder client || exit; done
	@for file in build/client/*.whl build/client/*.tar.gz; do cmp $$file build/client-again/$${file##*/} || exit; done
	@rm -rf build/client-again
	@.venv-twine/bin/twine check --strict build/client/*.whl build/client/*.tar.gz

POINTS ?= 1000
.PHONY: client-faults
client-faults: .venv/installed ## kill POINTS programs that use the server client and count their events: SEED=, CLIENT_PYTHON=
	@PYTHONPATH=client $(START) tests.client.faults --points $(POINTS) --seed $(SEED) $(if $(CLIENT_PYTHON),--python $(CLIENT_PYTHON))

ARCH ?= arm64
.PHONY: build
build: .venv/installed ## build the functions for Lambda with `sam build --parallel`: ARCH=arm64 (default) or x86_64
	@$(START) release.build --arch $(ARCH)

.PHONY: package
package: .venv/installed sdk ## build one artifact per processor, and a wheel with all of them, into dist/, to deploy without this repository
	@$(START) release.artifact

.PHONY: lock
lock: $(UV) ## update all dependencies and the hashed requirement files
	@for name in requirements/dev requirements/emulator requirements/checkov requirements/mutate requirements/trackers requirements/twine requirements/client-build requirements/uv; do $(call compile,$$name) || exit; done
	@for name in ingest/requirements worker/requirements scaler/requirements; do $(call compile,$$name) -c requirements/dev.txt || exit; done

compile = $(UV) pip compile -q --upgrade --universal --python-version 3.13 --generate-hashes --no-header $(1).in -o $(1).txt

.PHONY: clean
clean: ## remove environments, caches and builds
	rm -rf dist sdk/node_modules sdk/dist tests/clients/node_modules .venv .venv-emulator .venv-checkov .venv-mutate .venv-trackers .venv-twine .cache .aws-sam .local .mypy_cache .ruff_cache .pytest_cache .hypothesis build sluice.egg-info

# The environments.

# Another build may be running the old one: the new one takes its place in one step.
.cache/uv/bin/uv: requirements/uv.txt
	@test -n "$(PYTHON)" || { $(no_python); }
	@echo 'setting up: uv' && mkdir -p $(@D) && new=$$(mktemp -d .cache/uv/XXXXXX) || exit; trap 'rm -rf "$$new"' EXIT; \
	$(PYTHON) -m venv "$$new" 2>/dev/null || { \
	  echo 'Neither uv nor a complete Python 3.13 was found: `python3.13 -m venv` fails.'; \
	  echo 'Install uv (https://docs.astral.sh/uv/), or the venv module (Debian, Ubuntu: apt install python3.13-venv).'; exit 1; }; \
	"$$new/bin/python" -m pip install -q --require-hashes -r requirements/uv.txt && mv "$$new/bin/uv" $@

define no_python
echo 'Python 3.13 was not found. Install it (Debian, Ubuntu: apt install python3.13 python3.13-venv;'; \
echo 'macOS: brew install python@3.13; or anywhere: uv python install 3.13) and run make again.'; exit 1
endef

define environment
@test -n "$(PYTHON)" || { $(no_python); }
@echo 'setting up: $(@D) from $<'
@test -x $(@D)/bin/python || $(UV) venv -q --no-project --python "$(PYTHON)" $(@D)
@$(UV) pip sync -q --require-hashes --python $(@D)/bin/python $<
@touch $@
endef

.venv/installed: requirements/dev.txt | $(UV)
	$(environment)

.venv-%/installed: requirements/%.txt | $(UV)
	$(environment)

sdk/node_modules/.package-lock.json: sdk/package-lock.json
	@command -v node >/dev/null || { echo 'Node.js 20 or later was not found (Debian, Ubuntu: apt install nodejs npm).'; exit 1; }
	@echo 'setting up: sdk/node_modules from sdk/package-lock.json'
	@cd sdk && npm ci --loglevel=error --fetch-retries=1 --no-audit --no-fund >/dev/null && touch node_modules/.package-lock.json

tests/clients/node_modules/.package-lock.json: tests/clients/package-lock.json
	@command -v npm >/dev/null || { echo 'npm was not found (Debian, Ubuntu: apt install nodejs npm).'; exit 1; }
	@echo 'setting up: tests/clients/node_modules from tests/clients/package-lock.json'
	@cd tests/clients && npm ci --loglevel=error --fetch-retries=1 --ignore-scripts --no-audit --no-fund >/dev/null && touch node_modules/.package-lock.json

# lambda/Makefile calls these for `sam build`, one per function in template.yaml, with the output folder in ARTIFACTS_DIR.

.PHONY: build-IngestFunction build-WorkerFunction build-SenderFunction build-DrainFunction build-AdminFunction build-ScaleFunction
build-IngestFunction: | $(UV)
	@$(PYTHON) -m release.function_zip ingest $(ARCH) "$(ARTIFACTS_DIR)" --uv $(UV)
build-WorkerFunction build-SenderFunction build-DrainFunction build-AdminFunction: | $(UV)
	@$(PYTHON) -m release.function_zip worker $(ARCH) "$(ARTIFACTS_DIR)" --uv $(UV)
build-ScaleFunction: | $(UV)
	@$(PYTHON) -m release.function_zip scaler $(ARCH) "$(ARTIFACTS_DIR)" --uv $(UV)
