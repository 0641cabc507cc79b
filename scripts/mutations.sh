#!/usr/bin/env bash
# Proof of the simulation: known bugs (sim/mutations) are put into a copy of the product, and each must be found within some seeds.
# `scripts/mutations.sh --help` says how. Runs from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
exec cargo run --quiet --locked --manifest-path sim/Cargo.toml --bin mutants -- "$@"
