# Nodes as processes, for scripts/cluster.sh and scripts/chaos.sh, which source this file. Owns their directories, pid files
# and signals; knows nothing of where their addresses come from.
#
# The caller sets NODES_DIR (absolute) and XCRON (the program), and defines
#   api_address I, peer_address I    ip:port of a node's API and of its peer port
#   node_prefix I                    sets the array PREFIX: words before the command of a node (may be empty)
#   node_arguments I                 sets the array ARGUMENTS: further arguments of `xcron serve` (may be empty)
# Nodes count from 1. Node I lives in NODES_DIR/node-I: data/, log, pid.
# shellcheck shell=bash

# Seconds that a node may take to be ready, to end when it is asked to, and after `kill -9`.
: "${XCRON_READY_SECS:=60}"
: "${XCRON_STOP_SECS:=20}"
KILL_SECS=10
# What the caller's node_prefix and node_arguments set.
PREFIX=()
ARGUMENTS=()

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Fails unless $1 is a number from 1 up.
check_number() {
    case $1 in
    '' | *[!0-9]* | 0*) fail "'$1' is no number of a node: they count from 1" ;;
    esac
}

node_dir() { printf '%s/node-%d\n' "$NODES_DIR" "$1"; }

# How many nodes have ever been made: they are numbered without gaps.
node_count() {
    local count=0
    while [ -d "$(node_dir $((count + 1)))" ]; do count=$((count + 1)); done
    printf '%d\n' "$count"
}

check_node() {
    check_number "$1"
    [ -d "$(node_dir "$1")" ] || fail "there is no node $1 in $NODES_DIR: it has $(node_count)"
}

# The pid of a node that runs, or nothing. A pid is ours only while its command line names our data directory: pids are
# reused, and a process that has ended but was not collected has no command line.
node_pid() {
    local dir pid arguments
    dir=$(node_dir "$1")
    [ -f "$dir/pid" ] || return 0
    pid=$(cat "$dir/pid")
    case $pid in '' | *[!0-9]*) return 0 ;; esac
    arguments=$(ps -o args= -p "$pid" 2>/dev/null) || return 0
    case $arguments in
    *" --data $dir/data "*) printf '%s\n' "$pid" ;;
    esac
}

is_running() { [ -n "$(node_pid "$1")" ]; }

is_paused() {
    local pid state
    pid=$(node_pid "$1")
    [ -n "$pid" ] || return 1
    state=$(ps -o state= -p "$pid" 2>/dev/null) || return 1
    case $state in T*) ;; *) return 1 ;; esac
}

# Sends signal $2 to node $1; fails if it does not run.
signal_node() {
    local pid
    pid=$(node_pid "$1")
    [ -n "$pid" ] || fail "node $1 does not run"
    kill -s "$2" "$pid" 2>/dev/null || [ -z "$(node_pid "$1")" ] || fail "signal $2 cannot be sent to node $1"
}

# Lets node $1 go on, if it is still there.
wake_node() {
    local pid
    pid=$(node_pid "$1")
    [ -z "$pid" ] || kill -s CONT "$pid" 2>/dev/null || true
}

# Waits up to $2 seconds for node $1 to be gone.
await_end() {
    local tries=$(($2 * 20))
    while is_running "$1"; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.05
    done
    rm -f "$(node_dir "$1")/pid"
}

# Runs a command where node $1 has its network.
with_node() {
    local number=$1
    shift
    node_prefix "$number"
    "${PREFIX[@]}" "$@"
}

is_ready() {
    local status
    status=$(with_node "$1" curl -s -o /dev/null -w '%{http_code}' --max-time 2 "http://$(api_address "$1")/readyz" || true)
    [ "$status" = 200 ]
}

# Waits until node $1 is ready; fails, with the end of its log, if it ends or does not become so.
await_ready() {
    local deadline=$((SECONDS + XCRON_READY_SECS))
    until is_ready "$1"; do
        if ! is_running "$1"; then
            tail -n 20 "$(node_dir "$1")/log" >&2
            fail "node $1 has ended; its log is above, and in $(node_dir "$1")/log"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 20 "$(node_dir "$1")/log" >&2
            fail "node $1 is not ready after $XCRON_READY_SECS s; the end of its log is above"
        fi
        sleep 0.1
    done
}

# The peer addresses of all nodes but $1, with commas.
peers_of() {
    local other list='' count
    count=$(node_count)
    for ((other = 1; other <= count; other++)); do
        [ "$other" -eq "$1" ] || list+="${list:+,}$(peer_address "$other")"
    done
    printf '%s\n' "$list"
}

