# The commands people type. `make help` lists them.
SHELL := /bin/bash
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skein
MODELS ?= $(CACHE)/models
SKEIN_PORT ?= 8080
# MESH=regions: two regions, keys and runs in a Postgres that flynet starts in the first
PLACES = $(if $(MESH),$(or $(PLACES_$(MESH)),$(error MESH=$(MESH): there is only MESH=regions)))
PLACES_regions = --regions iad,nrt

.PHONY: help demo up models build test bench chaos compat fuzz check install image

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## build, start four apps, ask questions of the docs in two languages, stop
	@CACHE=$(CACHE) MODELS=$(MODELS) scripts/demo.sh

up: build models ## run the mesh on 127.0.0.1:$SKEIN_PORT until Ctrl-C; MESH=regions: in iad and nrt
	@exec target/debug/flynet up $(PLACES) --port $(SKEIN_PORT) --dev-key .skein/dev.key --models $(MODELS)

models: ## fetch the embedded models into a cache
	@scripts/fetch-models.sh $(MODELS)

# The whole workspace, so that the demo, the tests and CI compile the same things once.
build: ## build the four apps, the CLI and the emulator
	@cargo build --workspace --locked

test: build models ## everything that tests
	@SKEIN_TEST_MODELS=$(MODELS) scripts/test.sh

# The release before is built first, for the deploy that rolls from it to this one.
chaos: build ## disturb a mesh under load in every way and print what callers saw (20 minutes)
	@scripts/previous.sh
	@target/debug/chaos

compat: ## whether callers of the last release understand this contract
	@scripts/compat.sh

# A release build of its own takes about ten minutes on two cores, the measuring five.
bench: ## what the mesh costs: added time, CPU, memory, start, streams, slow readers (BENCH="--quick", "--only chunks")
	@cargo build --release --locked -p gateway -p router -p model-proxy -p retrieval -p bench
	@target/release/bench $(BENCH)

fuzz: ## every decoder of providers' answers against a minute of broken ones (SECONDS_EACH=60)
	@SKEIN_FUZZ_SECONDS=$(or $(SECONDS_EACH),60) cargo test -p model-proxy --locked --lib -- --nocapture would_send

check: compat ## formatting, lints, documentation, compatibility of the contract
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

install: ## put `skein` on the PATH
	cargo install --locked --path services/cli

image: ## build one app's image: make image APP=gateway (needs Docker; not run by the tests)
	docker build --target $(APP) --tag skein-$(APP) --file docker/Dockerfile .
