#!/usr/bin/env bash
# Makes the disk of a machine that runs Debian, with the programs of the product and run.sh, which starts at boot.
# image.sh <Debian's root> <kernel directory> <programs> <deploy directory> <output directory>
set -euo pipefail
debian=$1 kernel=$2 programs=$3 deploy=$4 output=$5
here=$(dirname "$0")
root=$(mktemp -d -p "$output")
early=$(mktemp -d -p "$output")
trap 'rm -rf "$root" "$early"' EXIT
version=$(basename "$kernel"/lib/modules/*)

cp -a "$debian/." "$root/"
mkdir -p "$root/usr/lib/modules" "$root/test/bin"
cp -a "$kernel/lib/modules/$version" "$root/usr/lib/modules/"
chroot "$root" depmod "$version"
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
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
cat >"$root/etc/systemd/network/10-net.network" <<'UNIT'
[Match]
Name=e*
[Network]
DHCP=ipv4
UNIT
cat >"$root/etc/systemd/system/test.service" <<'UNIT'
[Unit]
After=network-online.target containerd.service
Wants=network-online.target
[Service]
Type=simple
ExecStart=/test/run.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl -q enable systemd-networkd systemd-networkd-wait-online containerd test
chroot "$root" systemctl -q mask serial-getty@ttyS0 getty@tty1 apt-daily.timer apt-daily-upgrade.timer

# The kernel has ext4 built in, the disk's driver not.
mkdir -p "$early"/{bin,proc,dev,sys,root}
cp "$(command -v busybox)" "$early/bin/busybox"
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    find "$kernel/lib/modules/$version/kernel/drivers" -name "$module.ko" -exec cp '{}' "$early/" ';'
done
cat >"$early/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    [ -e /$module.ko ] && /bin/busybox insmod /$module.ko
done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod 0755 "$early/init"
(cd "$early" && find . | cpio --quiet -o -H newc | gzip -1) >"$output/initramfs"
truncate -s 6G "$output/disk"
mkfs.ext4 -q -F -d "$root" "$output/disk"
