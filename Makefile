# The verbs of this repository. Bare `make` lists them.

WASM := wasm32-wasip2
GUESTS := target/$(WASM)/guest

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt bench bench-peers bench-build guests target release clean

help: ## list the verbs
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: target guests ## upload, start, kill -9 in the middle, start again, look: the main job end to end
	cargo build -p stepbox -p stepbox-drive
	target/debug/demo --stepbox target/debug/stepbox --guests $(GUESTS)

test: target lint ## everything that must hold: lints, unit, property, end-to-end and crash tests
	cargo test --workspace

lint: target
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the sources
	cargo fmt --all

bench: bench-build ## measure: each figure beside its floor from the same run (ARGS="--only latency" for one)
	target/release/bench --stepbox target/release/stepbox --guest $(GUESTS)/bench_guest.wasm $(ARGS)

bench-peers: bench-build ## the same load on Zart and Restate, in turns: needs cargo, npm and PostgreSQL's programs
	target/release/peers --stepbox target/release/stepbox --guest $(GUESTS)/bench_guest.wasm $(ARGS)

bench-build: target
	cargo build --release -p stepbox -p stepbox-drive
	cargo build -p bench-guest --target $(WASM) --profile guest

guests: target ## build the examples as components
	cargo build -p order-fulfilment -p lockfile-report -p approval --target $(WASM) --profile guest

release: ## build target/release/stepbox
	cargo build --release -p stepbox

target:
	@rustup target add $(WASM) >/dev/null 2>&1 || { echo "rustup could not add the target $(WASM); is rustup installed?"; exit 1; }

clean: ## remove what was built
	cargo clean
