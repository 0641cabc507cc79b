#!/usr/bin/env bash
# The three ways to deploy of doc/deployment.md, each started, loaded and judged. Runs from any directory.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/deployments.sh [MODE...]

  single   two nodes that know nothing of each other, behind a balancer
  group    one group of three nodes
  many     seven nodes, each group on three of them

Each mode is started with scripts/cluster.sh, takes creates through every node, and must make every callback once and none
early. A line: mode, verdict, creates acknowledged, callbacks missing, early and repeated. Without a mode, all three.
END
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
BASE_PORT=18400
PLACE=$(mktemp -d "${TMPDIR:-/tmp}/xcron-deployments-XXXXXX")

down() {
    local dir
    for dir in "$PLACE"/*/; do
        [ -d "$dir" ] && scripts/cluster.sh --dir "$dir" down >/dev/null 2>&1 || true
    done
    rm -rf "$PLACE"
}
trap down EXIT

case ${1:-} in -h | --help) usage && exit ;; esac
MODES=("$@")
[ ${#MODES[@]} -gt 0 ] || MODES=(single group many)
# `up` builds it.
XCRON=${XCRON:-$PWD/target/release/xcron}

# Starts $3 nodes in directory $1 on ports from $2, and prints the addresses of their APIs with commas between.
up() { scripts/cluster.sh --dir "$PLACE/$1" --base-port "$2" up "$3" | sed "s#^#http://#" | paste -sd, -; }

figure() { tr ',{}' '\n\n\n' <"$PLACE/bench.json" | awk -v key="\"$1\":" 'index($0, key) == 1 { print substr($0, length(key) + 1); exit }'; }

FAILED=0
printf '%-8s %-7s %7s %8s %6s %9s\n' mode verdict acked missing early repeated
for mode in "${MODES[@]}"; do
    case $mode in
    single) apis=$(up one $BASE_PORT 1),$(up two $((BASE_PORT + 200)) 1) ;;
    group) apis=$(up group $BASE_PORT 3) ;;
    many) apis=$(up many $BASE_PORT 7) ;;
    *) usage >&2 && exit 2 ;;
    esac
    "$XCRON" bench --api "$apis" -n 3000 -c 32 --rate 500 --delay 3 --wait 30 --no-probes --json >"$PLACE/bench.json" || true
    verdict=PASS
    for wanted in acked=3000 missing=0 early=0 repeated=0; do
        [ "$(figure "${wanted%=*}")" = "${wanted#*=}" ] || verdict=FAIL
    done
    [ $verdict = PASS ] || FAILED=1
    printf '%-8s %-7s %7s %8s %6s %9s\n' "$mode" $verdict "$(figure acked)" "$(figure missing)" "$(figure early)" "$(figure repeated)"
    for dir in "$PLACE"/*/; do scripts/cluster.sh --dir "$dir" down >/dev/null 2>&1 && rm -rf "$dir"; done
done
exit $FAILED
