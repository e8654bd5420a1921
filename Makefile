# What a user types. Everything that is fetched or made lands in one cache, outside the clone:
# $ASSAY_CACHE, or ~/.cache/assay.
SHELL := /bin/bash
CACHE := $(or $(ASSAY_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/assay)
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := $(CARGO_TARGET_DIR)/release
# Asked for when a recipe needs it, not when make starts.
WITH_LIBTORCH = LIBTORCH="$$(scripts/libtorch.sh)"

# wasmtime takes longer to build than the rest, so only what needs it has it.
WASM := --features assay-server/wasm,assay-server/plugin
ALL := --workspace --features assay-sandbox/wasm,assay-server/wasm,assay-server/plugin,assay-tests/plugin,assay-tests/wasm

BUILD := build --workspace --exclude assay-plugin
# Cargo unites the features of all that it builds at a time: what it builds without the tests, it would build again for them.
test: BUILD := test --no-run $(ALL)

.PHONY: demo test build wasm wasm-python rootfs toolchains libtorch model data docker lint fmt bench

demo: build rootfs model ## train SmolLM2-135M on the katas and show what it learned
	$(BIN)/assay-train demo --config trainer/demo.toml $(DEMO)

test: build rootfs toolchains model data docker wasm-python ## everything that CI checks
	scripts/test.sh $(ALL)

build: libtorch ## everything; `cargo build` alone leaves out the trainer and needs no libtorch
	$(WITH_LIBTORCH) cargo $(BUILD) --release --locked

wasm: wasm-python ## `assay` with the wasm backend, its Python, and plugins of reward files
	cargo build --release --locked $(WASM)

wasm-python:
	@scripts/make-wasm-python.sh >/dev/null

rootfs: ## the root filesystem that Python tasks run in
	@scripts/make-rootfs.sh >/dev/null

toolchains: ## the root filesystem with compilers and node, where this machine allows it
	@scripts/make-toolchains.sh >/dev/null || test $$? = 3

libtorch: ## libtorch for the CPU, from pinned wheels
	@scripts/libtorch.sh >/dev/null

model: ## SmolLM2-135M-Instruct as GGUF
	@scripts/fetch-model.sh >/dev/null

data: build ## HumanEval as tasks, and the sources of the package tasks
	@scripts/fetch-data.sh >/dev/null
	@test -d $(CACHE)/data/humaneval || $(BIN)/assay task import humaneval $(CACHE)/data/HumanEval.jsonl.gz >/dev/null

docker: ## an engine and an image, where this machine allows it
	@scripts/docker-image.sh || test $$? = 3

lint: libtorch
	cargo fmt --all --check
	$(WITH_LIBTORCH) cargo clippy --release --locked --workspace --all-targets $(WASM) -- -D warnings

fmt:
	cargo fmt --all

bench: build wasm rootfs docker ## what sandboxes cost, ours beside others
	@scripts/peers.sh >/dev/null
	$(BIN)/assay bench overhead
	$(BIN)/assay bench sandbox
