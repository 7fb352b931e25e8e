#!/usr/bin/env bash
# Makes the disk of machines that run Debian, with the packages of the product to be installed and agent.sh, which starts at boot.
# image.sh <Debian's root> <kernel directory> <programs> <deploy directory> <output directory>
set -euo pipefail
debian=$1 kernel=$2 programs=$3 deploy=$4 output=$5
here=$(dirname "$0")
root=$(mktemp -d -p "$output")
early=$(mktemp -d -p "$output")
trap 'rm -rf "$root" "$early"' EXIT
# shellcheck source=tests/integration/tests/machine/disk.sh
source "$here/../machine/disk.sh"

cp -a "$debian/." "$root/"
mkdir -p "$root/test" "$early/programs"
for program in "$programs"/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl,kubeadm} \
    "$programs"/{pod-network,cluster-dns,local-path,timonel-metrics,timonel-ingress,timonel-dashboard,timonel-logs,pause}; do
    strip -o "$early/programs/$(basename "$program")" "$program"
done
COMPRESSION=none bash "$deploy/packages.sh" "$early/programs" "$root/test/packages"
rm -rf "$early/programs"
cp -r "$deploy" "$root/test/deploy"
cp "$here/agent.sh" "$root/test/"
chmod 0755 "$root/test/agent.sh"

# Each machine learns from its kernel's command line who it is.
cat >"$root/test/network.sh" <<'NETWORK'
#!/bin/sh
set -e
for word in $(cat /proc/cmdline); do
    case $word in machine.name=*) name=${word#*=} ;; machine.address=*) address=${word#*=} ;; esac
done
hostname "$name"
echo "$name" >/etc/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" >/etc/hosts.own
if ! grep -q " $name\$" /etc/hosts; then cat /etc/hosts.own >/etc/hosts; fi
link=$(basename "$(ls -d /sys/class/net/e*)")
ip address replace "$address/24" dev "$link"
ip link set "$link" up
ip route replace default via "${address%.*}.254"
NETWORK
chmod 0755 "$root/test/network.sh"
cat >"$root/etc/systemd/system/machine-network.service" <<'UNIT'
[Unit]
Before=network-online.target containerd.service
After=systemd-udev-settle.service
Wants=systemd-udev-settle.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/test/network.sh
[Install]
WantedBy=multi-user.target network-online.target
UNIT
chroot "$root" systemctl -q enable machine-network containerd
# kubeadm runs etcd as a Pod; the package's own would take its ports.
chroot "$root" systemctl -q mask etcd
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
unit agent /test/agent.sh ttyS0
boot_with_kernel
make_disk
