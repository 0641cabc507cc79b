# The load of scripts/chaos.sh and the judgement of what it saw. Sourced by it.
# shellcheck shell=bash

apis() {
    local number count list=
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do list+="${list:+,}http://$(api_address "$number")"; done
    printf '%s\n' "$list"
}

# Sets BENCH: the command, where the clients are.
bench_command() {
    local sink=127.0.0.1:0
    [ -z "$NET" ] || sink=10.203.77.254:0
    BENCH=("${HUB[@]}" "$XCRON" bench --sink "$sink" --no-probes --json)
}

bench() {
    bench_command
    "${BENCH[@]}" "$@" 2>>"$NODES_DIR/bench.log"
}

# Loads all nodes of now for $1 seconds, in the background.
start_load() {
    bench_command
    # Not through the function, so that the pid is the bench's own.
    "${BENCH[@]}" --api "$(apis)" -n $((RATE * $1)) -c 64 --rate "$RATE" --delay "$DELAY_SECS" --wait "$WAIT_SECS" \
        >"$NODES_DIR/bench.json" 2>>"$NODES_DIR/bench.log" &
    LOAD_PID=$!
    sleep "$WARM_SECS"
}

add_pending() {
    bench --api "$(apis)" -n "$PENDING" -c 256 --pending >"$NODES_DIR/pending.json" || give_up 'the pending tasks were not taken'
}

# A number of the bench's report; $2 names the object that it is in, if its name is not unique.
figure() {
    tr ',' '\n' <"$NODES_DIR/bench.json" | tr '{' '\n' | tr '}' '\n' | awk -v key="\"$1\":" -v within="${2:+\"$2\":}" '
        within != "" && index($0, within) == 1 { within = "" }
        within == "" && index($0, key) == 1 { print substr($0, length(key) + 1); exit }'
}

# The sum of a counter over all nodes.
counted() {
    local number count
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do ask "http://$(api_address "$number")/metrics"; done |
        awk -v name="$1" '$1 == name { sum += $2 } END { printf "%d", sum }'
}

# Waits for the load, and prints the verdict. $1: how many faults may have made repeats.
judge() {
    local number count early missing acked repeated silence
    sleep "$AFTER_SECS"
    kill -0 "$LOAD_PID" 2>/dev/null || wrong 'the load ended before the case'
    wait "$LOAD_PID" || true
    LOAD_PID=
    acked=$(figure acked) missing=$(figure missing) early=$(figure early) repeated=$(figure repeated)
    [ -n "$repeated" ] || give_up "the bench has no report: $(tail -n 1 "$NODES_DIR/bench.log")"
    silence=$(figure max lateness_ms)
    [ "$acked" -gt 0 ] || wrong 'nothing was created'
    [ "$missing" = 0 ] || wrong 'callbacks are missing'
    [ "$early" = 0 ] || wrong 'callbacks came early'
    [ "$(figure refired)" = 0 ] || wrong "$(figure refired) dues fired as two fires"
    [ "$(figure refused_called)" = 0 ] || wrong "$(figure refused_called) refused creates fired"
    [ "$(figure strange)" = 0 ] || wrong "$(figure strange) strange callbacks"
    [ "$repeated" -le $(($1 * RATE)) ] || wrong "at most $(($1 * RATE)) repeats are due to $1 faults"
    note "$(figure unknown) creates unknown, $(figure not_tried) not tried, lateness p99 $(figure p99 lateness_ms) ms"
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        is_running "$number" || continue
        is_ready "$number" || wrong "node $number is not ready afterwards"
        bench --api "http://$(api_address "$number")" -n 20 -c 4 --delay 2 >"$NODES_DIR/after.json" ||
            wrong "node $number does not work afterwards"
    done
    print_verdict "$([ -n "$FAILED" ] && echo FAIL || echo PASS)" "$acked" "$missing" "$early" "$repeated" "${silence%.*}"
    [ -z "$FAILED" ]
}

# Tasks are due at full seconds: a fault right before one shows how long nobody fires.
before_second() {
    local micros left
    micros=${EPOCHREALTIME#*[.,]}
    left=$((960000 - 10#$micros))
    [ "$left" -ge 0 ] || left=$((left + 1000000))
    sleep "$(printf '0.%06d' "$left")"
}
