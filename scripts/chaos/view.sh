# What the cluster of scripts/chaos.sh says of itself: who leads most, and whether it has come to rest. Sourced by it.
# shellcheck shell=bash

VIEW=scripts/chaos/view.awk

# All of /v1/cluster of the first node that answers, as lines of one node or one group each.
cluster_lines() {
    local number count answer
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        if ! is_running "$number" || is_paused "$number"; then continue; fi
        answer=$(ask "http://$(api_address "$number")/v1/cluster")
        case $answer in *'"groups"'*) printf '%s\n' "$answer" | tr -d ' \t\n' | tr '{' '\n' && return ;; esac
    done
}

# The number of the node that leads most groups.
busiest() {
    local address number count
    address=$(cluster_lines | awk "$(cat "$VIEW")"'
        END { for (id in led) if (led[id] > most) { most = led[id]; who = id } print api[who] }')
    count=$(node_count)
    for ((number = 1; number <= count; number++)); do
        [ "$(api_address "$number")" != "$address" ] || { printf '%d\n' "$number" && return; }
    done
    return 1
}

node_id() {
    cluster_lines | awk -v wanted="$(api_address "$1")" "$(cat "$VIEW")"'
        END { for (id in api) if (api[id] == wanted) print id }'
}

# One line: `rest` or why not, for a cluster of $1 live nodes; even means within 10 %, up to the next whole group.
unrest() {
    cluster_lines | awk -v nodes="$1" "$(cat "$VIEW")"'
        function uneven(count, total,   mean, low, high) {
            mean = total / nodes
            low = int(mean * 0.9)
            high = mean * 1.1
            if (high > int(high)) high = int(high) + 1
            return count < low || count > high
        }
        END {
            if (!groups) { print "no answer"; exit }
            if (alive != nodes) { print alive + 0 " of " nodes " nodes alive"; exit }
            if (unled) { print unled " groups without a leader"; exit }
            if (moving) { print moving " groups are not where they should be"; exit }
            for (id in api) {
                if (uneven(led[id], groups)) { print api[id] " leads " led[id] + 0 " of " groups " groups"; exit }
                if (uneven(held[id], all_copies)) { print api[id] " holds " held[id] + 0 " of " all_copies " copies"; exit }
            }
            print "rest"
        }'
}

# How even it is: the fewest and the most groups that a node leads, and copies that it holds.
shares() {
    cluster_lines | awk -v nodes="$1" "$(cat "$VIEW")"'
        END {
            least_led = least_held = groups * nodes
            for (id in api) {
                if (led[id] + 0 < least_led) least_led = led[id] + 0
                if (led[id] > most_led) most_led = led[id]
                if (held[id] + 0 < least_held) least_held = held[id] + 0
                if (held[id] > most_held) most_held = held[id]
            }
            printf "a node leads %d-%d (mean %.1f) and holds %d-%d (mean %.1f)", least_led, most_led, groups / nodes,
                least_held, most_held, all_copies / nodes
        }'
}

# Waits until $1 nodes live and all is led, where it should be, and even.
await_rest() {
    local why deadline=$((SECONDS + REST_SECS))
    until why=$(unrest "$1") && [ "$why" = rest ]; do
        [ "$SECONDS" -lt "$deadline" ] || give_up "not at rest after $REST_SECS s: $why"
        sleep 0.5
    done
}
