#!/usr/bin/env bash
# The gate: everything that must pass before a change is in. Never writes into the tree; scripts/fix.sh does.
# Stops at the first failure. Runs from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
    local name=$1 start=$SECONDS
    shift
    printf '== %s\n' "$name"
    if ! "$@"; then
        printf 'FAILED: %s (%d s)\n' "$name" $((SECONDS - start)) >&2
        exit 1
    fi
    printf '== %s: %d s\n' "$name" $((SECONDS - start))
}

step 'format' cargo fmt --all -- --check
step 'lint' cargo clippy --locked --all-targets -- -D warnings
step 'test' cargo test --locked
step 'doc' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

# The simulation: a workspace of its own, which finds its dependencies built (the profiles are alike).
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
in_sim() { (cd sim && "$@"); }
step 'simulation: format' in_sim cargo fmt --all -- --check
step 'simulation: lint' in_sim cargo clippy --locked --all-targets -- -D warnings
step 'simulation: test' in_sim cargo test --locked
# First of all: without this, no seed means anything.
step 'simulation: the same seed twice' scripts/sim.sh --seeds 1..6 --twice
step 'simulation: seeds that once failed' scripts/sim.sh --regressions
step 'simulation: scenarios' scripts/sim.sh --seeds 1..2 --scenario all
step 'simulation: swarm' scripts/sim.sh --seeds 1..120 --sometimes
printf 'OK: the gate is passed (%d s)\n' "$SECONDS"
