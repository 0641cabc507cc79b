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
printf 'OK: the gate is passed (%d s)\n' "$SECONDS"
