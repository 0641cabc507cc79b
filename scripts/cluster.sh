#!/usr/bin/env bash
# A cluster on this machine: real nodes on loopback, each a process. Runs from any directory.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/cluster.sh [--dir DIR] [--base-port PORT] COMMAND

  up N        start nodes 1 to N; those that are not there yet are made. Prints the API addresses, one a line
  down        stop all nodes; their data stays
  status      what runs, and what the cluster says of itself
  kill I      kill -9
  stop I      stop in good order
  start I     start again
  pause I     stop where it stands (SIGSTOP)
  resume I    let it go on
  add         one more node; prints its API address
  wipe I      kill -9 and erase its data: started again, it is a new node

Options:
  --dir DIR          where data, logs and pid files are [default: target/cluster in the repository]
  --base-port PORT   API of node I on PORT+I-1, peers on PORT+99+I [default: 8000, or that of the directory's `up`]
  -- ARGUMENTS       after `up N` or `add`: further arguments of `xcron serve`, for these nodes and all later starts

The program is $XCRON, or target/release/xcron, which `up` builds. Only processes that this script has
started are touched.
END
}

CALLER_DIR=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/nodes.sh

NODES_DIR=$PWD/target/cluster
BASE_PORT=
while [ $# -gt 0 ]; do
    case $1 in
    --dir | --base-port)
        [ $# -ge 2 ] || fail "$1 needs a value"
        if [ "$1" = --dir ]; then NODES_DIR=$2; else BASE_PORT=$2; fi
        shift 2
        ;;
    -h | --help) usage && exit ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || { usage >&2 && exit 2; }
COMMAND=$1
shift
case $NODES_DIR in /*) ;; *) NODES_DIR=$CALLER_DIR/$NODES_DIR ;; esac

# Node I's ports; 100 of them at most lie between the two kinds.
NODES_MAX=99
api_address() { printf '127.0.0.1:%d\n' $((BASE_PORT + $1 - 1)); }
peer_address() { printf '127.0.0.1:%d\n' $((BASE_PORT + 99 + $1)); }
node_prefix() { PREFIX=(); }
node_arguments() {
    ARGUMENTS=()
    [ ! -f "$NODES_DIR/arguments" ] || mapfile -t ARGUMENTS <"$NODES_DIR/arguments"
}

# The directory is marked when it is first used, so that nothing is erased in one that is something else.
open_dir() {
    local kept
    if [ -f "$NODES_DIR/base-port" ]; then
        kept=$(cat "$NODES_DIR/base-port")
        [ -z "$BASE_PORT" ] || [ "$BASE_PORT" = "$kept" ] || fail "the nodes in $NODES_DIR use --base-port $kept"
        BASE_PORT=$kept
    elif [ "$COMMAND" = up ]; then
        BASE_PORT=${BASE_PORT:-8000}
        case $BASE_PORT in '' | *[!0-9]*) fail "--base-port $BASE_PORT is no port" ;; esac
        { [ "$BASE_PORT" -ge 1024 ] && [ "$BASE_PORT" -le 65300 ]; } || fail '--base-port must be 1024 to 65300'
        if [ -d "$NODES_DIR" ] && [ -n "$(ls -A "$NODES_DIR")" ]; then
            fail "$NODES_DIR holds something else; name another --dir"
        fi
        mkdir -p "$NODES_DIR"
        printf '%s\n' "$BASE_PORT" >"$NODES_DIR/base-port"
    else
        fail "there is no cluster in $NODES_DIR: start one with 'up N'"
    fi
    # A path without `..` and links, because processes are known by it.
    NODES_DIR=$(cd "$NODES_DIR" && pwd -P)
}

one_number() {
    [ $# -eq 1 ] || fail "$COMMAND needs the number of one node"
    check_node "$1"
}

take_arguments() {
    [ "${1:-}" = -- ] || { [ $# -eq 0 ] || fail "'$1' is not understood"; }
    [ $# -gt 1 ] || return 0
    shift
    printf '%s\n' "$@" >"$NODES_DIR/arguments"
}

up() {
    [ $# -ge 1 ] || fail 'up needs the number of nodes'
    local number wanted=$1 count
    check_number "$wanted"
    shift
    [ "$wanted" -le "$NODES_MAX" ] || fail "at most $NODES_MAX nodes"
    count=$(node_count)
    [ "$count" -le "$wanted" ] || fail "$NODES_DIR holds $count nodes: 'up $count', or start them one by one"
    take_arguments "$@"
    find_program build
    # Those that exist go first, and at once: alone none of them has a majority.
    for ((number = 1; number <= count; number++)); do is_running "$number" || spawn_node "$number"; done
    for ((number = 1; number <= count; number++)); do await_ready "$number"; done
    make_nodes $((count + 1)) "$wanted"
    for ((number = 1; number <= wanted; number++)); do api_address "$number"; done
}

add() {
    local number
    number=$(($(node_count) + 1))
    [ "$number" -le "$NODES_MAX" ] || fail "at most $NODES_MAX nodes"
    take_arguments "$@"
    find_program
    start_node "$number"
    api_address "$number"
}

status() {
    local number count state shown=
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        if ! is_running "$number"; then
            state='down'
        elif is_paused "$number"; then
            state="paused  pid $(node_pid "$number")"
        elif is_ready "$number"; then
            state="ready   pid $(node_pid "$number")"
            shown=${shown:-$number}
        else
            state="up      pid $(node_pid "$number")"
        fi
        printf 'node %d  http://%s  %s\n' "$number" "$(api_address "$number")" "$state"
    done
    [ -z "$shown" ] || { find_program && "$XCRON" cluster status --api "http://$(api_address "$shown")"; }
}

# Erases only what spawn_node makes.
wipe() {
    ! is_running "$1" || kill_node "$1"
    rm -rf "$(node_dir "$1")/data" "$(node_dir "$1")/log"
}

open_dir
case $COMMAND in
up) up "$@" ;;
add) add "$@" ;;
down) end_all_nodes ;;
status) status ;;
kill) one_number "$@" && kill_node "$1" ;;
stop) one_number "$@" && stop_node "$1" ;;
start) one_number "$@" && find_program && start_node "$1" ;;
pause) one_number "$@" && signal_node "$1" STOP ;;
resume) one_number "$@" && signal_node "$1" CONT ;;
wipe) one_number "$@" && wipe "$1" ;;
*) usage >&2 && fail "there is no command '$COMMAND'" ;;
esac
