//! The budget table's rows of a whole cluster: the control plane at rest, and a node with 20 probed Pods.
//!
//! Run `cargo run --release -p timonel-bench --bin cluster-bench` as root after building all binaries with `--release`.
//! It makes a one-node cluster on a host of its own (namespaces), as the quick start does.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bench::{Usage, figure};
use clap::Parser;
use harness::{Host, Segment, process::binary};

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Pods on the node, each with an http probe every second.
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// Seconds at rest that CPU is averaged over.
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// Parts of the control plane.
const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-scheduler", "kube-controller-manager"];

struct Cluster {
    host: Host,
    programs: PathBuf,
    _segment: Segment,
}

impl Cluster {
    fn new() -> Self {
        let programs = binary("kubeadm").parent().expect("a directory").to_owned();
        let segment = Segment::new("10.76.0");
        let host = Host::new(&segment, "bench", 1);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
        let script = root.join("deploy/quickstart.sh");
        host.ok(&programs, &format!("TIMONEL_BIN={} bash {}", programs.display(), script.display()));
        Self { host, programs, _segment: segment }
    }

    fn ok(&self, line: &str) -> String {
        self.host.ok(&self.programs, &format!("export KUBECONFIG=/etc/kubernetes/admin.conf; {line}"))
    }

    fn usage(&self, process: &str) -> Usage {
        Usage::parse(&self.ok(&format!("cat /proc/$(pgrep -o -f '^([^ ]*/)?{process}( |$)')/stat")))
    }
}

fn main() {
    let options = Options::parse();
    let cluster = Cluster::new();
    cluster.ok("kubectl delete deployment web");
    std::thread::sleep(Duration::from_secs(10));
    let all: f64 = CONTROL_PLANE
        .iter()
        .map(|part| {
            let memory = cluster.usage(part).memory;
            figure(&format!("{part} at rest"), memory, "MB");
            memory
        })
        .sum();
    figure("whole control plane at rest", all, "MB");

    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: probed}}\nspec:\n  replicas: {}\n  \
         selector: {{matchLabels: {{app: probed}}}}\n  template:\n    metadata: {{labels: {{app: probed}}}}\n    spec:\n      \
         containers:\n      - name: web\n        image: timonel.local/web:v1\n        \
         readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}\n",
        options.pods
    );
    let before = CONTROL_PLANE.map(|part| cluster.usage(part).cpu);
    let start = Instant::now();
    cluster.ok(&format!("kubectl apply --server-side -f - >/dev/null <<'E'\n{manifest}E"));
    let ready = "kubectl get deployment probed -o jsonpath={.status.readyReplicas}";
    while cluster.ok(ready) != options.pods.to_string() {
        std::thread::sleep(Duration::from_millis(50));
    }
    figure(&format!("apply to {} Pods ready", options.pods), start.elapsed().as_secs_f64(), "s");
    let spent: f64 = CONTROL_PLANE.iter().zip(before).map(|(part, cpu)| cluster.usage(part).cpu - cpu).sum();
    figure("of that, CPU of the control plane", spent, "s");
    std::thread::sleep(Duration::from_secs(5));
    let parts = ["kubelet", "kube-proxy"];
    let before = parts.map(|part| cluster.usage(part).cpu);
    std::thread::sleep(Duration::from_secs(options.rest));
    #[allow(clippy::cast_precision_loss)]
    let rest = options.rest as f64;
    for (part, cpu) in parts.into_iter().zip(before) {
        let usage = cluster.usage(part);
        figure(&format!("{part} with {} probed Pods: of a core", options.pods), (usage.cpu - cpu) / rest * 100.0, "%");
        figure(&format!("{part} with {} probed Pods: memory", options.pods), usage.memory, "MB");
    }
}
