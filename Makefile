# The commands of everyday work. `make demo` and `make test` work in a fresh clone.

SHELL := /bin/sh
CARGO ?= cargo

# make demo DATA=file.csv.gz SPEED=600 replays a file instead of running the simulator.
DATA ?=
SPEED ?= 600
RATE ?= 200
SEED ?= 1

.PHONY: help demo test bench lint docs gen tools

help:
	@echo "make demo    a server with a simulated shop; DATA=FILE SPEED=600 replays a file, RATE=200, SEED=1"
	@echo "make test    unit, SQL, property and end-to-end tests"
	@echo "make bench   the benchmarks, beside the figures of others"
	@echo "make lint    format, clippy, tidy"
	@echo "make docs    the book, in target/book"
	@echo "make gen     files that are printed from code"

tools:
	@command -v $(CARGO) >/dev/null 2>&1 || { \
	  echo "cargo is missing. Install Rust: https://rustup.rs, or: apt-get install rustup && rustup default stable"; exit 2; }
	@command -v cc >/dev/null 2>&1 || { \
	  echo "cc is missing. Install a C compiler: apt-get install build-essential (macOS: xcode-select --install)"; exit 2; }

# exec: signals go to the program itself, which stops the server and the simulator and waits for both.
demo: tools
	@$(CARGO) build --workspace --bins
	@exec "$${CARGO_TARGET_DIR:-target}/debug/shopstream" demo --rate $(RATE) --seed $(SEED) $(if $(DATA),--data "$(DATA)" --speed $(SPEED))

test: tools
	$(CARGO) test --workspace
	@if [ ! -f tests/e2e/run.py ]; then echo "end-to-end tests: none in this tree"; \
	elif command -v python3 >/dev/null 2>&1; then $(CARGO) build --workspace --bins && python3 tests/e2e/run.py; \
	else echo "end-to-end tests SKIPPED: python3 is missing. Install it: apt-get install python3 (macOS: brew install python)"; fi

bench: tools
	@$(CARGO) build --workspace --bins && python3 bench/run.py

lint: tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) run -q -p xtask -- tidy

gen: tools
	$(CARGO) run -q -p xtask -- gen

docs:
	@command -v mdbook >/dev/null 2>&1 || { echo "mdbook is missing. Install it: cargo install mdbook --locked"; exit 2; }
	mdbook build docs
