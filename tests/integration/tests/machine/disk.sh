# shellcheck shell=bash disable=SC2154
# Parts of a disk with Debian. Scripts read this with `source`, after they have set `root`, `early`, `kernel` and `output`.

# boot_with_kernel: the modules of a kernel, and an initramfs that finds the disk.
boot_with_kernel() {
    local version module
    version=$(basename "$kernel"/lib/modules/*)
    mkdir -p "$root/usr/lib/modules"
    cp -a "$kernel/lib/modules/$version" "$root/usr/lib/modules/"
    chroot "$root" depmod "$version"
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
    echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
    chroot "$root" systemctl -q mask serial-getty@ttyS0 getty@tty1 apt-daily.timer apt-daily-upgrade.timer
}

# unit NAME PROGRAM TERMINAL: a program that starts at boot.
unit() {
    cat >"$root/etc/systemd/system/$1.service" <<UNIT
[Unit]
After=network-online.target containerd.service
Wants=network-online.target
[Service]
Type=simple
ExecStart=$2
StandardOutput=tty
StandardError=tty
TTYPath=/dev/$3
[Install]
WantedBy=multi-user.target
UNIT
    chroot "$root" systemctl -q enable "$1"
}

make_disk() {
    truncate -s 6G "$output/disk"
    mkfs.ext4 -q -F -d "$root" "$output/disk"
}
