//! Clusters of several nodes on one machine (`deploy/local.sh`).

use harness::{Host, Segment};
use tempfile::TempDir;

use super::{alone, programs, repository, until};

#[test]
fn local_clusters_live_side_by_side_and_keep_their_data() {
    let _alone = alone();
    let segment = Segment::new("10.75.0");
    let host = Host::new(&segment, "laptop", 1);
    let state = TempDir::new().expect("a directory");
    let environment = format!(
        "export KUBECONFIG=/run/kubeconfig TIMONEL_LOCAL={} TIMONEL_BIN={}",
        state.path().display(),
        programs().display()
    );
    let script = format!("{environment}; bash {}/deploy/local.sh", repository().display());
    let run = |arguments: &str| host.ok(&programs(), &format!("{script} {arguments}"));
    let kubectl = |line: &str| format!("{environment}; kubectl {line}");
    let ready = |context: &str, count: usize| {
        let line = kubectl(&format!("--context {context} get nodes --no-headers"));
        until(&host, 120, &line, |out| out.lines().count() == count && out.matches(" Ready ").count() == count);
    };

    run("start --nodes 2");
    ready("timonel-local", 2);
    let nodes = host.ok(&programs(), &kubectl("get nodes -o name"));
    assert_eq!(nodes, "node/local-1\nnode/local-2\n", "the new cluster's context is the current one");
    host.ok(&programs(), &kubectl("create configmap kept --from-literal=a=b"));
    run("start --name other");
    ready("timonel-other", 1);
    let list = run("list");
    let states: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(states, [["local", "2", "running"], ["other", "1", "running"]]);
    assert_eq!(run("shell local-2 hostname"), "local-2\n");

    run("stop");
    assert!(run("list").contains("stopped"));
    ready("timonel-other", 1);
    run("start");
    ready("timonel-local", 2);
    let kept = kubectl("--context timonel-local get configmap kept -o jsonpath={.data.a}");
    assert_eq!(host.ok(&programs(), &kept), "b");

    run("delete");
    run("delete --name other");
    assert_eq!(run("list").lines().count(), 1);
    assert_eq!(host.ok(&programs(), &kubectl("config get-contexts -o name")), "");
    let left = "pgrep -x 'kubelet|kube-apiserver|containerd'; iptables-save | grep timonel-local; ip -br link | grep timonel; \
                find /sys/fs/cgroup -name 'timonel-local-*' -o -name 'timonel-other-*'";
    assert_eq!(host.run(&programs(), left).out, "");
    assert_eq!(std::fs::read_dir(state.path()).expect("the directory").count(), 0);
}
