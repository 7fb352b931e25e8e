#!/usr/bin/env bash
# Makes the disk of a machine that runs Debian, with the programs of the product and run.sh, which starts at boot.
# image.sh <Debian's root> <kernel directory> <programs> <deploy directory> <output directory>
set -euo pipefail
debian=$1 kernel=$2 programs=$3 deploy=$4 output=$5
here=$(dirname "$0")
root=$(mktemp -d -p "$output")
early=$(mktemp -d -p "$output")
trap 'rm -rf "$root" "$early"' EXIT
# shellcheck source=tests/integration/tests/machine/disk.sh
source "$here/disk.sh"

cp -a "$debian/." "$root/"
mkdir -p "$root/test/bin"
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl kubeadm pod-network cluster-dns \
    local-path timonel-metrics timonel-ingress timonel-dashboard timonel-logs pause; do
    strip -o "$root/test/bin/$program" "$programs/$program"
done
cp -r "$deploy" "$root/test/deploy"
cp "$here"/{run.sh,pods.yaml,greedy.yaml} "$root/test/"
chmod 0755 "$root/test/run.sh"

echo machine >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 machine\n' >"$root/etc/hosts"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
cat >"$root/etc/systemd/network/10-net.network" <<'UNIT'
[Match]
Name=e*
[Network]
DHCP=ipv4
UNIT
chroot "$root" systemctl -q enable systemd-networkd systemd-networkd-wait-online containerd
unit test /test/run.sh ttyS0
boot_with_kernel
make_disk
