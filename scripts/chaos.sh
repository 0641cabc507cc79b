#!/usr/bin/env bash
# What a cluster of real processes does under faults, as one verdict line a case. Runs from any directory.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/chaos.sh [OPTIONS] [CASE...]

Each case starts a cluster of its own, loads it with `xcron bench` through all nodes, does its faults, heals, and judges
what the callbacks say. Without a case, all of them:

  kill-leader        kill -9 the node that leads most groups; started again after 8 s
  kill-any           kill -9 each node in turn, each started again before the next
  kill-two-of-five   kill -9 two of five nodes at once (5 copies of each group)
  pause-1  pause-5  pause-30
                     stop the node that leads most groups for so many seconds (SIGSTOP), then let it go on
  partition          that node hears nobody and nobody hears it, for 10 s; clients reach all
  partition-deaf     it hears nobody, but is heard, for 10 s
  partition-mute     it hears all, but nobody hears it, for 10 s
  rolling-restart    stop and start each node in good order
  upgrade            three nodes of the commit before (or of $XCRON_BEFORE) become nodes of this one, one by one, and one goes back
  power-cut          kill -9 all nodes at once, and start them
  power-loss         the same, and their disks lose everything that was not synced (root, loop devices and perl; else SKIPPED)
  grow               1 -> 3 -> 5 -> 7 nodes with tasks pending
  drain              one of four nodes leaves
  at-most-once       $XCRON_CHAOS_ONCE [10000] tasks that are delivered at most once, due in one second at a target on another host
  operations         what an operator does, in random order, with kill -9 in between: restarts, a node away meanwhile, a
                     lost disk, growth, shrinking, two of three lost for good. $XCRON_CHAOS_ROUNDS [20] rounds from $XCRON_CHAOS_SEED; no group may ever
                     have fewer than three voters. Only when it is named: it takes half an hour

Options:
  --rate R           creates per second [default: 300]
  --pending N        tasks pending before `grow` and `drain` [default: 100000]
  --base-port PORT   first port of cases on loopback [default: 18000]
  --keep             keep the directory of a case that fails

A line: case, verdict, creates acknowledged, callbacks missing, early and repeated, the longest that a callback came after
its due in ms (faults come right before a full second, when tasks are due), and notes. PASS needs: none missing, none
early, none of a refused create, no second fire of one due, repeats at most as many as were due in the second of each
fault (none where there is no fault: rolling-restart, upgrade, grow, drain), and afterwards every node ready and firing.
The partition cases make network namespaces xcron-chaos-* and need root, ip and nft; without these they are SKIPPED.
Exit code: 0 all passed, 1 one failed, 3 none failed but some were skipped.
The program is $XCRON, or target/release/xcron, which is built first.
END
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/nodes.sh
. scripts/chaos/network.sh
. scripts/chaos/view.sh
. scripts/chaos/load.sh
. scripts/chaos/power.sh
. scripts/chaos/operations.sh

CASES=(kill-leader kill-any kill-two-of-five pause-1 pause-5 pause-30 partition partition-deaf partition-mute
    rolling-restart upgrade power-cut power-loss grow drain at-most-once)
# Seconds of load before the first fault, and after the last one.
WARM_SECS=6
AFTER_SECS=6
# Seconds from a create to its due.
DELAY_SECS=5
# Longest that the bench waits for callbacks after the last due, and that nodes take to come to rest.
WAIT_SECS=60
REST_SECS=300
PARTITION_SECS=10
# The minority must refuse within this.
REFUSAL_MS_MAX=2000
SKIPPED=3

RATE=300
PENDING=100000
BASE_PORT=18000
KEEP=
OPTIONS=()
CHOSEN=()
while [ $# -gt 0 ]; do
    case $1 in
    --rate | --pending | --base-port)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $2 in '' | *[!0-9]* | 0*) fail "$1 $2: not a number above 0" ;; esac
        case $1 in
        --rate) RATE=$2 ;;
        --pending) PENDING=$2 ;;
        *) BASE_PORT=$2 ;;
        esac
        OPTIONS+=("$1" "$2")
        shift 2
        ;;
    --keep) KEEP=yes OPTIONS+=(--keep) && shift ;;
    -h | --help) usage && exit ;;
    -*) usage >&2 && fail "there is no option $1" ;;
    *)
        [[ " ${CASES[*]} operations " = *" $1 "* ]] || fail "there is no case '$1'; scripts/chaos.sh --help lists them"
        CHOSEN+=("$1") && shift
        ;;
    esac
