//! Clusters on hosts of their own: the quick start, and three machines made by kubeadm.

#[path = "cluster/control_planes.rs"]
mod control_planes;
#[path = "cluster/local.rs"]
mod local;
#[path = "cluster/packages.rs"]
mod packages;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use harness::{Host, Kubectl, Segment, process::binary};

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

/// Runs Prometheus with the configuration of `deploy/` until it has scraped every component.
fn prometheus_sees_everything(host: &Host) {
    let deploy = repository().join("deploy/prometheus");
    let kubectl = "/opt/timonel/bin/kubectl --kubeconfig /etc/kubernetes/admin.conf";
    host.ok(&programs(), &format!("{kubectl} apply --server-side -f {}/access.yaml", deploy.display()));
    let secret = format!("{kubectl} get secret prometheus-token -n kube-system -o yaml");
    until(host, 20, &secret, |out| out.contains("token:"));
    host.ok(
        &programs(),
        &format!(
            "mkdir -p /opt/prometheus && cd /opt/prometheus && sed 's/15s/1s/' {0}/prometheus.yml >prometheus.yml && \
             sed 's/for: .*/for: 2s/' {0}/rules.yml >rules.yml && {secret} | sed -n 's/^  token: //p' | base64 -d >token && \
             (setsid prometheus --config.file=prometheus.yml --storage.tsdb.path=data \
              --web.listen-address=127.0.0.1:9090 >/var/log/prometheus.log 2>&1 </dev/null & echo $! >pid)",
            deploy.display()
        ),
    );
    let up =
        "curl -sf 'http://127.0.0.1:9090/api/v1/query?query=up' | grep -o '\"[01]\"\\]' | sort | uniq -c | tr -s ' '";
    until(host, 60, up, |out| out.trim() == "7 \"1\"]");
    alerts_tell_what_is_wrong(host, &deploy.join("rules.yml"));
    host.ok(&programs(), "kill $(cat /opt/prometheus/pid)");
}

/// Every recording rule has data, a healthy cluster has no alert, and a fault has the one that is for it.
fn alerts_tell_what_is_wrong(host: &Host, rules: &Path) {
    let text = std::fs::read_to_string(rules).expect("the rules");
    let records: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    assert!(records.len() > 5, "{records:?}");
    let api = "curl -sf http://127.0.0.1:9090/api/v1";
    for record in records {
        until(host, 60, &format!("{api}/query?query={record}"), |out| out.contains("\"value\":["));
    }
    let rules = format!("{api}/rules");
    until(host, 60, &rules, |out| !out.contains("\"health\":\"err\"") && !out.contains("\"health\":\"unknown\""));
    let alerts = format!("{api}/alerts");
    until(host, 120, &alerts, |out| out.contains("\"alerts\":[]"));
    let manifest = "/etc/kubernetes/manifests/kube-scheduler.yaml";
    host.ok(&programs(), &format!("mv {manifest} /opt/kube-scheduler.yaml"));
    until(host, 120, &alerts, |out| {
        out.matches("\"state\":\"firing\"").count() == 1 && out.contains("KubeSchedulerDown")
    });
    host.ok(&programs(), &format!("mv /opt/kube-scheduler.yaml {manifest}"));
    until(host, 120, &alerts, |out| out.contains("\"alerts\":[]"));
}

