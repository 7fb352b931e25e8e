#!/usr/bin/env bash
# Clusters of several nodes on this machine: each node is a host of its own (namespaces), without a virtual machine.
# Run as root on Debian.
#
#   deploy/local.sh start [--name NAME] [--nodes N]   make a cluster, or start a stopped one; more nodes join it
#   deploy/local.sh status [--name NAME]              its nodes and Pods
#   deploy/local.sh stop [--name NAME]                stop everything, keep the data
#   deploy/local.sh delete [--name NAME]              stop everything and remove all of it
#   deploy/local.sh list                              the clusters of this machine
#   deploy/local.sh shell [--name NAME] NODE [LINE]   a shell on a node, or one line of it
#
# NAME is `local` unless told otherwise, and N is 1. Several clusters live side by side. `kubectl` finds each under the
# context timonel-NAME (in $KUBECONFIG or ~/.kube/config), which `start` makes the current one.
#
# TIMONEL_BIN     directory of built programs; without it they are built (cargo build --release)
# TIMONEL_LOCAL   directory for all that is kept; /var/lib/timonel-local if unset
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/machine.sh
source "$here/deploy/machine.sh"

state=${TIMONEL_LOCAL:-/var/lib/timonel-local}
name=local
nodes=1

fail() { echo "$*" >&2; exit 1; }
directory() { echo "$state/$name/$1"; }
bridge() { echo "timonel$(cat "$state/$name/network")"; }
network() { echo "10.213.$(cat "$state/$name/network")"; }
known_nodes() { find "$state/$name" -mindepth 1 -maxdepth 1 -type d -name "$name-*" -printf '%f\n' | sort -t- -k2 -V; }
need() { [ -d "$state/$name" ] || fail "there is no cluster \"$name\""; }

# The first process of a node, if it lives: another may have got its number.
first_process() { # NODE
    local pid namespace
    read -r pid namespace 2>/dev/null <"$(directory "$1")/process" || return 1
    [ "$(readlink "/proc/$pid/ns/net")" = "$namespace" ] && echo "$pid"
}

on() { # NODE PROGRAM ARGUMENT...
    local pid
    pid=$(first_process "$1") || fail "node $1 does not run"
    shift
    nsenter -t "$pid" -m -u -n -p -C -- env -i "PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        HOME=/root "TERM=${TERM:-dumb}" KUBECONFIG="$kubeconfig" "$@"
}
# A part of this script, on a node.
there() { # NODE PART ARGUMENT...
    local node=$1
    shift
    on "$node" bash "$here/deploy/local.sh" "--there" "$@"
}

