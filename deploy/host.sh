# shellcheck shell=bash
# Becomes a host: runs as the first process of new namespaces (mount, UTS, network, PID, cgroup).
# Arguments: directory for what the host keeps, its name, address/prefix, gateway (empty: none). Name servers are those of
# `resolv.conf` in that directory; without it the gateway is asked.
set -eu
directory=$1 name=$2 address=$3 gateway=$4

hostname "$name"
ip link set lo up
# The other end of the wire is put in place from outside.
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add "$address" dev eth0
ip link set eth0 up
if [ -n "$gateway" ]; then ip route add default via "$gateway"; fi

# Control groups: of every hierarchy only the part that is this host's.
awk '$3 == "cgroup" { print $2, $4 }' /proc/mounts >"$directory/hierarchies"
while read -r point options; do
    umount "$point"
    controllers=$(printf '%s' "$options" | tr ',' '\n' | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime|noatime' | paste -sd,)
    mount -t cgroup -o "$controllers" cgroup "$point"
done <"$directory/hierarchies"
if [ ! -s "$directory/hierarchies" ]; then
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # Only groups without processes share out what they have.
    mkdir -p /sys/fs/cgroup/init.scope
    while read -r process; do echo "$process" >/sys/fs/cgroup/init.scope/cgroup.procs; done </sys/fs/cgroup/cgroup.procs
    sed 's/^/+/; s/ / +/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi

is_new=true
if [ -d "$directory/etc" ]; then is_new=false; fi
mkdir -p "$directory"/{etc,etc.work,opt,log,lib}
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$directory/etc,workdir=$directory/etc.work" /etc
mount --bind "$directory/opt" /opt
mount --bind "$directory/log" /var/log
for kept in kubelet kube-proxy containerd etcd etcd-snapshots timonel cni dockershim; do
    mkdir -p "$directory/lib/$kept" "/var/lib/$kept"
    mount --bind "$directory/lib/$kept" "/var/lib/$kept"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
# What this machine has there is not the host's.
if $is_new; then rm -rf /etc/kubernetes /etc/cni/net.d; fi
mkdir -p /etc/cni/net.d
printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" >/etc/hosts
if [ -f "$directory/resolv.conf" ]; then
    cat "$directory/resolv.conf" >/etc/resolv.conf
else
    printf 'nameserver %s\n' "${gateway:-127.0.0.1}" >/etc/resolv.conf
fi
mount --make-rshared /

touch "$directory/ready"
# As the first process it takes care of those that lost their parent.
while true; do
    sleep 3600 &
    wait $!
done