/// run, exec, attach, logs, cp and port-forward.
fn kubectl_reaches_into_containers(host: &Host) {
    let kubectl = "/opt/timonel/bin/kubectl --kubeconfig /etc/kubernetes/admin.conf";
    let ok = |line: &str| host.ok(&programs(), &line.replace("KUBECTL", kubectl));
    ok("KUBECTL run tools --image=timonel.local/web:v1 --command -- /bin/busybox sh -c \
        '/bin/busybox --install /bin; mkdir -p /tmp; echo started; exec httpd -f -p 8081 -h /www'");
    assert_eq!(ok("KUBECTL wait pod/tools --for=condition=Ready"), "pod/tools condition met\n");
    until(host, 30, &format!("{kubectl} logs tools"), |out| out == "started\n");
    assert_eq!(ok("KUBECTL exec tools -- echo one two"), "one two\n");
    let failed = host.run(&programs(), &format!("{kubectl} exec tools -- sh -c 'echo told >&2; exit 7'"));
    assert_eq!((failed.err.as_str(), failed.code), ("told\ncommand terminated with exit code 7\n", 7));
    assert_eq!(ok("head -c 300000 /dev/zero | KUBECTL exec -i tools -- wc -c"), "300000\n");
    ok("mkdir -p /run/copied/below && echo text >/run/copied/below/file && KUBECTL cp /run/copied tools:/tmp/there");
    assert_eq!(ok("KUBECTL exec tools -- cat /tmp/there/below/file"), "text\n");
    ok("KUBECTL cp tools:/tmp/there /run/back && cmp /run/copied/below/file /run/back/below/file");
    let page = ok("KUBECTL port-forward pod/tools 18081:8081 >/run/forward.log & forward=$!; \
                   curl -sf --retry 30 --retry-connrefused --retry-delay 1 http://127.0.0.1:18081/; kill -INT $forward; wait $forward");
    assert_eq!(page, "hello from timonel\n");
    let echoed = ok("printf data | KUBECTL run once --image=timonel.local/web:v1 --restart=Never --rm -i -q \
                     --command -- /bin/busybox cat");
    assert_eq!(echoed, "data");
    assert_eq!(ok("KUBECTL rollout status deployment/web"), "deployment \"web\" successfully rolled out\n");
    ok("KUBECTL delete pod tools --grace-period=0 --force");
}

/// The hosts of one test at a time: each is a whole machine's work.
static MACHINES: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MACHINES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn quick_start_runs_stops_starts_and_leaves_nothing() {
    let _alone = alone();
    let segment = Segment::new("10.71.0");
    let host = Host::new(&segment, "single", 1);
    let script = format!("TIMONEL_BIN={} bash {}/deploy/quickstart.sh", programs().display(), repository().display());
    let run = |argument: &str| host.ok(&programs(), &format!("{script} {argument}"));
    let first = run("");
    for place in ["(cluster IP)", "(node port)", "(name)"] {
        assert!(first.contains(&format!("{place}: hello from timonel")), "{place} in {first}");
    }
    prometheus_sees_everything(&host);
    kubectl_reaches_into_containers(&host);
    let again = run("");
    assert!(again.contains("(name): hello from timonel") && !again.contains("kubeadm init"), "{again}");
    run("stop");
    assert_eq!(host.run(&programs(), "pgrep -x 'kubelet|kube-apiserver'").out, "");
    run("start");
    let kubectl = "/opt/timonel/bin/kubectl --kubeconfig /etc/kubernetes/admin.conf";
    until(&host, 120, &format!("{kubectl} get deployment web --no-headers"), |out| out.contains(" 3/3 "));
    run("delete");
    assert_eq!(host.run(&programs(), "pgrep -x 'kubelet|kube-apiserver|containerd'").out, "");
    assert_eq!(host.run(&programs(), "iptables-save | grep KUBE; ip6tables-save | grep KUBE").out, "");
    assert_eq!(
        host.run(
            &programs(),
            "grep -E ' (/var/lib/kubelet/|/run/netns/cni)' /proc/mounts; ip -o link show cni0 2>/dev/null"
        )
        .out,
        ""
    );
}

#[test]
fn a_rolling_update_outlives_the_death_of_any_process() {
    let _alone = alone();
    let segment = Segment::new("10.73.0");
    let host = Host::new(&segment, "mortal", 1);
    let script = format!("TIMONEL_BIN={} bash {}/deploy/quickstart.sh", programs().display(), repository().display());
    host.ok(&programs(), &script);
    let image = "ctr -n k8s.io images tag timonel.local/web:v1 timonel.local/web:v2";
    host.ok(&programs(), image);
    let kubectl = stock_line;
    let programs_to_kill = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
    for (round, victim) in programs_to_kill.into_iter().enumerate() {
        let version = if round % 2 == 0 { "v2" } else { "v1" };
        host.ok(&programs(), &kubectl(&format!("create configmap before-{victim} --from-literal=round={round}")));
        host.ok(&programs(), &kubectl(&format!("set image deployment/web web=timonel.local/web:{version}")));
        host.ok(&programs(), &format!("pkill -9 -f '^([^ ]*/)?{victim} '"));
        until(&host, 120, &kubectl("rollout status deployment/web --timeout=10s"), |out| out.contains("successfully"));
        let kept =
            host.ok(&programs(), &kubectl(&format!("get configmap before-{victim} -o jsonpath={{.data.round}}")));
        assert_eq!(kept, round.to_string(), "{victim}");
        let images = "get pods -l app=web -o jsonpath='{range .items[*]}{.metadata.deletionTimestamp} \
                      {.spec.containers[0].image}{\"\\n\"}{end}'";
        let wanted = format!(" timonel.local/web:{version}");
        until(&host, 90, &kubectl(images), |out| {
            let staying: Vec<&str> = out.lines().filter(|line| line.starts_with(' ')).map(str::trim_end).collect();
            staying.len() == 3 && staying.iter().all(|line| line.trim_start() == wanted.trim_start())
        });
        let address = host.ok(&programs(), &kubectl("get service web -o jsonpath={.spec.clusterIP}"));
        until(&host, 60, &format!("curl -sf -m 5 http://{address}/"), |out| out == "hello from timonel\n");
    }
    host.ok(&programs(), &format!("{script} delete"));
}