done
[ ${#CHOSEN[@]} -gt 0 ] || CHOSEN=("${CASES[@]}")

# Several cases: each in a process of its own, so that whatever becomes of one, its trap cleans up.
if [ ${#CHOSEN[@]} -gt 1 ]; then
    find_program build
    export XCRON
    worst=0
    XCRON_CHAOS_HEADER=yes
    for chosen in "${CHOSEN[@]}"; do
        code=0
        XCRON_CHAOS_HEADER=$XCRON_CHAOS_HEADER scripts/chaos.sh "${OPTIONS[@]}" "$chosen" || code=$?
        [ "$code" -lt 128 ] || exit "$code"
        case $code:$worst in
        0:* | "$SKIPPED":1) ;;
        "$SKIPPED":*) worst=$SKIPPED ;;
        *) worst=1 ;;
        esac
        XCRON_CHAOS_HEADER=no
    done
    exit "$worst"
fi

CASE=${CHOSEN[0]}
[ "${XCRON_CHAOS_HEADER:-yes}" = no ] ||
    printf '%-16s %-7s %9s %7s %6s %8s %10s  %s\n' case verdict acked missing early repeated silence_ms notes

LOAD_PID=
VERDICT=
clean_up() {
    local code=$? number count space pid
    trap - EXIT
    if [ -z "$VERDICT" ] && [ "$code" -lt 128 ]; then
        note 'the case itself failed: see the errors above'
        print_verdict FAIL - - - - -
    fi
    if [ -n "$LOAD_PID" ]; then
        kill -s KILL "$LOAD_PID" 2>/dev/null || true
        wait "$LOAD_PID" 2>/dev/null || true
    fi
    end_watch
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        pid=$(node_pid "$number")
        [ -z "$pid" ] || kill -s KILL "$pid" 2>/dev/null || true
    done
    for ((number = 1; number <= count; number++)); do await_end "$number" "$KILL_SECS" || true; done
    drop_disks
    for space in "${SPACES[@]}"; do ip netns del "$space" || true; done
    if [ -n "$KEEP" ] && [ "$VERDICT" != PASS ]; then
        printf 'chaos.sh: the logs of %s are in %s\n' "$CASE" "$NODES_DIR" >&2
    else
        rm -rf "$NODES_DIR"
    fi
}

NOTES=()
note() { NOTES+=("$*"); }
FAILED=
# A reason against PASS; the case goes on.
wrong() {
    FAILED=yes
    note "$*"
}

print_verdict() {
    VERDICT=$1
    local notes
    notes=$(printf '%s; ' "${NOTES[@]:-}")
    printf '%-16s %-7s %9s %7s %6s %8s %10s  %s\n' "$CASE" "$@" "${notes%; }"
}

skip() {
    note "$*"
    print_verdict SKIPPED - - - - -
    exit "$SKIPPED"
}

# Ends the case because it cannot go on.
give_up() {
    note "$*"
    print_verdict FAIL - - - - -
    exit 1
}

start_nodes() {
    make_nodes 1 "$1"
    await_rest "$1"
}

# Calls the API from where the clients are.
ask() { "${HUB[@]}" curl -s --max-time 5 "$@" || true; }

kill_leader() {
    local victim
    start_nodes 3
    start_load 30
    victim=$(busiest)
    before_second
    kill_node "$victim"
    sleep 8
    start_node "$victim"
    judge 1
}

kill_any() {
    local victim
    start_nodes 3
    start_load 60
    for victim in 1 2 3; do
        before_second
        kill_node "$victim"
        sleep 4
        start_node "$victim"
        sleep 4
    done
    judge 3
}

kill_two_of_five() {
    local first second
    SERVE=(--replicas 5)
    start_nodes 5
    start_load 30
    first=$(busiest)
    second=$((first % 5 + 1))
    before_second
    signal_node "$first" KILL
    signal_node "$second" KILL
    await_end "$first" "$KILL_SECS"
    await_end "$second" "$KILL_SECS"
    sleep 8
    start_node "$first"
    start_node "$second"
    judge 2
}

pause() {
    local victim
    start_nodes 3
    start_load $(($1 + 25))
    victim=$(busiest)
    before_second
    signal_node "$victim" STOP
    sleep "$1"
    signal_node "$victim" CONT
    judge 1
}

partition() {
    local victim
    make_network 3
    start_nodes 3
    start_load $((PARTITION_SECS + 30))
    victim=$(busiest)
    before_second
    cut_off "$victim" "$1"
    sleep 4
    [ "$1" != both ] || ask_minority "$victim"
    sleep $((PARTITION_SECS - 4))
    reconnect "$victim"
    judge 1
}

# A node without a majority must say so, soon, whether it led the task's group or not: several tasks, for several groups.
ask_minority() {
    local id answer took_ms worst_ms=0
    for id in minority-1 minority-2 minority-3 minority-4; do
        answer=$("${HUB[@]}" curl -s --max-time 20 -w ' %{time_total}' "http://$(api_address "$1")/xcron/createTask" \
            -d '{"task_id":"'"$id"'","type":2,"format":"4000000000","callback":{"url":"http://127.0.0.1:9/"}}' || true)
        took_ms=$(printf '%s\n' "${answer##* }" | awk '{ printf "%d", $1 * 1000 }')
        [ "$took_ms" -le "$worst_ms" ] || worst_ms=$took_ms
        case $answer in *'"code":1004'*) ;; *) wrong "the minority answers ${answer% *}" && return ;; esac
    done
    note "the minority refuses within $worst_ms ms"
    [ "$worst_ms" -le "$REFUSAL_MS_MAX" ] || wrong "that is more than $REFUSAL_MS_MAX ms"
}

