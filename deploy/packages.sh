#!/usr/bin/env bash
# Debian packages of the components, with their systemd units and completions.
#
#   deploy/packages.sh PROGRAMS OUTPUT   PROGRAMS is a directory of built programs (target/release), OUTPUT one for the packages
#
# COMPRESSION   how dpkg-deb packs them: xz, the default, gzip or none
set -euo pipefail

[ $# = 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
programs=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
version=$("$programs/kubectl" version --client -o yaml | sed -n 's/^ *gitVersion: v//p')
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# put FILE PLACE [MODE]: a file of the package that is being made.
put() { install -D -m "${3:-0755}" "$1" "$work/tree$2"; }

# A unit for those who run a component without kubeadm. Its arguments are in /etc/default.
unit() { # PROGRAM
    mkdir -p "$work/tree/usr/lib/systemd/system"
    cat >"$work/tree/usr/lib/systemd/system/$1.service" <<UNIT
[Unit]
Description=$1 of Kubernetes
Documentation=https://kubernetes.io/docs/reference/command-line-tools-reference/$1/
Wants=network-online.target
After=network-online.target

[Service]
EnvironmentFile=-/etc/default/$1
ExecStart=/usr/bin/$1 \$DAEMON_ARGS
Restart=always
RestartSec=5
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p "$work/tree/etc/default"
    cat >"$work/tree/etc/default/$1" <<DEFAULT
# Arguments of $1. The unit is not enabled by the package: kubeadm runs this component as a Pod.
DAEMON_ARGS=""
DEFAULT
}

# script FILE LINE: a script of the package, for where systemd runs.
script() {
    printf '#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then %s; fi\n' "$2" >"$1"
    chmod 0755 "$1"
}

# pack NAME DEPENDS TEXT: makes the package of what was put.
pack() {
    local control=$work/tree/DEBIAN
    mkdir -p "$control"
    {
        echo "Package: $1"
        echo "Version: $version"
        echo "Architecture: $architecture"
        echo "Maintainer: The Timonel authors <timonel@localhost>"
        echo "Section: admin"
        echo "Priority: optional"
        echo "Installed-Size: $(du -sk "$work/tree" | cut -f 1)"
        [ -z "$2" ] || echo "Depends: $2"
        echo "Description: $3"
    } >"$control/control"
    if [ -d "$work/tree/etc" ]; then (cd "$work/tree" && find etc -type f -printf '/%p\n') >"$control/conffiles"; fi
    local systemd="systemctl daemon-reload"
    if [ -d "$work/tree/usr/lib/systemd" ]; then
        script "$control/postrm" "$systemd"
        if [ "$1" = kubelet ]; then systemd+=" && systemctl -q enable kubelet"; fi
        if [ "$1" = kubeadm ]; then systemd+=" && { systemctl restart systemd-modules-load systemd-sysctl || true; }"; fi
        script "$control/postinst" "$systemd"
    fi
    dpkg-deb --root-owner-group -Z"${COMPRESSION:-xz}" --build "$work/tree" "$output/${1}_${version}_$architecture.deb" >/dev/null
    rm -rf "$work/tree"
    echo "$output/${1}_${version}_$architecture.deb"
}

for component in kube-apiserver kube-controller-manager kube-scheduler; do
    put "$programs/$component" "/usr/bin/$component"
    unit "$component"
    pack "$component" "libc6" "$component of Kubernetes"
done

put "$programs/kube-proxy" /usr/bin/kube-proxy
unit kube-proxy
pack kube-proxy "libc6, iptables, conntrack" "Network proxy of Kubernetes"

put "$programs/kubectl" /usr/bin/kubectl
"$programs/kubectl" completion bash >"$work/completion"
put "$work/completion" /usr/share/bash-completion/completions/kubectl 0644
"$programs/kubectl" completion zsh >"$work/completion"
put "$work/completion" /usr/share/zsh/vendor-completions/_kubectl 0644
"$programs/kubectl" completion fish >"$work/completion"
put "$work/completion" /usr/share/fish/vendor_completions.d/kubectl.fish 0644
pack kubectl "libc6" "Command line of Kubernetes"

put "$programs/kubelet" /usr/bin/kubelet
put "$here/systemd/kubelet.service" /usr/lib/systemd/system/kubelet.service 0644
pack kubelet "libc6, containerd | containerd.io | cri-o, containernetworking-plugins | kubernetes-cni, iptables, iproute2, mount, util-linux" \
    "Node agent of Kubernetes"

for program in pod-network cluster-dns local-path timonel-metrics timonel-ingress timonel-dashboard timonel-logs pause; do
    put "$programs/$program" "/usr/libexec/timonel/$program"
done
pack timonel-addons "libc6" "Programs that run in containers: Pod network, DNS, volumes, metrics, Ingress, dashboard, logs"

put "$programs/kubeadm" /usr/bin/kubeadm
put "$here/systemd/10-kubeadm.conf" /usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf 0644
# What every node needs of the kernel.
printf 'overlay\nbr_netfilter\n' >"$work/modules"
put "$work/modules" /usr/lib/modules-load.d/kubeadm.conf 0644
printf 'net.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n' >"$work/sysctl"
put "$work/sysctl" /usr/lib/sysctl.d/60-kubeadm.conf 0644
exact="(= $version)"
pack kubeadm "libc6, kubelet (>= $version), kubectl (>= $version), kube-apiserver $exact, kube-controller-manager $exact, kube-scheduler $exact, \
kube-proxy $exact, timonel-addons $exact, conntrack" "Makes clusters of Kubernetes"
