# What a user types. Everything that is fetched or made lands in one cache, outside the clone:
# $ASSAY_CACHE, or ~/.cache/assay.
SHELL := /bin/bash
CACHE := $(or $(ASSAY_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/assay)
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := $(CARGO_TARGET_DIR)/release
# Asked for when a recipe needs it, not when make starts.
WITH_LIBTORCH = LIBTORCH="$$(scripts/libtorch.sh)"

.PHONY: demo test build trainer rootfs libtorch model data docker lint fmt bench

demo: rootfs data model build trainer ## train SmolLM2-135M on the katas and show what it learned
	$(BIN)/assay-train demo --config trainer/demo.toml $(DEMO)

test: rootfs data model libtorch docker ## everything that CI checks
	scripts/test.sh

build: ## the service and its command line
	cargo build --release --locked -p assay-server

trainer: libtorch
	$(WITH_LIBTORCH) cargo build --release --locked -p assay-trainer

rootfs: ## the root filesystem that Python tasks run in
	@scripts/make-rootfs.sh >/dev/null

libtorch: ## libtorch for the CPU, from pinned wheels
	@scripts/libtorch.sh >/dev/null

model: ## SmolLM2-135M-Instruct as GGUF
	@scripts/fetch-model.sh >/dev/null

data: ## HumanEval and the sources of the package tasks
	@scripts/fetch-data.sh >/dev/null

docker: ## an engine and an image, where this machine allows it
	@scripts/docker-image.sh || test $$? = 3

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	$(WITH_LIBTORCH) cargo clippy --locked -p assay-trainer --all-targets -- -D warnings

fmt:
	cargo fmt --all

bench: build rootfs
	$(BIN)/assay bench overhead
