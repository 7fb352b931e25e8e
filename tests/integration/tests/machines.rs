//! Three machines as users have them: Debian with systemd and cgroup v2, booted in virtual machines, on which the packages
//! are installed and kubeadm makes a cluster.
//!
//! `GUEST_ROOT` names a directory with Debian's root file system, `GUEST_PROGRAMS` one with programs built for release.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use harness::{Machine, Segment, guest};

/// Their processors are emulated: all takes ten to twenty times as long as on a machine.
const PATIENCE: Duration = Duration::from_secs(900);
/// The name that all API servers share.
const SHARED: &str = "api.test";

fn image(output: &Path) {
    let named = |variable: &str| std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no directory"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new("bash")
        .arg(here.join("tests/machines/image.sh"))
        .args([Path::new(&named("GUEST_ROOT")), &guest::kernel(), Path::new(&named("GUEST_PROGRAMS"))])
        .args([&here.join("../../deploy"), output])
        .status()
        .expect("bash");
    assert!(made.success(), "the machines' disk cannot be made");
}

struct Lab {
    started: Instant,
    segment: Segment,
    directory: PathBuf,
}

impl Lab {
    /// A line of the transcript.
    fn says(&self, text: &str) {
        println!("[{:5.0} s] {text}", self.started.elapsed().as_secs_f64());
    }

    fn machine(&self, name: &str, number: u8) -> Machine {
        let disk = self.directory.join(format!("{name}.disk"));
        let copied = Command::new("cp").arg("--sparse=always").arg(self.directory.join("disk")).arg(&disk).status();
        assert!(copied.expect("cp").success(), "the disk of {name} cannot be made");
        let initramfs = self.directory.join("initramfs");
        let machine = Machine::boot(&self.segment, name, number, 2560, &initramfs, &disk, &self.directory);
        self.says(&format!("{name} has booted"));
        machine
    }

    /// What README asks of every machine.
    fn prepare(&self, machine: &mut Machine, first: &str) {
        machine.ok("dpkg -i /test/packages/*.deb");
        machine.ok(&format!("echo '{first} {SHARED}' >>/etc/hosts"));
        machine.ok("systemctl is-active containerd; mkdir -p /etc/containerd && containerd config default | \
                    sed 's/SystemdCgroup = false/SystemdCgroup = true/; s|/opt/cni/bin|/usr/lib/cni|' >/etc/containerd/config.toml && \
                    systemctl restart containerd");
        // The programs pass for those of an earlier version, so that there is something to upgrade to.
        machine.ok("kubeadm config images pull && for image in $(ctr -n k8s.io images ls -q name~=:v1.36.0); do \
                    ctr -n k8s.io images tag $image ${image%:*}:v1.35.4; done");
        machine.ok("here=/test; source /test/deploy/machine.sh; import_example");
        self.says(&format!("{} has the packages and images", machine.name()));
    }
}

/// The commands that the text of `kubeadm init` tells: for further control planes and for workers.
fn commands_in(told: &str) -> (String, String) {
    let mut commands = told.split("kubeadm join").skip(1).map(|rest| {
        let words =
            rest.lines().take_while(|line| !line.is_empty()).map(|line| line.trim().trim_end_matches('\\').trim());
        format!("kubeadm join {}", words.collect::<Vec<_>>().join(" "))
    });
    let (first, second) = (commands.next(), commands.next());
    let (Some(first), Some(second)) = (first, second) else { panic!("two join commands in {told}") };
    (first, second)
}

fn ready(first: &mut Machine, count: usize) {
    let ready = |out: &str| out.lines().filter(|line| line.contains(" Ready")).count() == count;
    first.until(PATIENCE, "kubectl get nodes --no-headers", ready);
}

/// The Service of the example answers on every machine's node port.
fn answers(asker: &mut Machine, addresses: &[&str]) {
    asker.until(PATIENCE, "kubectl get deployment web --no-headers", |out| out.contains(" 3/3 "));
    for address in addresses {
        asker.until(PATIENCE, &format!("curl -sf -m 20 http://{address}:30080/"), |out| out == "hello from timonel\n");
    }
}

fn voters(machine: &mut Machine, wanted: usize) {
    let list = "curl -sf -m 20 --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt \
                --key /etc/kubernetes/pki/etcd/server.key -X POST -d '{}' https://127.0.0.1:2379/v3/cluster/member/list";
    machine.until(PATIENCE, list, |out| {
        out.matches("\"peerURLs\"").count() == wanted && !out.contains("\"isLearner\":true")
    });
}

