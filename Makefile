# Needs node, npm, Java 17, Maven, make and git, and Go for the tests. Everything else is downloaded, at pinned versions, into .cache/ and node_modules/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

BUN_VERSION := $(shell sed -n 's/^  "version": "\(.*\)",$$/\1/p' src/build/bun-runtimes.json)
KAFKA_VERSIONS := 3.9.2 4.3.0 4.4.0
DEMO_KAFKA_VERSION := 4.3.0

BUN_HOME := $(CURDIR)/.cache/bun
BUN := .cache/bun/.installed-$(BUN_VERSION)
# Each contains the one before: the packages of the service, what `make demo` needs besides, the tools of a developer, every
# version of PostgreSQL.
SERVICE_PACKAGES := node_modules/.installed-service
DEMO_PACKAGES := node_modules/.installed-demo
TOOL_PACKAGES := node_modules/.installed-tools
TEST_PACKAGES := node_modules/.installed
MANIFESTS := package.json test/support/package.json bun.lock bunfig.toml
KAFKA_JARS := $(KAFKA_VERSIONS:%=.cache/kafka-%)
KAFKA := $(KAFKA_VERSIONS:%=.cache/kafka-%-classes.jsa)
BINARY := dist/cdc-notifier
SOURCES := $(shell find src -name '*.ts' -not -path 'src/build/*' 2>/dev/null)

export PATH := $(BUN_HOME)/node_modules/.bin:$(CURDIR)/node_modules/.bin:$(PATH)

# $(call step,WHAT,COMMAND,LOG): says what begins and how long it took; shows the log when the command fails.
define step
@mkdir -p .cache
@echo '$(1)...'
@SECONDS=0; { $(2); } >.cache/$(3).log 2>&1 || { cat .cache/$(3).log >&2; echo '$(1): failed' >&2; exit 1; }; echo "$(1): done in $$SECONDS s"
endef

.PHONY: help
help: ## Print the targets
	@echo 'make TARGET, where TARGET is one of:'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## Watch the service at work: PostgreSQL, Kafka and a simulated progressor (DURATION=seconds, RATE=transactions per second)
	@$(MAKE) --jobs=3 demo-ready
	@exec bun test/demo/main.ts $(if $(DURATION),--duration $(DURATION)) $(if $(RATE),--rate $(RATE))

# No class archive: making one takes longer than the start of the one broker that it would speed up.
.PHONY: demo-ready
demo-ready: $(BINARY) $(DEMO_PACKAGES) .cache/kafka-$(DEMO_KAFKA_VERSION)
	@:

.PHONY: test
test: build kafka install ## Run every test; the last line counts them
	@bun test/run.ts unit integration+image e2e fuzz faults # the image waits for downloads, mostly

.PHONY: ok
ok: tools ## Check format, lint rules and types, and run the unit tests (a minute)
	@biome ci
	@tsc --noEmit
	@bun test/run.ts unit

.PHONY: unit
unit: tools ## Run the tests that need no server
	@bun test/run.ts unit

.PHONY: integration
integration: install kafka ## Run the tests that use a real PostgreSQL and a real Kafka
	@bun test/run.ts integration

.PHONY: e2e
e2e: build install kafka ## Run the tests of the compiled binary
	@bun test/run.ts e2e

.PHONY: faults
faults: build install kafka ## Inject every fault once, on the oldest and the newest versions (FAULTS_SEED=number)
	@bun test/run.ts faults

.PHONY: soak
soak: build install kafka ## Inject every fault at every moment on all versions for an hour (DURATION=seconds, ARGS=options of test/faults/soak.ts)
	@exec bun test/faults/soak.ts $(if $(DURATION),--duration $(DURATION)) $(ARGS)

.PHONY: format
format: tools ## Format the sources and apply the safe fixes of the linter
	@biome check --write

.PHONY: lint
lint: tools ## Check format and lint rules
	@biome check

.PHONY: typecheck
typecheck: tools ## Check the types
	@tsc --noEmit

.PHONY: codegen
codegen: tools ## Generate the Thrift codec from the IDL
	@bun src/build/thrift/codegen.ts

.PHONY: build
build: $(BINARY) ## Build dist/cdc-notifier, a single file that needs nothing else
	@:

$(BINARY): $(SOURCES) $(wildcard src/build/*.ts src/build/*.json) package.json tsconfig.json $(SERVICE_PACKAGES)
	$(call step,Building $(BINARY),bun src/build/compile.ts,build)

.PHONY: release
release: $(SERVICE_PACKAGES) ## Build dist/release/: binaries for Linux (x64, x64 with musl, arm64), checksums, SBOMs, licenses
	@bun src/build/release.ts

.PHONY: image
image: $(SERVICE_PACKAGES) ## Build an OCI image in dist/ from pinned Debian packages, without a container engine (needs Debian)
	@bun src/build/image/image.ts

.PHONY: image-test
image-test: install kafka ## Build image and release twice, compare them, run the image (needs Debian, and root or user namespaces)
	@bun test/run.ts image

.PHONY: bench
bench: install kafka ## Measure throughput, memory, latency, many slots and growth, in 15 minutes (ARGS=options of test/bench/main.ts)
	@exec bun test/bench/main.ts --json dist/bench.json --plots dist/bench $(ARGS)

.PHONY: bench-quick
bench-quick: install kafka ## Measure the same in two minutes: smaller backlogs, each read once (ARGS as above)
	@exec bun test/bench/main.ts --quick --json dist/bench-quick.json $(ARGS)

.PHONY: bench-debezium
bench-debezium: install kafka ## Compare with Debezium on Kafka Connect, on two of the backlogs (ARGS=options of test/bench/debezium/main.ts)
	@exec bun test/bench/debezium/main.ts $(ARGS)

.PHONY: bench-stages
bench-stages: install ## Measure each stage of the record path by itself, in ns a row (ARGS=--json FILE)
	@exec bun test/bench/stages/stages.ts $(ARGS)

.PHONY: profile
profile: install kafka ## Profile the reading of a backlog, with a flame graph in dist/profiles (ARGS=--only b)
	@exec bun test/bench/profile/profile.ts $(ARGS)

.PHONY: tools
tools: $(TOOL_PACKAGES) ## Install Bun, the packages of the service and the tools of a developer
	@:

.PHONY: install
install: $(TEST_PACKAGES) ## Install all packages, five versions of PostgreSQL among them
	@:

$(SERVICE_PACKAGES): $(MANIFESTS) $(BUN)
	$(call step,Installing the packages of the service (7 MB),bun install --frozen-lockfile --production --omit=peer --filter cdc-notifier,install)
	@touch $@

$(DEMO_PACKAGES): $(SERVICE_PACKAGES)
	$(call step,Installing PostgreSQL 18 (25 MB),bun install --frozen-lockfile --production --omit=peer,install)
	@touch $@

$(TOOL_PACKAGES): $(DEMO_PACKAGES)
	$(call step,Installing the tools (55 MB),bun install --frozen-lockfile --filter cdc-notifier,install)
	@touch $@

$(TEST_PACKAGES): $(TOOL_PACKAGES)
	$(call step,Installing PostgreSQL 14 to 17 (90 MB),bun install --frozen-lockfile,install)
	@touch $@

# npm may be configured to run no install scripts; the script that puts Bun in its place can be run by hand.
$(BUN): src/build/bun-runtimes.json
	$(call step,Installing Bun $(BUN_VERSION) (50 MB),npm install --prefix $(BUN_HOME) --no-save --no-audit --no-fund --loglevel=error bun@$(BUN_VERSION),npm)
	@[[ "$$(bun --version 2>/dev/null)" == $(BUN_VERSION) ]] || node $(BUN_HOME)/node_modules/bun/install.js
	@sha256=$$(node -p 'require("crypto").createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex")' $(BUN_HOME)/node_modules/.bin/bun); \
	  grep -q "\"$$sha256\"" src/build/bun-runtimes.json || { echo "Cannot use Bun $(BUN_VERSION) from npm: its SHA-256 is $$sha256, which is not in src/build/bun-runtimes.json" >&2; exit 1; }
	@touch $@

.PHONY: kafka
kafka: $(KAFKA) ## Fetch Apache Kafka in all versions that are tested
	@:

$(KAFKA_JARS): .cache/kafka-%: | $(BUN)
	$(call step,Fetching Apache Kafka $* (45 MB),bun test/support/kafka/fetch.ts $*,kafka-$*)

$(KAFKA): .cache/kafka-%-classes.jsa: | .cache/kafka-% $(DEMO_PACKAGES)
	$(call step,Preparing Apache Kafka $* for quick starts,bun test/support/kafka/archive-classes.ts $*,kafka-$*)

.PHONY: clean
clean: ## Remove what was built
	rm -rf dist .cache/reports .cache/*.log

.PHONY: distclean
distclean: clean ## Remove what was built and everything that was downloaded
	rm -rf .cache node_modules
