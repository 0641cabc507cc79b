#!/usr/bin/env bash
# Runs the simulation: the whole cluster on one thread, from one seed. `scripts/sim.sh --help` says how. Runs from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --quiet --locked --manifest-path sim/Cargo.toml --bin xcron-sim
exec "$CARGO_TARGET_DIR/debug/xcron-sim" "$@"