/// Nothing of the cluster is left but what `kubeadm reset` says it leaves.
fn reset(machine: &mut Machine) {
    machine.ok("kubeadm reset -f");
    let left = machine.ok(
        "pgrep -x 'kubelet|kube-apiserver|kube-proxy|etcd|pause'; ls -A /etc/kubernetes/manifests /var/lib/etcd \
                           /var/lib/kubelet 2>/dev/null | grep -v ':$'; grep ' /var/lib/kubelet/' /proc/mounts; \
                           find /sys/fs/cgroup -name '*kubepods*' -type d; true",
    );
    assert_eq!(left.trim(), "", "left on {}", machine.name());
}

#[test]
fn three_machines_make_a_cluster_from_packages() {
    let directory = tempfile::tempdir().expect("a directory");
    let lab = Lab { started: Instant::now(), segment: Segment::new("10.79.0"), directory: directory.path().to_owned() };
    image(directory.path());
    lab.says("the disk is made");
    let [mut one, mut two, mut three] = std::thread::scope(|scope| {
        let boots = [("one", 1), ("two", 2), ("three", 3)].map(|(name, number)| {
            let lab = &lab;
            scope.spawn(move || {
                let mut machine = lab.machine(name, number);
                lab.prepare(&mut machine, "10.79.0.1");
                machine
            })
        });
        boots.map(|boot| boot.join().expect("a prepared machine"))
    });

    one.ok(&format!(
        "cat >/root/kubeadm.yaml <<'E'\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n\
         kubernetesVersion: v1.35.4\ncontrolPlaneEndpoint: {SHARED}:6443\nnetworking:\n  podSubnet: 10.244.0.0/16\nE"
    ));
    // Its kubelet is of the version that the cluster is upgraded to.
    let told =
        one.ok("kubeadm init --config /root/kubeadm.yaml --upload-certs --ignore-preflight-errors=KubeletVersion");
    lab.says("kubeadm init is done");
    let (as_control_plane, as_worker) = commands_in(&told);
    for worker in [&mut two, &mut three] {
        worker.ok(&format!("{as_worker} --ignore-preflight-errors=KubeletVersion"));
    }
    ready(&mut one, 3);
    lab.says("two workers have joined");
    one.ok("kubectl apply -f /test/deploy/examples/deploy.yaml");
    let all = ["10.79.0.1", "10.79.0.2", "10.79.0.3"];
    answers(&mut one, &all);
    lab.says("the example answers");

    for machine in [&mut one, &mut two, &mut three] {
        machine.reboot();
        machine.until(PATIENCE, "curl -sf -m 20 http://127.0.0.1:10248/healthz", |out| out == "ok");
        lab.says(&format!("{} has booted again", machine.name()));
    }
    ready(&mut one, 3);
    answers(&mut one, &all);

    let before = one.ok("cat /etc/kubernetes/pki/apiserver.crt");
    one.ok("kubeadm certs renew all");
    assert_ne!(one.ok("cat /etc/kubernetes/pki/apiserver.crt"), before, "the certificate is a new one");
    assert!(one.ok("kubeadm certs check-expiration").contains("364d"));
    one.until(PATIENCE, "kubectl get --raw /readyz", |out| out == "ok");
    lab.says("certificates are renewed");

    let done = one.ok("kubeadm upgrade apply -y v1.36.0");
    assert!(done.contains("SUCCESS! A control plane node of your cluster was upgraded to \"v1.36.0\"."), "{done}");
    for worker in [&mut two, &mut three] {
        worker.ok("kubeadm upgrade node");
    }
    answers(&mut one, &all);
    lab.says("the cluster is upgraded");

    for machine in [&mut two, &mut three] {
        let name = machine.name().to_owned();
        one.ok(&format!("kubectl drain {name} --ignore-daemonsets --delete-emptydir-data --force --timeout=600s"));
        reset(machine);
        one.ok(&format!("kubectl delete node {name}"));
        machine.ok(&as_control_plane);
        lab.says(&format!("{name} has joined as a control plane"));
    }
    ready(&mut one, 3);
    voters(&mut one, 3);
    one.ok("kubectl taint nodes --all node-role.kubernetes.io/control-plane- || true");

    three.power_off();
    two.ok(&format!("sed -i 's/.* {SHARED}$/10.79.0.2 {SHARED}/' /etc/hosts"));
    two.until(PATIENCE, "kubectl get node three --no-headers", |out| out.contains("NotReady"));
    two.until(PATIENCE, "kubectl create configmap after --from-literal=by=both", |_| true);
    answers(&mut two, &["10.79.0.1", "10.79.0.2"]);
    lab.says("a control plane is lost, and the others go on");

    for machine in [&mut one, &mut two] {
        reset(machine);
        assert!(!machine.console().contains("Kernel panic"), "{}", machine.console());
    }
    lab.says("the last two are reset");
}
