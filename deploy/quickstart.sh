#!/usr/bin/env bash
# A cluster of one node on this machine, with the embedded store. Run as root on Debian.
#
#   deploy/quickstart.sh          install what is missing, build, start the cluster, run the example, show that it answers
#   deploy/quickstart.sh status   what runs
#   deploy/quickstart.sh stop     stop everything, keep the data
#   deploy/quickstart.sh start    start again after stop
#   deploy/quickstart.sh delete   stop everything and remove all of it
#
# TIMONEL_BIN   directory of built programs; without it they are built (cargo build --release)
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/machine.sh
source "$here/deploy/machine.sh"
kubectl() { "$bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

example() {
    say "kubectl apply -f deploy/examples/deploy.yaml"
    kubectl apply --server-side -f "$here/deploy/examples/deploy.yaml"
    until_true 180 "three ready Pods" bash -c \
        "$bin/kubectl --kubeconfig $kubeconfig get deployment web --no-headers | grep -q ' 3/3 '"
    kubectl get deployments,pods,services -o wide
    local cluster_ip node_ip dns_ip
    cluster_ip=$(kubectl get service web --no-headers | awk '{print $3}')
    node_ip=$(kubectl get nodes -o wide --no-headers | awk '{print $6}')
    dns_ip=$(kubectl get service kube-dns -n kube-system --no-headers | awk '{print $3}')
    say "the Service answers"
    until_true 30 "the cluster IP" curl -sf -m 2 "http://$cluster_ip/"
    echo "http://$cluster_ip/ (cluster IP): $(curl -sf -m 5 "http://$cluster_ip/")"
    until_true 30 "the node port" curl -sf -m 2 "http://$node_ip:30080/"
    echo "http://$node_ip:30080/ (node port): $(curl -sf -m 5 "http://$node_ip:30080/")"
    until_true 60 "cluster DNS" busybox nslookup web.default.svc.cluster.local "$dns_ip"
    local resolv
    resolv=$(mktemp)
    echo "nameserver $dns_ip" >"$resolv"
    echo "http://web.default.svc.cluster.local/ (name): $(unshare --mount bash -c \
        "mount --bind $resolv /etc/resolv.conf && curl -sf -m 5 http://web.default.svc.cluster.local/")"
    rm -f "$resolv"
    say "export KUBECONFIG=$kubeconfig PATH=$bin:\$PATH"
}

# Chains that the kubelet keeps, in every table and family that has them.
remove_kubelet_rules() {
    local tool table chain
    for tool in iptables ip6tables; do
        for table in mangle nat filter; do
            for chain in KUBE-FIREWALL KUBE-KUBELET-CANARY KUBE-IPTABLES-HINT; do
                if ! $tool -w -t $table -S $chain >/dev/null 2>&1; then continue; fi
                for hook in INPUT OUTPUT; do
                    $tool -w -t $table -D $hook -j $chain 2>/dev/null || true
                done
                $tool -w -t $table -F $chain
                $tool -w -t $table -X $chain
            done
        done
    done
}

delete() {
    if [ -x "$bin/kubeadm" ]; then
        start_containerd
        "$bin/kubeadm" reset --force --cleanup-tmp-dir
        "$bin/kube-proxy" --cleanup
        ctr -a "$socket" -n k8s.io images ls -q | xargs -r ctr -a "$socket" -n k8s.io images rm >/dev/null
    fi
    stop
    if [ -d /run/systemd/system ]; then
        if grep -qs "^ExecStart=$bin/" /etc/systemd/system/kubelet.service.d/10-kubeadm.conf; then
            systemctl -q disable kubelet
            rm -rf /etc/systemd/system/kubelet.service /etc/systemd/system/kubelet.service.d
            systemctl daemon-reload
        fi
        systemctl stop kubepods.slice
        if grep -qs "^$mark" /etc/containerd/config.toml; then
            sed -i "\\|^$mark\$|,\\|^$mark, end\$|d" /etc/containerd/config.toml
            systemctl restart containerd
        fi
    fi
    remove_kubelet_rules
    if ip link show cni0 >/dev/null 2>&1; then ip link delete cni0; fi
    rmdir --ignore-fail-on-non-empty /etc/kubernetes/manifests /etc/kubernetes/pki 2>/dev/null || true
    rm -rf "$prefix" /var/lib/timonel/store /var/lib/timonel/local-path /var/lib/timonel/logs /var/log/timonel-logs /etc/cni/net.d/10-timonel.conflist
}

status() {
    kubectl get nodes -o wide
    kubectl get pods -A -o wide
}

[ "$(id -u)" = 0 ] || { echo "run as root" >&2; exit 1; }
case ${1:-up} in
up)
    install_packages
    build
    start_containerd
    init
    until_true 120 "a ready node" bash -c \
        "$bin/kubectl --kubeconfig $kubeconfig get nodes | grep -qw Ready"
    import_example
    example
    ;;
start)
    start_containerd
    init
    until_true 120 "the API" "$bin/kubectl" --kubeconfig "$kubeconfig" get --raw /readyz
    ;;
status) status ;;
stop) stop ;;
delete) delete ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
