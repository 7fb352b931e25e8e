//! Several control planes, each with a member of etcd: one leaves and comes back, another is lost.

use harness::{Host, Segment};

use crate::{KUBELET, alone, machine, programs, stock_line, until};

/// The name that all API servers share. Whoever keeps it points it elsewhere when a host is lost.
const SHARED: &str = "api.test";

fn point_to(host: &Host, address: &str) {
    host.ok(
        &programs(),
        &format!(
            "sed '/ {SHARED}$/d' /etc/hosts >/tmp/hosts.new && echo '{address} {SHARED}' >>/tmp/hosts.new && \
             cat /tmp/hosts.new >/etc/hosts"
        ),
    );
}

/// The command that the text of `kubeadm init` tells for further control planes.
fn command_in(told: &str) -> String {
    let start = told.find("kubeadm join").expect("a join command");
    let lines = told[start..].lines().take_while(|line| !line.is_empty());
    let command: Vec<&str> = lines.map(|line| line.trim().trim_end_matches('\\').trim()).collect();
    assert!(command.last().is_some_and(|line| line.starts_with("--control-plane --certificate-key ")), "{told}");
    command.join(" ")
}

/// How many members of etcd vote, as the one on this host sees it.
fn voters(host: &Host, wanted: usize) {
    let list = "curl -sf -m 5 --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt \
                --key /etc/kubernetes/pki/etcd/server.key -X POST -d '{}' https://127.0.0.1:2379/v3/cluster/member/list";
    until(host, 60, list, |out| out.matches("\"peerURLs\"").count() == wanted && !out.contains("\"isLearner\":true"));
}

/// The API servers that `kubernetes` leads to.
fn servers(host: &Host, wanted: &[&Host]) {
    let addresses = "get endpointslices kubernetes -o jsonpath='{.endpoints[*].addresses[0]}'";
    until(host, 120, &stock_line(addresses), |out| {
        let mut found: Vec<&str> = out.split(' ').collect();
        found.sort_unstable();
        found == wanted.iter().map(|host| host.address()).collect::<Vec<_>>()
    });
}

#[test]
fn control_planes_join_leave_and_are_lost() {
    let _alone = alone();
    let segment = Segment::new("10.74.0");
    let [mut first, second, mut third] =
        [("cp1", 1), ("cp2", 2), ("cp3", 3)].map(|(name, number)| machine(&segment, name, number));
    for host in [&first, &second, &third] {
        point_to(host, first.address());
    }
    let config = KUBELET.replace(
        "kind: ClusterConfiguration",
        &format!("kind: ClusterConfiguration\ncontrolPlaneEndpoint: {SHARED}:6443"),
    );
    first.ok(&programs(), &format!("cat >/opt/kubeadm.yaml <<'E'\n{config}E"));
    let told =
        first.ok(&programs(), "kubeadm init --config /opt/kubeadm.yaml --upload-certs --ignore-preflight-errors=all");
    let join = format!("{} --ignore-preflight-errors=all", command_in(&told));
    for host in [&second, &third] {
        let joined = host.ok(&programs(), &join);
        assert!(
            joined.contains("This node has joined the cluster and a new control plane instance was created"),
            "{joined}"
        );
        point_to(host, host.address());
    }
    voters(&first, 3);
    servers(&first, &[&first, &second, &third]);
    let ready =
        |out: &str| out.lines().filter(|line| line.contains(" Ready ") && line.contains("control-plane")).count();
    until(&second, 120, &stock_line("get nodes --no-headers"), |out| ready(out) == 3);
    second.ok(&programs(), &stock_line("create configmap kept --from-literal=by=second"));
    assert_eq!(third.ok(&programs(), &stock_line("get configmap kept -o jsonpath={.data.by}")), "second");

    // One leaves in order, and comes back.
    third.ok(&programs(), "kubeadm reset -f");
    voters(&first, 2);
    servers(&first, &[&first, &second]);
    first.ok(&programs(), &stock_line("delete node cp3"));
    point_to(&third, first.address());
    third.ok(&programs(), &join);
    point_to(&third, third.address());
    voters(&first, 3);
    servers(&first, &[&first, &second, &third]);

    // One is lost, with whatever it led. The others go on without it.
    first.power_off();
    until(&second, 120, &stock_line("create configmap after --from-literal=by=both"), |_| true);
    servers(&second, &[&second, &third]);
    until(&third, 120, &stock_line("get node cp1 --no-headers"), |out| out.contains("NotReady"));
    second.ok(
        &programs(),
        &stock_line("taint nodes cp2 cp3 node-role.kubernetes.io/control-plane- && \
                     kubectl --kubeconfig /etc/kubernetes/admin.conf create deployment web --image=timonel.local/web:v1 --replicas=2"),
    );
    until(&second, 120, &stock_line("get deployment web --no-headers"), |out| out.contains(" 2/2 "));

    // The majority is lost. The cluster comes back with what a snapshot has.
    let saved = second.ok(&programs(), "kubeadm etcd snapshot save /var/lib/etcd/backup/today.db");
    assert!(
        saved.starts_with("[snapshot] Saved ") && saved.ends_with(" to \"/var/lib/etcd/backup/today.db\"\n"),
        "{saved}"
    );
    second.ok(&programs(), &stock_line("create configmap late --from-literal=by=nobody"));
    third.power_off();
    second.ok(&programs(), "kubeadm etcd snapshot restore -f /var/lib/etcd/backup/today.db");
    voters(&second, 1);
    servers(&second, &[&second]);
    let maps = second.ok(&programs(), &stock_line("get configmaps -o name"));
    assert!(
        maps.contains("configmap/after\n") && maps.contains("configmap/kept\n") && !maps.contains("late"),
        "{maps}"
    );
    second.ok(&programs(), &stock_line("scale deployment web --replicas=3"));
    let here = "get pods -l app=web --field-selector=spec.nodeName=cp2 --no-headers";
    second.ok(&programs(), &stock_line("delete node cp1 cp3"));
    until(&second, 180, &stock_line(here), |out| out.lines().filter(|line| line.contains(" 1/1 ")).count() == 3);
}