const KUBELET: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.35.4
networking:
  podSubnet: 10.244.0.0/16
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
failCgroupV1: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, imagefs.available: 0%}
";
const CONTAINERD: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"#;

/// A host with a container runtime and two versions of the example's page.
fn machine(segment: &Segment, name: &str, number: u8) -> Host {
    let host = Host::new(segment, name, number);
    let ok = |line: &str| host.ok(&programs(), line);
    ok(&format!(
        "mkdir -p /run/containerd /opt/page/bin /opt/page/www; cat >/opt/containerd.toml <<'E'\n{CONTAINERD}E"
    ));
    ok("setsid containerd --config /opt/containerd.toml >/var/log/containerd.log 2>&1 </dev/null &");
    until(&host, 30, "ctr version", |_| true);
    // The programs pass for those of an earlier version, so that there is something to upgrade to.
    ok("kubeadm config images pull && for image in $(ctr -n k8s.io images ls -q name~=:v1.36.0); do \
        ctr -n k8s.io images tag $image ${image%:*}:v1.35.4; done");
    ok("cp /bin/busybox /opt/page/bin/busybox");
    for version in ["v1", "v2"] {
        let image = format!("timonel.local/web:{version}");
        let entry = r#"["/bin/busybox","httpd","-f","-p","8080","-h","/www"]"#;
        let script = format!("{}/deploy/examples/image.sh", repository().display());
        ok(&format!("echo page {version} >/opt/page/www/index.html"));
        ok(&format!(
            "bash {script} {image} /opt/page /opt/page.tar '{entry}' && ctr -n k8s.io images import /opt/page.tar"
        ));
    }
    host
}

/// A command line of the stock kubectl, as an administrator.
fn stock_line(arguments: &str) -> String {
    let stock = Kubectl::stock().pop().expect("a stock kubectl");
    format!("{} --kubeconfig /etc/kubernetes/admin.conf {arguments}", stock.display())
}

/// Three machines: a control plane with etcd, and two workers.
struct Cluster {
    master: Host,
    workers: [Host; 2],
    _segment: Segment,
}

impl Cluster {
    fn new() -> Self {
        let segment = Segment::new("10.72.0");
        let master = machine(&segment, "master", 1);
        let workers = [machine(&segment, "worker1", 2), machine(&segment, "worker2", 3)];
        let ok = |host: &Host, line: &str| host.ok(&programs(), line);
        ok(&master, &format!("cat >/opt/kubeadm.yaml <<'E'\n{KUBELET}E"));
        ok(&master, "kubeadm init --config /opt/kubeadm.yaml --ignore-preflight-errors=all");
        let join = ok(&master, "kubeadm token create --print-join-command");
        for worker in &workers {
            let joined = ok(worker, &format!("{} --ignore-preflight-errors=all", join.trim()));
            assert!(joined.contains("This node has joined the cluster"), "{joined}");
        }
        Self { master, workers, _segment: segment }
    }

    /// Runs the stock kubectl on the control plane.
    fn kubectl(&self, arguments: &str) -> String {
        self.master.ok(&programs(), &stock_line(arguments))
    }

    fn until(&self, limit: u64, arguments: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(&self.master, limit, &stock_line(arguments), wanted)
    }

    fn rollout(&self) {
        self.kubectl("rollout status deployment/web --timeout=120s");
    }