# The first network that neither a cluster nor this machine uses.
claim_network() {
    local number
    for number in $(seq 0 255); do
        if ip route show to match "10.213.$number.0/24" | grep -q "^10\.213\.$number\." || ip link show "timonel$number" >/dev/null 2>&1 ||
            cat "$state"/*/network 2>/dev/null | grep -qx "$number"; then continue; fi
        echo "$number" >"$state/$name/network"
        return
    done
    fail "10.213.0.0/16 has no free network"
}

rules() { # -C, -I or -D
    local net
    net=$(network).0/24
    iptables -w -t nat "$1" POSTROUTING -s "$net" ! -d "$net" -m comment --comment timonel-local -j MASQUERADE 2>/dev/null &&
        iptables -w "$1" FORWARD -s "$net" -m comment --comment timonel-local -j ACCEPT 2>/dev/null &&
        iptables -w "$1" FORWARD -d "$net" -m comment --comment timonel-local -j ACCEPT 2>/dev/null
}

plug_network() {
    local link
    link=$(bridge)
    if ! ip link show "$link" >/dev/null 2>&1; then
        ip link add "$link" type bridge
        ip address add "$(network).254/24" dev "$link"
        ip link set "$link" up
    fi
    sysctl -qw net.ipv4.ip_forward=1
    rules -C || rules -I
}

# Control groups of a node. systemd is asked for them where it keeps them.
groups() { # NODE
    awk '$3 == "cgroup" { print $2 }' /proc/mounts | sed "s|\$|/timonel-$1|"
}
make_groups() { # NODE
    local group file
    for group in $(groups "$1"); do
        mkdir -p "$group"
        for file in cpuset.cpus cpuset.mems; do
            if [ -f "$group/$file" ]; then cat "${group%/*}/$file" >"$group/$file"; fi
        done
    done
}
remove_groups() { # NODE
    local group
    for group in $(groups "$1"); do
        [ -d "$group" ] || continue
        until_true 5 "control groups to be empty" bash -c "find $group -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d $group ]"
    done
}

boot() { # NODE NUMBER
    local node=$1 number=$2 where outer pid port scope=()
    where=$(directory "$node")
    first_process "$node" >/dev/null && return
    mkdir -p "$where/opt/timonel"
    # The programs are the same for all nodes; a link costs nothing.
    rm -rf "$where/opt/timonel/bin"
    if ! cp -al "$bin" "$where/opt/timonel/bin" 2>/dev/null; then
        rm -rf "$where/opt/timonel/bin"
        cp -a "$bin" "$where/opt/timonel/bin"
    fi
    rm -f "$where/ready" "$where/resolv.conf"
    grep -v '^nameserver 127\.' /etc/resolv.conf >"$where/resolv.conf" || true
    make_groups "$node"
    if [ -z "$(groups "$node")" ] && [ -d /run/systemd/system ]; then
        scope=(systemd-run --quiet --scope --unit "timonel-$node" -p Delegate=yes)
    fi
    # shellcheck disable=SC2016
    setsid "${scope[@]}" bash -c 'for group in $1; do echo $$ >"$group/cgroup.procs"; done; shift; exec "$@"' boot "$(groups "$node")" \
        unshare --mount --uts --net --pid --cgroup --fork --kill-child --mount-proc --propagation private \
        bash "$here/deploy/host.sh" "$where" "$node" "$(network).$number/24" "$(network).254" >"$where/host.log" 2>&1 </dev/null &
    outer=$!
    pid=
    until_true 10 "node $node" pgrep -f "host.sh $where $node " -P "$outer"
    pid=$(pgrep -f "host.sh $where $node " -P "$outer" | head -n 1)
    echo "$pid $(readlink "/proc/$pid/ns/net")" >"$where/process"
    port=$(bridge)-$number
    ip link delete "$port" 2>/dev/null || true
    ip link add "$port" type veth peer name eth0 netns "$pid"
    ip link set "$port" master "$(bridge)" up
    until_true 10 "node $node" test -e "$where/ready"
}

# Has the cluster's certificates in the user's file, under a context of its own.
add_context() {
    local admin work context=timonel-$name
    admin=$state/$name/admin.conf
    work=$(mktemp -d)
    on "$name-1" cat "$kubeconfig" >"$admin.new"
    chmod 0600 "$admin.new"
    mv "$admin.new" "$admin"
    value() { "$bin/kubectl" --kubeconfig "$admin" config view --raw -o "jsonpath={$1}"; }
    value '.clusters[0].cluster.certificate-authority-data' | base64 -d >"$work/ca"
    (umask 077; value '.users[0].user.client-key-data' | base64 -d >"$work/key")
    value '.users[0].user.client-certificate-data' | base64 -d >"$work/certificate"
    {
        "$bin/kubectl" config set-cluster "$context" --server "https://$(network).1:6443" --certificate-authority "$work/ca" --embed-certs
        "$bin/kubectl" config set-credentials "$context" --client-certificate "$work/certificate" --client-key "$work/key" --embed-certs
        "$bin/kubectl" config set-context "$context" --cluster "$context" --user "$context"
        "$bin/kubectl" config use-context "$context"
    } >/dev/null
    rm -rf "$work"
}
remove_context() {
    local context=timonel-$name
    if [ "$("$bin/kubectl" config current-context 2>/dev/null)" = "$context" ]; then "$bin/kubectl" config unset current-context; fi
    "$bin/kubectl" config delete-context "$context"
    "$bin/kubectl" config delete-cluster "$context"
    "$bin/kubectl" config delete-user "$context"
} >/dev/null 2>&1

ready_nodes() { # COUNT
    [ "$("$bin/kubectl" --kubeconfig "$state/$name/admin.conf" get nodes --no-headers | grep -cw Ready)" -ge "$1" ]
}

start() {
    local number node wanted
    install_packages
    build
    mkdir -p "$state/$name"
    [ -f "$state/$name/network" ] || claim_network
    plug_network
    wanted=$(known_nodes | wc -l)
    [ "$nodes" -le "$wanted" ] || wanted=$nodes
    for number in $(seq "$wanted"); do boot "$name-$number" "$number"; done
    there "$name-1" up
    add_context
    local joining=() process
    for number in $(seq 2 "$wanted"); do
        node=$name-$number
        if [ ! -f "$(directory "$node")/etc/kubernetes/kubelet.conf" ]; then
            there "$node" join "$(on "$name-1" kubeadm token create --ttl 30m --print-join-command)" >"$(directory "$node")/join.log" 2>&1 &
        else
            there "$node" up >"$(directory "$node")/join.log" 2>&1 &
        fi
        joining+=($!)
    done
    for process in "${joining[@]}"; do
        wait "$process" || { cat "$state/$name"/*/join.log >&2; fail "a node did not join"; }
    done
    until_true 120 "$wanted ready nodes" ready_nodes "$wanted"
    say "kubectl's context is timonel-$name ($bin/kubectl)"
}

