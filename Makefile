# The verbs of this repository. Bare `make` lists them.

WASM := wasm32-wasip2
GUESTS := target/$(WASM)/guest

# Everything is built with `--workspace`: with `-p` cargo chooses other features for the
# dependencies, and builds Cranelift once for each choice.

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt hostile fuzz bench bench-peers bench-build guests target release clean

help: ## list the verbs
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: target guests ## upload, start, kill -9 in the middle, start again, look: the main job end to end
	cargo build --workspace --bin stepbox --bin demo
	target/debug/demo --stepbox target/debug/stepbox --guests $(GUESTS)

# Clippy looks on while the tests are built: a pass of its own takes four minutes more, most of them
# for dependencies that are then built all the same.
test: target ## everything that must hold: lints, unit, property, end-to-end and crash tests
	cargo fmt --all --check
	CLIPPY_ARGS=-Dwarnings cargo --config 'build.rustc-workspace-wrapper="clippy-driver"' test --workspace

lint: target ## formats and lints alone
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the sources
	cargo fmt --all

hostile: target ## attack a release build in every way that we know of, hold the neighbours' latency to twice the quiet one, print a table
	cargo build --release --workspace --bin stepbox
	STEPBOX_TEST_BINARY=$(CURDIR)/target/release/stepbox STEPBOX_HOSTILE_LONG=1 \
		cargo test --workspace --test it hostile:: -- --test-threads=1

fuzz: guests ## throw damaged uploads, requests, manifests and grants at it (ARGS="--seed 7 --seconds 3600")
	cargo test --workspace --no-run
	target/debug/fuzz all --seconds 600 --corpus $(GUESTS) $(ARGS)

bench: bench-build ## measure: each figure beside its floor from the same run (ARGS="--only latency" for one)
	target/release/bench --stepbox target/release/stepbox --guest $(GUESTS)/bench_guest.wasm $(ARGS)

bench-peers: bench-build ## the same load on Zart and Restate, in turns: needs cargo, npm and PostgreSQL's programs
	target/release/peers --stepbox target/release/stepbox --guest $(GUESTS)/bench_guest.wasm $(ARGS)

bench-build: target
	cargo build --release --workspace --bin stepbox --bin bench --bin peers
	cargo build -p bench-guest --target $(WASM) --profile guest

guests: target ## build the examples as components
	cargo build -p order-fulfilment -p lockfile-report -p approval -p webhook --target $(WASM) --profile guest

release: ## build target/release/stepbox
	cargo build --release --workspace --bin stepbox

target:
	@rustup target add $(WASM) >/dev/null 2>&1 || { echo "rustup could not add the target $(WASM); is rustup installed?"; exit 1; }

clean: ## remove what was built
	cargo clean
