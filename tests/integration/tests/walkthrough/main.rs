//! What users do with a cluster, as their handbooks say it: every line typed as written, with stock kubectls and ours.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use harness::{Host, Kubectl, Segment, process::binary};

mod administration;
mod controllers;
mod dashboard;
mod ingress;
mod pods;
mod scaling;
mod services;
mod storage;

/// Longest wait for something that a cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// A user at the keyboard of a one-node cluster.
struct User {
    host: Host,
    _segment: Segment,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned()
}

fn programs() -> PathBuf {
    binary("kubeadm").parent().expect("a directory").to_owned()
}

impl User {
    fn new() -> Self {
        let segment = Segment::new("10.74.0");
        let host = Host::new(&segment, "k8s-master", 1);
        let user = Self { host, _segment: segment };
        let repository = repository();
        let script = format!("bash {}/deploy/quickstart.sh", repository.display());
        user.ok(&format!("TIMONEL_BIN={} {script}", programs().display()));
        // Mounted files follow their ConfigMaps once per synchronization.
        user.ok("sed -i '/^syncFrequency:/d' /var/lib/kubelet/config.yaml && \
             echo 'syncFrequency: 5s' >>/var/lib/kubelet/config.yaml && pkill -x kubelet");
        user.ok("mkdir -p /opt/image/bin /opt/image/www && cp /bin/busybox /opt/image/bin/ && \
                 for name in $(busybox --list); do [ -e /opt/image/bin/$name ] || ln -s busybox /opt/image/bin/$name; done");
        for version in ["v1", "v2"] {
            let entry = r#"["/bin/httpd","-f","-p","8002","-h","/www"]"#;
            let make = repository.join("deploy/examples/image.sh");
            user.ok(&format!(
                "echo blog {version} >/opt/image/www/index.html && \
                 bash {} timonel.local/myblog:{version} /opt/image /opt/image.tar '{entry}' && \
                 ctr -n k8s.io images import /opt/image.tar",
                make.display()
            ));
        }
        // While an image is pulled, nobody uses what is there under its name: it has a name of its own.
        user.ok("ctr -n k8s.io images tag timonel.local/myblog:v1 timonel.local/pulled:v1");
        user
    }

    /// From here on `kubectl` is that program, and manifests are in the current directory.
    fn use_kubectl(&self, program: &Path) {
        let manifests = repository().join("tests/integration/tests/walkthrough/manifests");
        self.ok(&format!(
            "mkdir -p /opt/bin /opt/home && cp {}/* /opt/home && ln -sf {} /opt/bin/kubectl",
            manifests.display(),
            program.display()
        ));
    }

    fn line(line: &str) -> String {
        format!(
            "cd /opt/home; export PATH=/opt/bin:$PATH KUBECONFIG=/etc/kubernetes/admin.conf; kd() {{ kubectl -n nohi \"$@\"; }}; {line}"
        )
    }

    /// Output of a line that must succeed.
    fn ok(&self, line: &str) -> String {
        self.host.ok(&programs(), &Self::line(line))
    }

    /// A line that must succeed with all of this in what it prints.
    fn says(&self, line: &str, parts: &[&str]) -> String {
        let said = self.ok(line);
        assert!(parts.iter().all(|part| said.contains(part)), "{line} lacks one of {parts:?}:\n{said}");
        said
    }

    /// A line that must fail with this on standard error.
    fn fails(&self, line: &str, why: &str) {
        let output = self.host.run(&programs(), &Self::line(line));
        assert!(output.code != 0 && output.err.contains(why), "{line}: {}\n{}{}", output.code, output.out, output.err);
    }

    /// Types a line until it prints all of this.
    fn sees(&self, line: &str, parts: &[&str]) -> String {
        self.comes(line, &format!("{parts:?}"), |said| parts.iter().all(|part| said.contains(part)))
    }

    /// Types a line until what it prints is as wanted.
    fn comes(&self, line: &str, wanted: &str, is: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let output = self.host.run(&programs(), &Self::line(line));
            if is(&output.out) {
                return output.out;
            }
            let context = || self.host.run(&programs(), &Self::line("kubectl get pods,events -A -o wide")).out;
            assert!(
                start.elapsed() < PATIENCE,
                "waited for {wanted} in {line}:\n{}{}\n{}",
                output.out,
                output.err,
                context()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// Sections 2 to 6 of the handbooks: Pods, controllers, Services and names, Ingress, administration.
#[test]
fn every_line_works_with_every_kubectl() {
    let user = User::new();
    let stock = Kubectl::stock();
    assert!(!stock.is_empty(), "STOCK_KUBECTL names no kubectl");
    for kubectl in stock.into_iter().chain([binary("kubectl")]) {
        user.use_kubectl(&kubectl);
        user.says("kubectl create namespace nohi", &["namespace/nohi created"]);
        pods::follow(&user);
        controllers::follow(&user);
        scaling::follow(&user);
        storage::follow(&user);
        services::follow(&user);
        ingress::follow(&user);
        administration::follow(&user);
        dashboard::follow(&user);
        user.says("kubectl delete namespace nohi", &["namespace \"nohi\" deleted"]);
    }
}
