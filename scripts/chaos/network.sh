# Where the nodes of scripts/chaos.sh are: on loopback, or in a network namespace each, with one for the clients. Owns the
# namespaces and what is cut between them. Sourced by scripts/chaos.sh.
# shellcheck shell=bash

# Words before a client's command, so that it runs where the clients are.
HUB=()
NET=
api_address() {
    if [ -n "$NET" ]; then printf '10.203.77.%d:8000\n' "$1"; else printf '127.0.0.1:%d\n' $((BASE_PORT + $1 - 1)); fi
}
peer_address() {
    if [ -n "$NET" ]; then printf '10.203.77.%d:8100\n' "$1"; else printf '127.0.0.1:%d\n' $((BASE_PORT + 99 + $1)); fi
}
node_prefix() {
    PREFIX=()
    [ -z "$NET" ] || PREFIX=(ip netns exec "$NET-$1")
}
SERVE=()
node_arguments() {
    ARGUMENTS=("${SERVE[@]}")
    [ -z "$NET" ] || ARGUMENTS+=(--allow-remote)
}

SPACES=()
add_space() {
    ip netns add "$1"
    SPACES+=("$1")
    ip -n "$1" link set lo up
}

# Namespaces for $1 nodes around a bridge in one for the clients. Nothing of it shows outside of them.
make_network() {
    local number node
    [ "$(id -u)" = 0 ] || skip 'network namespaces need root'
    command -v ip >/dev/null || skip 'the program ip (iproute2) is missing'
    command -v nft >/dev/null || skip 'the program nft (nftables) is missing'
    NET=xcron-chaos-$$
    add_space "$NET-hub"
    ip -n "$NET-hub" link add hub type bridge
    ip -n "$NET-hub" addr add 10.203.77.254/24 dev hub
    ip -n "$NET-hub" link set hub up
    for ((number = 1; number <= $1; number++)); do
        node=$NET-$number
        add_space "$node"
        ip -n "$NET-hub" link add "port$number" type veth peer name node netns "$node"
        ip -n "$NET-hub" link set "port$number" master hub up
        ip -n "$node" addr add "10.203.77.$number/24" dev node
        ip -n "$node" link set node up
    done
    HUB=(ip netns exec "$NET-hub")
}

# Cuts node $1 off from the other nodes: $2 is `both`, `in` or `out`, seen from it. Clients still reach it.
cut_off() {
    local others='10.203.77.1-10.203.77.199'
    {
        printf 'table inet chaos {\n'
        [ "$2" = out ] || printf 'chain in { type filter hook input priority 0; ip saddr %s ip saddr != %s drop; }\n' \
            "$others" "10.203.77.$1"
        [ "$2" = in ] || printf 'chain out { type filter hook output priority 0; ip daddr %s ip daddr != %s drop; }\n' \
            "$others" "10.203.77.$1"
        printf '}\n'
    } | ip netns exec "$NET-$1" nft -f -
}

reconnect() { ip netns exec "$NET-$1" nft delete table inet chaos; }