stop_nodes() {
    local node pid
    for node in $(known_nodes | tac); do
        if pid=$(first_process "$node"); then
            there "$node" down || true
            # With its first process all others of the node end.
            kill -KILL "$pid"
            until_true 10 "node $node to end" bash -c "! kill -0 $pid"
        fi
        remove_groups "$node"
        rm -f "$(directory "$node")/process"
    done
}

unplug_network() {
    [ -f "$state/$name/network" ] || return 0
    while rules -D; do :; done
    ip link delete "$(bridge)" 2>/dev/null || true
}

list() {
    local cluster node running
    printf '%-20s %-8s %s\n' NAME NODES STATE
    for cluster in "$state"/*/; do
        [ -d "$cluster" ] || continue
        name=$(basename "$cluster") running=0
        for node in $(known_nodes); do
            if first_process "$node" >/dev/null; then running=$((running + 1)); fi
        done
        printf '%-20s %-8s %s\n' "$name" "$(known_nodes | wc -l)" "$([ "$running" = 0 ] && echo stopped || echo running)"
    done
}

# What runs on the nodes themselves.
part() {
    case $1 in
    up)
        start_containerd
        init
        until_true 60 "the kubelet" curl -sf -m 2 http://127.0.0.1:10248/healthz
        ;;
    join)
        local arguments
        read -ra arguments <<<"$2"
        start_containerd
        "${arguments[@]}" --cri-socket "unix://$socket" --ignore-preflight-errors=all
        ;;
    down) stop ;;
    esac
}

[ "$(id -u)" = 0 ] || fail "run as root"
[ "${1:-}" != --there ] || { part "${@:2}"; exit; }
command=${1:-}
shift || true
rest=()
while [ $# -gt 0 ]; do
    case $1 in
    --name | --nodes) [ $# -gt 1 ] || fail "$1 needs a value"; declare "${1#--}=$2"; shift 2 ;;
    --name=* | --nodes=*) declare "${1#--}"; shift ;;
    *) rest+=("$1"); shift ;;
    esac
done
[[ $name =~ ^[a-z]([a-z0-9]{0,18}[a-z0-9])?$ ]] || fail "a name has up to 20 lower-case letters and digits, a letter first"
[[ $nodes =~ ^[1-9][0-9]?$ ]] || fail "1 to 99 nodes"
case $command in
start) start ;;
status) need; "$bin/kubectl" --kubeconfig "$state/$name/admin.conf" get nodes,pods -A -o wide ;;
stop) need; stop_nodes; unplug_network ;;
delete) need; stop_nodes; unplug_network; remove_context || true; rm -rf "${state:?}/$name" ;;
list) list ;;
shell) need; on "${rest[0]:-$name-1}" bash ${rest[1]:+-c "${rest[1]}"} ;;
*) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