rolling_restart() {
    local number
    start_nodes 3
    start_load 60
    for number in 1 2 3; do
        stop_node "$number"
        start_node "$number"
        sleep 4
    done
    judge 0
}

# Sets BEFORE: the program of the commit before, built where the caller names none.
find_before() {
    local tree=target/before/tree
    BEFORE=${XCRON_BEFORE:-}
    note "beside ${BEFORE:-$(git rev-parse --short HEAD~1)}"
    if [ -n "$BEFORE" ]; then
        command -v "$BEFORE" >/dev/null || give_up "XCRON_BEFORE=$BEFORE is no program"
        return
    fi
    BEFORE=$PWD/target/before/xcron
    rm -rf "$tree" && mkdir -p "$tree"
    git archive HEAD~1 | tar -x -C "$tree"
    # Beside this one's, so that it finds its dependencies built; then this one's takes its place again.
    CARGO_TARGET_DIR=$PWD/target cargo build --release --locked --quiet --manifest-path "$tree/Cargo.toml" >&2 ||
        give_up 'the commit before does not build'
    cp target/release/xcron "$BEFORE"
    touch src/main.rs
    cargo build --release --locked --quiet >&2 || give_up 'the program does not build'
}

upgrade() {
    local number now=$XCRON
    find_before
    XCRON=$BEFORE
    start_nodes 3
    XCRON=$now
    start_load 80
    for number in 1 2 3; do
        stop_node "$number"
        start_node "$number"
        sleep 5
    done
    XCRON=$BEFORE
    stop_node 2
    start_node 2
    XCRON=$now
    judge 0
}

power_cut() {
    local number pids=()
    start_nodes 3
    start_load 30
    for number in 1 2 3; do pids+=("$(node_pid "$number")"); done
    before_second
    kill -s KILL "${pids[@]}"
    for number in 1 2 3; do await_end "$number" "$KILL_SECS"; done
    for number in 1 2 3; do spawn_node "$number"; done
    for number in 1 2 3; do await_ready "$number"; done
    judge 1
}

power_loss() {
    local number
    check_disks
    for number in 1 2 3; do make_disk "$number"; done
    start_nodes 3
    start_load 30
    before_second
    cut_power
    for number in 1 2 3; do
        # It may have ended by itself: its disk does not write any more.
        ! is_running "$number" || signal_node "$number" KILL
        await_end "$number" "$KILL_SECS"
    done
    mount_disks
    for number in 1 2 3; do spawn_node "$number"; done
    for number in 1 2 3; do await_ready "$number"; done
    judge 1
}

grow() {
    local number step began before=1 copies bytes ideal
    start_nodes 1
    add_pending
    start_load "${XCRON_CHAOS_GROW_SECS:-180}"
    for step in 3 5 7; do
        began=$SECONDS
        for ((number = step - 1; number <= step; number++)); do start_node "$number"; done
        await_rest "$step"
        copies=$(counted xcron_snapshots_sent_total) bytes=$(counted xcron_snapshot_sent_bytes_total)
        # 32 groups of three copies: to three nodes each new one gets all, later a new node gets its share of all copies.
        ideal=$((before < 3 ? 32 * (step - before) : 32 * 3 * (step - before) / step))
        note "$step nodes even after $((SECONDS - began)) s, $(shares "$step"), so far $copies copies and $((bytes >> 20)) MiB sent (this step: $ideal are ideal)"
        before=$step
    done
    judge 0
}

drain() {
    local began
    start_nodes 4
    add_pending
    start_load 60
    began=$SECONDS
    "${HUB[@]}" "$XCRON" cluster drain "$(node_id 2)" --api "http://$(api_address 1)" >>"$NODES_DIR/bench.log" 2>&1 ||
        give_up "cluster drain fails: $(tail -n 1 "$NODES_DIR/bench.log")"
    await_end 2 "$REST_SECS" || give_up 'the drained node does not end'
    note "drained after $((SECONDS - began)) s"
    await_rest 3
    note "$(shares 3)"
    judge 0
}

# Through a network, so that connections can be refused, closed and used up as between machines.
at_most_once() {
    make_network 3
    start_nodes 3
    bench_command
    "${BENCH[@]}" --api "$(apis)" -n "${XCRON_CHAOS_ONCE:-10000}" -c 64 --delay 15 --delivery at_most_once --wait "$WAIT_SECS" \
        >"$NODES_DIR/bench.json" 2>>"$NODES_DIR/bench.log" &
    LOAD_PID=$!
    judge 0
}

NODES_DIR=$(mktemp -d "${TMPDIR:-/tmp}/xcron-chaos-XXXXXX")
NODES_DIR=$(cd "$NODES_DIR" && pwd -P)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
find_program build
case $CASE in
pause-*) pause "${CASE#pause-}" ;;
partition) partition both ;;
partition-deaf) partition in ;;
partition-mute) partition out ;;
*) "${CASE//-/_}" ;;
esac
