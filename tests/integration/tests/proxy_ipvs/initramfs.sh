#!/usr/bin/env bash
# Makes the root of a guest: a kernel's modules, kube-proxy, and the programs that it runs, with their libraries.
# initramfs.sh <kernel directory> <kube-proxy> <kubeconfig> <init> <output>
set -euo pipefail
kernel=$1 proxy=$2 kubeconfig=$3 init=$4 output=$5
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,proc,sys,dev,run,tmp,etc/ssl/certs}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in sh mount ip cat sleep httpd grep echo mkdir seq poweroff kill; do
    ln -s busybox "$root/bin/$applet"
done
ln -s ../bin/busybox "$root/sbin/modprobe"

program() { # path
    cp -L "$1" "$root/bin/$(basename "$1")"
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D "$library" "$root$library"
    done
}
program "$proxy"
program "$(command -v xtables-nft-multi)"
for name in iptables ip6tables; do
    for suffix in '' -save -restore; do
        ln -s xtables-nft-multi "$root/bin/$name$suffix"
    done
done
for name in ipset ipvsadm curl; do
    program "$(command -v $name)"
done
extensions=$(dirname "$(find /usr/lib -name 'libxt_comment.so' -path '*xtables*' | head -n 1)")
mkdir -p "$root$extensions"
cp "$extensions"/*.so "$root$extensions/"

version=$(basename "$kernel"/lib/modules/*)
from=$kernel/lib/modules/$version to=$root/lib/modules/$version
for part in net/netfilter net/ipv4 net/ipv6 net/core net/bridge net/802 net/llc lib crypto arch/x86/crypto \
    drivers/virtio; do
    [ -d "$from/kernel/$part" ] || continue
    mkdir -p "$to/kernel/$part"
    cp -r "$from/kernel/$part/." "$to/kernel/$part/"
done
mkdir -p "$to/kernel/drivers/net"
cp "$from"/kernel/drivers/net/{dummy,virtio_net,net_failover}.ko "$to/kernel/drivers/net/"
busybox depmod -b "$root" "$version"

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp "$kubeconfig" "$root/kubeconfig"
install -m 0755 "$init" "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$output"
