#!/usr/bin/env bash
# What happens on the machine, over two boots. The test reads what this prints.
export PATH=/opt/timonel/bin:/usr/sbin:/usr/bin:/sbin:/bin KUBECONFIG=/etc/kubernetes/admin.conf
part() { echo "=== $*"; }

# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -gt $end ]; then
            echo "timed out: $*"
            return 1
        fi
        sleep 1
    done
}

if [ ! -e /var/lib/first-boot ]; then
    touch /var/lib/first-boot
    part "cgroup file system"
    stat -fc %T /sys/fs/cgroup
    part "quick start"
    if ! TIMONEL_BIN=/test/bin /test/deploy/quickstart.sh; then
        kubectl get nodes,pods -A -o wide
        journalctl -u kubelet -n 40 --no-pager -o cat
        part "end"
        exit 1
    fi
    part "pods"
    kubectl apply -f /test/pods.yaml
    until_true 120 kubectl wait --for=condition=Ready pod/guaranteed pod/burstable --timeout=10s
    cgroups=/sys/fs/cgroup/kubepods.slice
    uid() { kubectl get pod "$1" -o 'jsonpath={.metadata.uid}' | tr - _; }
    part "guaranteed pod"
    cd "$cgroups/kubepods-pod$(uid guaranteed).slice" && head cpu.max memory.max cpu.weight
    part "guaranteed container"
    for scope in "$cgroups/kubepods-pod$(uid guaranteed).slice"/cri-containerd-*.scope; do
        (cd "$scope" && cat cpu.max memory.max)
    done
    part "burstable pod"
    cd "$cgroups/kubepods-burstable.slice/kubepods-burstable-pod$(uid burstable).slice" && head cpu.max memory.max cpu.weight
    part "seen from inside"
    kubectl exec guaranteed -- /bin/busybox cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max
    part "out of memory"
    kubectl apply -f /test/greedy.yaml
    until_true 120 sh -c 'kubectl get pod greedy -o "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}" | grep .'
    kubectl get pod greedy -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}{"\n"}'
    part "units"
    systemctl is-active kubelet containerd
    systemctl is-enabled kubelet
    systemctl show -p ExecStart --value kubelet
    part "kubelet killed"
    before=$(kubectl get pod guaranteed -o 'jsonpath={.status.containerStatuses[0].containerID}')
    pid=$(systemctl show -p MainPID --value kubelet)
    kill -9 "$pid"
    until_true 120 sh -c "systemctl is-active kubelet && [ \$(systemctl show -p MainPID --value kubelet) != $pid ]"
    until_true 120 curl -sf http://127.0.0.1:10248/healthz
    after=$(kubectl get pod guaranteed -o 'jsonpath={.status.containerStatuses[0].containerID}')
    [ "$before" = "$after" ] && echo "the same container"
    part "stats"
    kubectl get --raw /api/v1/nodes/machine/proxy/stats/summary
    echo
    part "reboot"
    sync
    systemctl reboot
else
    part "after the reboot"
    # Everything comes back without a hand.
    until_true 300 kubectl get --raw /readyz
    until_true 300 kubectl wait --for=condition=Available deployment/web --timeout=10s
    until_true 120 curl -sf -m 5 http://10.0.2.15:30080/
    curl -sf -m 5 http://10.0.2.15:30080/
    kubectl get pod guaranteed -o 'jsonpath={.status.containerStatuses[0].restartCount}{"\n"}'
    part "deleted"
    /test/deploy/quickstart.sh delete
    part "left"
    find /sys/fs/cgroup -name '*kubepods*' -type d
    iptables-save | grep -E 'KUBE|CNI'
    grep -E ' (/var/lib/kubelet|/run/netns/cni)' /proc/mounts
    ip -o link | grep -E 'veth|cni|timonel|vxlan'
    ls -d /etc/kubernetes/* /var/lib/etcd /opt/timonel /etc/systemd/system/kubelet* 2>/dev/null
    part "end"
    systemctl poweroff
fi
