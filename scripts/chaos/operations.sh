# What an operator does to a living cluster, in random order and under load, for scripts/chaos.sh: restarts, a node away
# while others restart, a lost disk, growth, shrinking, a lost majority, with `kill -9` in between. Watches how many voters the groups have.
# Sourced by scripts/chaos.sh.
# shellcheck shell=bash

# Seconds after which the copies of a dead node are made elsewhere, so that a round sees it.
REPLACE_SECS=15
# Seconds of load in a round at the most; a round ends when its load has.
ROUND_SECS=${XCRON_CHAOS_ROUND_SECS:-40}
ROUNDS=${XCRON_CHAOS_ROUNDS:-20}

WATCH_PID=
# Looks at the groups all the time, and writes down the fewest voters that it saw: `time group voters` when there are fewer
# than $1. A group without a leader that is known says nothing.
watch_voters() {
    local least=$1 file=$NODES_DIR/too-few-voters number count
    : >"$file"
    (
        trap - EXIT INT TERM
        while sleep 0.2; do
            count=$(node_count)
            for ((number = 1; number <= count; number++)); do
                if ! is_running "$number" || is_paused "$number"; then continue; fi
                ask "http://$(api_address "$number")/v1/cluster" | tr -d ' \t\n' | tr '{' '\n' |
                    awk -v least="$least" -v at="$(date +%T) node $number:" "$(cat "$VIEW")"'
                        /"group":/ { if (text("leader") != "") { n = ids("voters", list)
                            if (n > 0 && n < least) print at, $0 } }'
            done >>"$file"
        done
    ) &
    WATCH_PID=$!
}

end_watch() {
    [ -z "$WATCH_PID" ] || kill "$WATCH_PID" 2>/dev/null || true
    [ -z "$WATCH_PID" ] || wait "$WATCH_PID" 2>/dev/null || true
    WATCH_PID=
}

# The numbers of the nodes that run, in random order.
running() {
    local number count
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do ! is_running "$number" || printf '%d %d\n' $((RANDOM)) "$number"; done |
        sort -n | cut -d' ' -f2
}

one_of() { printf '%s\n' "$@" | head -n 1; }

# Up to $1 tenths of a second.
pause_up_to() { sleep "$(printf '%d.%d' $((RANDOM % $1 / 10)) $((RANDOM % 10)))"; }

# Ends a node in good order, or one time in three with kill -9.
end_node() {
    if [ $((RANDOM % 3)) = 0 ]; then kill_node "$1"; else stop_node "$1"; fi
}

# Each node in turn, in any order.
round_restarts() {
    local number
    for number in $(running); do
        end_node "$number"
        pause_up_to 30
        start_node "$number"
        pause_up_to 60
    done
}

# One is away for maintenance while the others restart, and comes back.
round_one_away() {
    local nodes away number
    mapfile -t nodes < <(running)
    away=${nodes[0]}
    end_node "$away"
    pause_up_to 30
    for number in "${nodes[@]:1}"; do
        # A majority stays: one is away already, so this one comes back first.
        end_node "$number"
        start_node "$number"
        pause_up_to 80
    done
    start_node "$away"
}

# A node loses its disk and comes back with the same command line.
round_lost_disk() {
    local number
    number=$(one_of $(running))
    kill_node "$number"
    rm -rf "$(data_dir "$number")"
    pause_up_to 30
    start_node "$number"
}

round_grow() { start_node $(($(node_count) + 1)); }

