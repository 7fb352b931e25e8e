//! Services and names.

use super::User;

pub(crate) fn follow(user: &User) {
    user.says("kd expose deployment myblog --port 80 --target-port 8002", &["service/myblog exposed"]);
    let address = user.ok("kd get svc myblog -o jsonpath={.spec.clusterIP}");
    user.sees(&format!("curl -s -m 5 http://{address}/index.html"), &["blog v1"]);
    let endpoints = |count: usize| {
        user.comes(
            "kd get endpoints myblog -o jsonpath='{.subsets[*].addresses[*].ip}' 2>/dev/null",
            "addresses",
            |all| all.split_whitespace().count() == count,
        );
    };
    endpoints(3);
    user.sees("kd describe svc myblog", &["Endpoints:", ":8002"]);
    user.ok("kd scale deploy myblog --replicas=2");
    endpoints(2);
    chains(user);
    node_port(user);
    names(user);
    user.ok("kd delete svc myblog; kd delete deploy myblog");
}

/// Upstream's chains, as handbooks show them.
fn chains(user: &User) {
    let rules = user.sees("iptables-save -t nat", &["nohi/myblog", "--mode random --probability 0.50000000000"]);
    for wanted in ["-A KUBE-SERVICES -d ", "-j KUBE-SVC-", "-j KUBE-SEP-", "-j DNAT --to-destination 10.244.0."] {
        assert!(rules.contains(wanted), "{wanted} in {rules}");
    }
}

fn node_port(user: &User) {
    user.says(
        "kd expose deployment myblog --name front --port 80 --target-port 8002 --type NodePort",
        &["service/front exposed"],
    );
    let port: u16 = user.ok("kd get svc front -o jsonpath={.spec.ports[0].nodePort}").parse().expect("a port");
    assert!((30000..=32767).contains(&port));
    user.sees(&format!("curl -s -m 5 http://10.74.0.1:{port}/"), &["blog v1"]);
    user.ok(r#"kd patch svc front -p '{"spec":{"type":"LoadBalancer","sessionAffinity":"ClientIP"}}'"#);
    user.says("kd get svc front", &["LoadBalancer", "<pending>"]);
    user.sees("iptables-save -t nat", &["-m recent"]);
    user.sees(&format!("curl -s -m 5 http://10.74.0.1:{port}/"), &["blog v1"]);
    user.ok("kd delete svc front");
}

fn names(user: &User) {
    user.ok("kubectl create -f myblog.yaml && kd expose pod myblog --name mysql --port 3306 && \
         kd expose deployment myblog --name blog --port 80 --target-port 8002");
    user.says("kubectl wait -n nohi --for=condition=Ready pod/myblog --timeout=60s", &["condition met"]);
    let inside = |line: &str| format!("kd exec myblog -c myblog -- sh -c '{line}'");
    assert_eq!(
        user.ok(&inside("cat /etc/resolv.conf")),
        "search nohi.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    user.sees(&inside("nc mysql 3306 </dev/null"), &["rows"]);
    user.sees(&inside("timeout 5 wget -q -O - http://blog/index.html"), &["blog v1"]);
    user.sees(&inside("timeout 5 wget -q -O - http://web.default/"), &["hello from timonel"]);
    user.sees(&inside("nslookup kubernetes.default.svc.cluster.local"), &["10.96.0.1"]);
    user.says("curl -ks -m 5 https://10.96.0.1/version", &["v1.36"]);
    user.ok("kd delete svc mysql blog; kubectl delete -f myblog.yaml");
}
