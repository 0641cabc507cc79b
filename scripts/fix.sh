#!/usr/bin/env bash
# Mends what machines can mend: lints with a known fix, and the format. Writes into the tree. Runs from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo clippy --locked --all-targets --fix --allow-dirty --allow-staged
cargo fmt --all