# A node leaves for good, unless there are three left.
round_shrink() {
    local nodes
    mapfile -t nodes < <(running)
    if [ "${#nodes[@]}" -le 3 ]; then
        round_grow
        await_rest $((${#nodes[@]} + 1))
    fi
    leave "${nodes[0]}" "${nodes[1]}"
}

# Node $1 is drained through node $2.
leave() {
    "${HUB[@]}" "$XCRON" cluster drain "$(node_id "$1")" --api "http://$(api_address "$2")" \
        >>"$NODES_DIR/bench.log" 2>&1 || give_up "cluster drain fails: $(tail -n 1 "$NODES_DIR/bench.log")"
    await_end "$1" "$REST_SECS" || give_up 'the drained node does not end'
}

# Two of three are lost for good, with their disks: the third goes on alone, and new nodes join it. What it holds must not be
# lost, so the load has come to rest by then; only its dues are still to come.
round_lost_majority() {
    local nodes other
    mapfile -t nodes < <(running)
    while [ "${#nodes[@]}" -gt 3 ]; do
        leave "${nodes[0]}" "${nodes[1]}"
        mapfile -t nodes < <(running)
    done
    await_rest 3
    start_round_load 6 30
    sleep 6
    end_watch
    for other in "${nodes[@]}"; do kill_node "$other"; done
    for other in "${nodes[@]:1}"; do rm -rf "$(data_dir "$other")"; done
    "$XCRON" recover --as-sole-voter --yes --data "$(data_dir "${nodes[0]}")" >>"$NODES_DIR/bench.log" 2>&1 ||
        give_up "recover fails: $(tail -n 1 "$NODES_DIR/bench.log")"
    start_node "${nodes[0]}"
    pause_up_to 20
    for other in "${nodes[@]:1}"; do start_node "$other"; done
    await_rest 3
    watch_voters 3
}

# In the middle of something else: any node, and it is started again.
round_kill() {
    local number
    number=$(one_of $(running))
    before_second
    kill_node "$number"
    pause_up_to 30
    start_node "$number"
}

# The nodes that run, as the load's list.
running_apis() {
    local number list=
    for number in $(running); do list+="${list:+,}http://$(api_address "$number")"; done
    printf '%s\n' "$list"
}

# The load of one round, for $1 seconds, each task due after $2: only through the nodes that run now. Those that leave
# meanwhile refuse.
start_round_load() {
    bench_command
    "${BENCH[@]}" --api "$(running_apis)" -n $((RATE * $1)) -c 64 --rate "$RATE" --delay "$2" \
        --wait "$WAIT_SECS" >"$NODES_DIR/bench.json" 2>>"$NODES_DIR/bench.log" &
    LOAD_PID=$!
    sleep 3
}

# What is not to be in the report of a round.
judge_round() {
    local why
    wait "$LOAD_PID" || true
    LOAD_PID=
    [ -n "$(figure repeated)" ] || give_up "the bench has no report: $(tail -n 1 "$NODES_DIR/bench.log")"
    for why in missing early refired refused_called strange; do
        [ "$(figure $why)" = 0 ] || wrong "round $1 ($2): $(figure $why) $why"
    done
    [ "$(figure acked)" -gt 0 ] || wrong "round $1 ($2): nothing was created"
    ACKED=$((ACKED + $(figure acked)))
    REPEATED=$((REPEATED + $(figure repeated)))
    printf 'round %d of %d: %s: %s acknowledged, %s missing, %s early, %s repeated, longest %s ms\n' "$1" "$ROUNDS" "$2" \
        "$(figure acked)" "$(figure missing)" "$(figure early)" "$(figure repeated)" "$(figure max lateness_ms)" >&2
}

operations() {
    local round kind kinds=(restarts one_away lost_disk grow shrink lost_majority) order=() seed=${XCRON_CHAOS_SEED:-$((RANDOM * 32768 + RANDOM))}
    RANDOM=$seed
    ACKED=0 REPEATED=0
    SERVE=(--replace-after-secs "$REPLACE_SECS")
    start_nodes 3
    watch_voters 3
    for ((round = 1; round <= ROUNDS; round++)); do
        # Each kind once before any comes again.
        [ "${#order[@]}" -gt 0 ] || mapfile -t order < <(for kind in "${kinds[@]}"; do printf '%d %s\n' $((RANDOM)) "$kind"; done |
            sort -n | cut -d' ' -f2)
        kind=${order[0]}
        order=("${order[@]:1}")
        [ "$kind" = lost_majority ] || start_round_load "$ROUND_SECS" "$DELAY_SECS"
        "round_$kind"
        [ $((RANDOM % 2)) = 0 ] || round_kill
        judge_round "$round" "$kind"
        await_rest "$(running | wc -l)"
    done
    end_watch
    [ ! -s "$NODES_DIR/too-few-voters" ] ||
        wrong "fewer than 3 voters were seen $(wc -l <"$NODES_DIR/too-few-voters") times, first: $(head -c 300 "$NODES_DIR/too-few-voters" | head -n 1)"
    note "$ROUNDS rounds, seed $seed"
    print_verdict "$([ -n "$FAILED" ] && echo FAIL || echo PASS)" "$ACKED" - - "$REPEATED" -
    [ -z "$FAILED" ]
}
