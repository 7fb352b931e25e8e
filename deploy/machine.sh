# shellcheck shell=bash disable=SC2154,SC2034
# What the scripts beside this one share: programs, packages, containerd and the control plane of one machine. They read it
# with `source`, after they have set `here` to the project's directory.

prefix=/opt/timonel
bin=$prefix/bin
socket=/run/containerd/containerd.sock
kubeconfig=/etc/kubernetes/admin.conf
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl kubeadm pod-network cluster-dns local-path
    timonel-metrics timonel-ingress timonel-dashboard timonel-logs pause)

say() { printf '\n==> %s\n' "$*"; }
alive() { [ -f "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

# until_true SECONDS WHAT COMMAND...: waits for a command to succeed.
until_true() {
    local limit=$1 what=$2
    shift 2
    for _ in $(seq "$((limit * 5))"); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "timed out after ${limit}s waiting for $what" >&2
    return 1
}

install_packages() {
    local wanted=(ca-certificates curl containerd runc containernetworking-plugins iptables iproute2 conntrack busybox-static)
    [ -n "${TIMONEL_BIN:-}" ] || wanted+=(gcc libc6-dev protobuf-compiler libprotobuf-dev)
    local missing=()
    for package in "${wanted[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# rustup, checked against the sum that is published with it; it fetches the toolchain that the project pins.
install_rust() {
    say "installing Rust"
    local work url
    work=$(mktemp -d)
    url=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init
    curl -sSfL -o "$work/rustup-init" "$url"
    echo "$(curl -sSfL "$url.sha256" | cut -c -64)  $work/rustup-init" | sha256sum -c --quiet -
    chmod +x "$work/rustup-init"
    "$work/rustup-init" -y -q --profile minimal --default-toolchain none
    rm -rf "$work"
}

build() {
    local from=${TIMONEL_BIN:-}
    if [ -z "$from" ]; then
        if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
            install_rust
        fi
        PATH=$HOME/.cargo/bin:$PATH
        say "building (the first time takes a while)"
        (cd "$here" && cargo build --release --locked "${programs[@]/#/--bin=}")
        from=${CARGO_TARGET_DIR:-$here/target}/release
    fi
    mkdir -p "$bin"
    for program in "${programs[@]}"; do
        if ! cmp -s "$from/$program" "$bin/$program"; then
            # A running program keeps its file; the new one takes its name.
            install -m 0755 "$from/$program" "$bin/.$program.new"
            mv "$bin/.$program.new" "$bin/$program"
        fi
    done
}

# Where systemd keeps the cgroups, containerd has to ask it for them. `delete` takes the lines out again.
mark="# cgroups of the cluster of $prefix"
configure_containerd() {
    local config=/etc/containerd/config.toml
    if [ -f "$config" ] && grep -q '^ *SystemdCgroup *= *true' "$config"; then return; fi
    say "containerd: cgroups by systemd ($config)"
    mkdir -p /etc/containerd
    [ -s "$config" ] || echo 'version = 2' >"$config"
    cat >>"$config" <<TOML
$mark
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
$mark, end
TOML
    systemctl restart containerd
}

start_containerd() {
    if [ -d /run/systemd/system ]; then configure_containerd; fi
    if ctr -a "$socket" version >/dev/null 2>&1; then return; fi
    say "starting containerd"
    if [ -d /run/systemd/system ]; then
        systemctl start containerd
    else
        mkdir -p "$prefix" /run/containerd
        # Without CAP_SYS_RESOURCE nothing may lower a score; containerd then keeps its own.
        local restrict=false
        (echo -999 >/proc/self/oom_score_adj) 2>/dev/null || restrict=true
        cat >"$prefix/containerd.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = $restrict
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
TOML
        setsid containerd --config "$prefix/containerd.toml" >/var/log/timonel-containerd.log 2>&1 </dev/null &
        echo $! >"$prefix/containerd.pid"
    fi
    until_true 30 containerd ctr -a "$socket" version
}

init() {
    if [ -f /etc/kubernetes/kubelet.conf ]; then
        "$bin/kubeadm" start-kubelet
        return
    fi
    say "kubeadm init"
    cat >"$prefix/kubeadm.yaml" <<YAML
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  criSocket: unix://$socket
  taints: []
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking:
  podSubnet: 10.244.0.0/16
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
failCgroupV1: false
# The machine's own disk is not this cluster's to tidy up.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
YAML
    "$bin/kubeadm" init --config "$prefix/kubeadm.yaml" --embedded-store --ignore-preflight-errors=all
}

# The page of the example: one static program and one file, as an image.
import_example() {
    local image=timonel.local/web:v1
    if grep -qx "$image" <<<"$(ctr -a "$socket" -n k8s.io images ls -q)"; then return; fi
    say "making the image $image"
    local work
    work=$(mktemp -d)
    mkdir -p "$work/bin" "$work/www"
    cp /bin/busybox "$work/bin/busybox"
    echo "hello from timonel" >"$work/www/index.html"
    bash "$here/deploy/examples/image.sh" "$image" "$work" "$work.tar" \
        '["/bin/busybox","httpd","-f","-p","8080","-h","/www"]'
    ctr -a "$socket" -n k8s.io images import "$work.tar" >/dev/null
    rm -rf "$work" "$work.tar"
}

kill_tasks() { # SIGNAL
    for task in $(ctr -a "$socket" -n k8s.io tasks ls -q); do
        ctr -a "$socket" -n k8s.io tasks kill -s "$1" "$task" >/dev/null 2>&1 || true
    done
}
no_task_runs() {
    local tasks
    # Not as a pipe: grep would end it early, which counts as a failure of the whole.
    tasks=$(ctr -a "$socket" -n k8s.io tasks ls) && ! grep -q RUNNING <<<"$tasks"
}

stop() {
    say "stopping"
    if [ -x "$bin/kubeadm" ]; then "$bin/kubeadm" stop-kubelet; fi
    if ctr -a "$socket" version >/dev/null 2>&1; then
        kill_tasks TERM
        until_true 15 "containers to end" no_task_runs 2>/dev/null || kill_tasks KILL
        until_true 15 "containers to end" no_task_runs
    fi
    if alive "$prefix/containerd.pid"; then
        local pid
        pid=$(cat "$prefix/containerd.pid")
        kill "$pid"
        until_true 15 "containerd to end" bash -c "! kill -0 $pid"
        rm -f "$prefix/containerd.pid"
    fi
}
