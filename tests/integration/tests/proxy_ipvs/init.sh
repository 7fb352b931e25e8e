#!/bin/sh
# The first process of the guest: two endpoints, kube-proxy, and what can be seen of it.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in virtio_pci virtio_net dummy ip_vs ip_vs_rr nf_tables nft_compat nf_nat ip_set xt_set br_netfilter \
    xt_physdev xt_conntrack xt_MASQUERADE xt_comment xt_mark xt_addrtype nf_conntrack_netlink; do
    modprobe $module
done
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
for number in 1 2; do
    ip address add 10.50.0.$number/32 dev lo
    mkdir -p /tmp/$number
    echo endpoint-$number >/tmp/$number/index.html
    httpd -p 10.50.0.$number:8080 -h /tmp/$number
done
kube-proxy --kubeconfig=/kubeconfig --proxy-mode=ipvs --hostname-override=node --cluster-cidr=10.50.0.0/16 >/tmp/log 2>&1 &
proxy=$!
# The test gives up after its own time.
for attempt in $(seq 1 600); do
    ipvsadm -Ln | grep -q 10.50.0.2:8080 && break
    sleep 1
done
echo "=== servers"
ipvsadm -Ln
echo "=== traffic"
for attempt in $(seq 1 10); do
    curl -sS --max-time 10 http://10.0.0.99/
done
echo "=== node port"
curl -sS --max-time 10 http://10.0.2.15:30080/
echo "=== external IP"
curl -sS --max-time 10 http://192.0.2.7/
echo "=== other ports"
curl -sS --max-time 10 http://10.0.0.99:8080/
echo "=== sets"
ipset list KUBE-CLUSTER-IP
echo "=== interface"
ip address show kube-ipvs0
echo "=== log"
cat /tmp/log
kill $proxy
wait $proxy
echo "=== cleaned"
kube-proxy --cleanup
ipvsadm -Ln
ipset list -n
iptables-save | grep KUBE
ip address show kube-ipvs0
echo "=== end"
poweroff -f