    /// Name, node and address of the example's Pods that are to stay.
    fn pods(&self) -> Vec<[String; 3]> {
        let path = "{range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP} {.metadata.deletionTimestamp}{\"\\n\"}{end}";
        let all = self.kubectl(&format!("get pods -l app=web -o jsonpath='{path}'"));
        let pods = all.lines().filter_map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let pod = [words.next()?, words.next()?, words.next()?];
            words.next().is_none_or(|deleted| deleted.is_empty()).then_some(pod)
        });
        pods.collect()
    }

    /// From one version to the next, the control plane first.
    fn upgrades(&self) {
        let ok = |host: &Host, line: &str| host.ok(&programs(), line);
        let plan = ok(&self.master, "kubeadm upgrade plan --ignore-preflight-errors=all");
        assert!(plan.contains("\n\tkubeadm upgrade apply v1.36.0\n"), "{plan}");
        let row = ["kube-apiserver", "master", "v1.35.4", "v1.36.0"];
        let has_row = plan.lines().any(|line| line.split_whitespace().eq(row));
        assert!(has_row, "{plan}");
        let diff = ok(&self.master, "kubeadm upgrade diff v1.36.0");
        assert!(diff.contains("-    image: registry.k8s.io/kube-scheduler:v1.35.4\n+"), "{diff}");
        let before = ok(&self.master, "cat /etc/kubernetes/pki/apiserver.crt");
        let done = ok(&self.master, "kubeadm upgrade apply -y v1.36.0 --ignore-preflight-errors=all");
        assert!(done.contains("Current and new manifests of etcd are equal, skipping upgrade"), "{done}");
        let last = "SUCCESS! A control plane node of your cluster was upgraded to \"v1.36.0\".";
        assert!(done.contains(last), "{done}");
        assert_ne!(ok(&self.master, "cat /etc/kubernetes/pki/apiserver.crt"), before, "certificates are renewed");
        for worker in &self.workers {
            let done = ok(worker, "kubeadm upgrade node --ignore-preflight-errors=all");
            assert!(done.contains("Skipping phase. Not a control plane node."), "{done}");
            assert!(done.contains("The configuration for this node was successfully updated!"), "{done}");
        }
        let images = "get pods -n kube-system -o jsonpath='{range .items[*]}{.spec.containers[0].image}{\"\\n\"}{end}'";
        self.until(120, images, |out| !out.contains(":v1.35.4"));
        self.until(120, "get pods -n kube-system --no-headers", |out| out.lines().all(|line| line.contains(" 1/1 ")));
        let nothing = ok(&self.master, "kubeadm upgrade plan --ignore-preflight-errors=all");
        assert!(!nothing.contains("kubeadm upgrade apply"), "{nothing}");
    }

    /// Certificates are renewed and etcd is saved without anybody asking.
    fn keeps_itself_up(&self) {
        let ok = |line: &str| self.master.ok(&programs(), line);
        until(&self.master, 120, "ls /var/lib/etcd-snapshots/etcd-*.db", |out| out.lines().count() == 1);
        let metrics = "curl -sf http://127.0.0.1:10261/metrics";
        until(&self.master, 60, metrics, |out| {
            ["apiserver", "etcd-server", "scheduler.conf", "ca"].iter().all(|name| {
                out.contains(&format!("kubeadm_certificate_expiration_timestamp_seconds{{name=\"{name}\"}} "))
            })
        });
        let files = "cat /etc/kubernetes/pki/apiserver.crt; cat /etc/kubernetes/pki/etcd/server.crt; \
                     grep client-certificate-data /etc/kubernetes/scheduler.conf";
        let before = ok(files);
        ok("kubeadm upkeep --once --snapshot-interval=0");
        assert_eq!(ok(files), before, "nothing is due");
        let serial = "echo | openssl s_client -connect 127.0.0.1:6443 2>/dev/null | openssl x509 -noout -serial";
        let (served, told) = (ok(serial), ok("kubeadm upkeep --once --renew-at=100 --snapshot-interval=0"));
        assert!(told.contains("[upkeep] Renewed certificates of kube-apiserver: apiserver, "), "{told}");
        let after = ok(files);
        assert!(after.lines().count() == before.lines().count() && after != before, "{after}");
        assert_ne!(ok(serial), served);
        let events =
            "get events --field-selector=reason=CertificatesRenewed -o jsonpath='{.items[*].involvedObject.name}'";
        assert_eq!(self.kubectl(events), "master master master master master");
    }

    fn page_from(&self, pod: &str, address: &str) -> String {
        self.kubectl(&format!("exec {pod} -- /bin/busybox timeout 5 /bin/busybox wget -q -O - http://{address}/"))
    }
}

