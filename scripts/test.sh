#!/usr/bin/env bash
# Everything that CI checks. Quick checks first, so that a slip is found in seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
LIBTORCH=$(scripts/libtorch.sh)
export LIBTORCH

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
# One build for both: the trainer's tests start the service.
cargo test --workspace --locked