# Whether any node has data, and thus a cluster.
have_data() {
    local number count
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        [ ! -f "$(node_dir "$number")/data/identity" ] || return 0
    done
    return 1
}

# Starts node $1, made if there is none yet, and does not wait. Every start names all other nodes; none founds a cluster.
spawn_node() {
    local dir tries command join
    check_number "$1"
    is_running "$1" && fail "node $1 runs already, as process $(node_pid "$1")"
    dir=$(node_dir "$1")
    mkdir -p "$dir"
    make_secret
    node_prefix "$1"
    node_arguments "$1"
    # --data first: node_pid looks for it.
    command=("$XCRON" serve --data "$dir/data" --listen "$(api_address "$1")" --peer-listen "$(peer_address "$1")"
        --secret-file "$NODES_DIR/secret")
    join=$(peers_of "$1")
    [ -z "$join" ] || command+=(--join "$join")
    # Its own group: an interrupt meant for this script is not meant for the node. Nothing of ours stays open in it.
    set -m
    nohup "${PREFIX[@]}" "${command[@]}" "${ARGUMENTS[@]}" </dev/null >>"$dir/log" 2>&1 &
    printf '%d\n' $! >"$dir/pid"
    # Until it has become the node, it has the command line of this script.
    for ((tries = 0; tries < 250; tries++)); do
        if is_running "$1" || ! kill -0 $! 2>/dev/null; then break; fi
        sleep 0.02
    done
    disown $! 2>/dev/null || true
    set +m
}

start_node() {
    spawn_node "$1"
    await_ready "$1"
}

# Tells node 1, which waits, to found the cluster: once in the cluster's life.
found_cluster() {
    local deadline=$((SECONDS + XCRON_READY_SECS)) said
    until said=$(with_node 1 "$XCRON" cluster init --api "http://$(api_address 1)" 2>&1); do
        is_running 1 || fail "node 1 has ended: $(tail -n 5 "$(node_dir 1)/log")"
        [ "$SECONDS" -lt "$deadline" ] || fail "node 1 does not found the cluster: $said"
        sleep 0.2
    done
}

# Starts nodes $1 to $2 that are not there yet, all at once, and waits for them. The first of all found the cluster.
make_nodes() {
    local number is_new=yes
    ! have_data || is_new=
    # Made before any is started, so that each names all.
    for ((number = $1; number <= $2; number++)); do mkdir -p "$(node_dir "$number")"; done
    for ((number = $1; number <= $2; number++)); do spawn_node "$number"; done
    [ -z "$is_new" ] || found_cluster
    for ((number = $1; number <= $2; number++)); do await_ready "$number"; done
}

kill_node() {
    signal_node "$1" KILL
    await_end "$1" "$KILL_SECS" || fail "node $1 is still there $KILL_SECS s after kill -9"
}

# In good order; a node that was paused goes on, to be able to end.
stop_node() {
    signal_node "$1" TERM
    wake_node "$1"
    await_end "$1" "$XCRON_STOP_SECS" || fail "node $1 does not end within $XCRON_STOP_SECS s; use 'kill $1'"
}

# Ends every node that runs, in good order where that is possible.
end_all_nodes() {
    local number count pid
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        pid=$(node_pid "$number")
        [ -z "$pid" ] || kill -s TERM "$pid" 2>/dev/null || true
        wake_node "$number"
    done
    for ((number = 1; number <= count; number++)); do
        await_end "$number" "$XCRON_STOP_SECS" && continue
        printf '%s: node %d does not end by itself, and is killed\n' "${0##*/}" "$number" >&2
        pid=$(node_pid "$number")
        [ -z "$pid" ] || kill -s KILL "$pid" 2>/dev/null || true
        await_end "$number" "$KILL_SECS" || true
    done
}

# One secret for all nodes, readable by their owner alone.
make_secret() {
    [ -f "$NODES_DIR/secret" ] && return
    (
        umask 077
        od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n' >"$NODES_DIR/secret.new"
        echo >>"$NODES_DIR/secret.new"
    )
    mv "$NODES_DIR/secret.new" "$NODES_DIR/secret"
}

# Sets XCRON to the program: the one that the caller names, or the release build, which `find_program build` brings up to
# date.
find_program() {
    if [ -n "${XCRON:-}" ]; then
        command -v "$XCRON" >/dev/null || fail "XCRON=$XCRON is no program"
        XCRON=$(command -v "$XCRON")
        return
    fi
    XCRON=$PWD/target/release/xcron
    [ "${1:-}" = build ] || [ ! -x "$XCRON" ] || return 0
    cargo build --release --locked --quiet >&2 || fail 'the program does not build'
}