#[test]
fn three_machines_run_update_lose_and_drain() {
    let _alone = alone();
    let mut cluster = Cluster::new();
    let nodes = |out: &str| out.lines().filter(|line| line.contains(" Ready ")).count() == 3;
    cluster.until(120, "get nodes --no-headers", nodes);
    cluster.kubectl(&format!("apply -f {}/deploy/examples/deploy.yaml", repository().display()));
    cluster.rollout();

    // Pods of both workers reach each other, the Service, and its name.
    let pods = cluster.pods();
    let on =
        |node: &str| pods.iter().find(|pod| pod[1] == node).unwrap_or_else(|| panic!("no Pod on {node}: {pods:?}"));
    let (near, far) = (on("worker1"), on("worker2"));
    assert_eq!(cluster.page_from(&near[0], &format!("{}:8080", far[2])), "page v1\n");
    // Every node's rules and the name server follow a change within seconds, not before the rollout is reported.
    let service = cluster.kubectl("get service web -o jsonpath={.spec.clusterIP}");
    let inside = |pod: &str, words: &str| format!("exec {pod} -- /bin/busybox {words}");
    let fetch = format!("timeout 5 /bin/busybox wget -q -O - http://{service}/");
    cluster.until(20, &inside(&far[0], &fetch), |page| page == "page v1\n");
    let look_up = inside(&near[0], "nslookup web.default.svc.cluster.local");
    cluster.until(20, &look_up, |answer| answer.contains(&service));
    for host in [&cluster.master, &cluster.workers[0], &cluster.workers[1]] {
        until(host, 20, &format!("curl -sf -m 5 http://{service}/"), |page| page == "page v1\n");
        let port = format!("curl -sf -m 5 http://{}:30080/", host.address());
        until(&cluster.master, 20, &port, |page| page == "page v1\n");
    }

    // Rolling update, rollback, scale. Rules follow the endpoints within seconds.
    let becomes = |wanted: &str| {
        let every = format!("for i in $(seq 10); do curl -sf -m 5 http://{service}/ || exit 1; done");
        until(&cluster.master, 20, &every, |out| out.lines().all(|line| line == wanted));
    };
    cluster.kubectl("set image deployment/web web=timonel.local/web:v2");
    cluster.rollout();
    becomes("page v2");
    cluster.kubectl("rollout undo deployment/web");
    cluster.rollout();
    becomes("page v1");
    cluster.kubectl("scale deployment/web --replicas=5");
    cluster.rollout();
    assert_eq!(cluster.pods().len(), 5);

    cluster.upgrades();
    cluster.keeps_itself_up();
    becomes("page v1");

    // Streams.
    let pod = &cluster.pods()[0][0];
    let forwarded = format!(
        "{} & p=$!; trap 'kill $p' EXIT; until curl -sf -m 2 http://127.0.0.1:18080/; do sleep 0.2; done",
        stock_line(&format!("port-forward {pod} 18080:8080 >/dev/null"))
    );
    assert_eq!(cluster.master.ok(&programs(), &forwarded), "page v1\n");
    cluster.kubectl(
        "run counter --image=timonel.local/web:v1 --restart=Never --command -- /bin/busybox sh -c \
                     'for i in 1 2 3; do echo line $i; sleep 1; done'",
    );
    cluster.kubectl("wait --for=condition=Ready pod/counter --timeout=60s");
    assert_eq!(cluster.kubectl("logs -f counter"), "line 1\nline 2\nline 3\n");

    // A drained node has no Pods but those of DaemonSets.
    cluster.kubectl("drain worker1 --ignore-daemonsets --delete-emptydir-data --force --timeout=120s");
    cluster.rollout();
    assert!(cluster.pods().iter().all(|pod| pod[1] == "worker2"), "{:?}", cluster.pods());
    cluster.kubectl("uncordon worker1");

    // A lost node's Pods are replaced elsewhere once they no longer tolerate that.
    let patch = r#"{"spec":{"template":{"spec":{"tolerations":[
        {"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":2},
        {"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":2}]}}}}"#;
    cluster.kubectl(&format!("patch deployment web -p '{patch}'"));
    cluster.rollout();
    cluster.workers[1].power_off();
    cluster.until(120, "get node worker2 --no-headers", |out| out.contains("NotReady"));
    let elsewhere = "get pods -l app=web --field-selector=spec.nodeName=worker1 --no-headers";
    cluster.until(120, elsewhere, |out| out.lines().filter(|line| line.contains("1/1   Running")).count() == 5);
    becomes("page v1");
}
