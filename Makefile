# Needs node, npm, Java 17, Maven, make and git; everything else is fetched, pinned, into .cache/ and node_modules/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

BUN_VERSION := 1.4.5
KAFKA_VERSIONS := 3.9.2 4.3.0
BUN_HOME := $(CURDIR)/.cache/bun
BUN_STAMP := .cache/bun/.installed-$(BUN_VERSION)
PACKAGES_STAMP := node_modules/.installed
KAFKA := $(KAFKA_VERSIONS:%=.cache/kafka-%-classes.jsa)
BINARY := dist/cdc-notifier
SOURCES := $(shell find src -name '*.ts' -not -path 'src/build/*' 2>/dev/null)

export PATH := $(BUN_HOME)/node_modules/.bin:$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help
help: ## Print the targets
	@echo 'Targets:'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: build kafka ## See it work: PostgreSQL, Kafka, a writer, the binary (DURATION=seconds, RATE=transactions a second)
	@exec bun test/demo/main.ts $(if $(DURATION),--duration $(DURATION)) $(if $(RATE),--rate $(RATE))

.PHONY: test
test: build kafka ## Run every test, with a count in the last line
	@bun test/run.ts unit integration+image e2e fuzz faults # the image waits for downloads, mostly

.PHONY: unit
unit: install ## Run the tests that need no server
	@bun test/run.ts unit

.PHONY: integration
integration: install kafka ## Run the tests on a real PostgreSQL and a real Kafka
	@bun test/run.ts integration

.PHONY: e2e
e2e: build kafka ## Run the tests of the compiled binary
	@bun test/run.ts e2e

.PHONY: faults
faults: build kafka ## Run every fault once, on the oldest and the newest versions (FAULTS_SEED=number)
	@bun test/run.ts faults

.PHONY: soak
soak: build kafka ## Run every fault at every moment on all versions, and a million mutations (DURATION=seconds, ARGS=options of test/faults/soak.ts)
	@exec bun test/faults/soak.ts $(if $(DURATION),--duration $(DURATION)) $(ARGS)

.PHONY: ok
ok: install ## The quick gate: format, lint, types, unit tests
	@biome ci
	@tsc --noEmit
	@bun test/run.ts unit

.PHONY: format
format: install ## Format the sources and mend what the linter can
	@biome check --write

.PHONY: lint
lint: install ## Check format and lint rules
	@biome check

.PHONY: typecheck
typecheck: install ## Check the types
	@tsc --noEmit

.PHONY: codegen
codegen: install ## Write the Thrift codec anew from the IDL
	@bun src/build/thrift/codegen.ts

.PHONY: build
build: $(BINARY) ## Build dist/cdc-notifier, one file that needs nothing else
	@:

$(BINARY): $(SOURCES) package.json tsconfig.json $(PACKAGES_STAMP)
	@echo 'Building $(BINARY)'
	@bun build --compile --minify-syntax --minify-whitespace --sourcemap --no-compile-autoload-dotenv --no-compile-autoload-bunfig \
	  --define '__dirname="/"' --compile-exec-argv=--use-system-ca \
	  src/main.ts --outfile $(BINARY) >.cache/build.log 2>&1 || { cat .cache/build.log >&2; exit 1; }
	@touch $(BINARY)

.PHONY: release
release: install ## Make dist/release/: linux x64, x64 with musl, arm64; checksums, bills of materials, licences
	@bun src/build/release.ts

.PHONY: image
image: install ## Make an OCI image under dist/ from pinned Debian packages, without a container engine
	@bun src/build/image/image.ts

.PHONY: image-test
image-test: install kafka ## Make image and release twice, and run the service in the image (needs Debian; root or namespaces)
	@bun test/run.ts image

.PHONY: bench
bench: install kafka ## Measure throughput, memory, latency, many slots, growth, in a quarter of an hour (ARGS=options of test/bench/main.ts)
	@exec bun test/bench/main.ts --json dist/bench.json --plots dist/bench $(ARGS)

.PHONY: bench-quick
bench-quick: install kafka ## The same in two minutes: smaller backlogs, each read once (ARGS as above)
	@exec bun test/bench/main.ts --quick --json dist/bench-quick.json $(ARGS)

.PHONY: bench-debezium
bench-debezium: install kafka ## Put two of the backlogs through Debezium on Kafka Connect and the service in turn (ARGS=options of test/bench/debezium/main.ts)
	@exec bun test/bench/debezium/main.ts $(ARGS)

.PHONY: bench-stages
bench-stages: install ## Measure each stage of the record path by itself, in ns a row (ARGS=--json FILE)
	@exec bun test/bench/stages/stages.ts $(ARGS)

.PHONY: profile
profile: install kafka ## Show where the time of a backlog goes, with a flame graph in dist/profiles (ARGS=--only b)
	@exec bun test/bench/profile/profile.ts $(ARGS)

.PHONY: install
install: $(PACKAGES_STAMP) ## Fetch Bun and the packages
	@:

$(PACKAGES_STAMP): package.json bun.lock bunfig.toml $(BUN_STAMP)
	@echo 'Installing packages (five versions of PostgreSQL among them, 300 MB)'
	@bun install --frozen-lockfile >.cache/install.log 2>&1 || { cat .cache/install.log >&2; exit 1; }
	@touch $@

# npm may have been told to run no install scripts; Bun's puts its binary in place and can be run by hand.
$(BUN_STAMP):
	@echo 'Installing Bun $(BUN_VERSION)'
	@mkdir -p $(BUN_HOME)
	@npm install --prefix $(BUN_HOME) --no-save --no-audit --no-fund --loglevel=error bun@$(BUN_VERSION) \
	  >.cache/npm.log 2>&1 || { cat .cache/npm.log >&2; exit 1; }
	@[[ "$$(bun --version 2>/dev/null)" == $(BUN_VERSION) ]] || node $(BUN_HOME)/node_modules/bun/install.js
	@[[ "$$(bun --version)" == $(BUN_VERSION) ]] || { echo 'Cannot run Bun $(BUN_VERSION)' >&2; exit 1; }
	@touch $@

.PHONY: kafka
kafka: $(KAFKA) ## Fetch Apache Kafka for tests and demo
	@:

$(KAFKA): .cache/kafka-%-classes.jsa: | $(PACKAGES_STAMP)
	@echo 'Fetching Apache Kafka $* (about 45 MB)'
	@bun test/support/kafka/fetch.ts $*

.PHONY: clean
clean: ## Remove what was built
	rm -rf dist .cache/reports .cache/*.log

.PHONY: distclean
distclean: clean ## Remove what was fetched, too
	rm -rf .cache node_modules
