//! Clusters on hosts of their own: the quick start, and three machines made by kubeadm.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use harness::{Host, Segment, process::binary};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned()
}

/// Where the built programs are.
fn programs() -> PathBuf {
    binary("kubeadm").parent().expect("a directory").to_owned()
}

/// Repeats a command until its output is as wanted.
fn until(host: &Host, limit: u64, line: &str, wanted: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let output = host.run(&programs(), line);
        if output.code == 0 && wanted(&output.out) {
            return output.out;
        }
        let late = start.elapsed() > Duration::from_secs(limit);
        assert!(!late, "waited {limit}s on {} for {line}:\n{}{}", host.name(), output.out, output.err);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn quick_start_runs_stops_starts_and_leaves_nothing() {
    let segment = Segment::new("10.71.0");
    let host = Host::new(&segment, "single", 1);
    let script = format!("TIMONEL_BIN={} bash {}/deploy/quickstart.sh", programs().display(), repository().display());
    let run = |argument: &str| host.ok(&programs(), &format!("{script} {argument}"));
    let first = run("");
    for place in ["(cluster IP)", "(node port)", "(name)"] {
        assert!(first.contains(&format!("{place}: hello from timonel")), "{place} in {first}");
    }
    let again = run("");
    assert!(again.contains("(name): hello from timonel") && !again.contains("kubeadm init"), "{again}");
    run("stop");
    assert_eq!(host.run(&programs(), "pgrep -x 'kubelet|kube-apiserver'").out, "");
    run("start");
    let kubectl = "/opt/timonel/bin/kubectl --kubeconfig /etc/kubernetes/admin.conf";
    until(&host, 120, &format!("{kubectl} get deployment web --no-headers"), |out| out.contains(" 3/3 "));
    run("delete");
    assert_eq!(host.run(&programs(), "pgrep -x 'kubelet|kube-apiserver|containerd'").out, "");
    assert_eq!(host.run(&programs(), "iptables-save | grep -c KUBE-SVC").out.trim(), "0");
}
