//! A kubelet on a host of its own, with a real container runtime.

#[path = "node/containers.rs"]
mod containers;
#[path = "node/power.rs"]
mod power;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use harness::{Host, Segment, process::binary};

/// A flag of kubelets that have an API server.
const JOINED: &str = "--kubeconfig=/etc/kubelet.conf";
const IMAGE: &str = "timonel.local/box:1";
const BOOTSTRAP: &str = "apiVersion: v1\nkind: Config\ncurrent-context: b\n\
    clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443', insecure-skip-tls-verify: true}}]\n\
    users: [{name: u, user: {token: TOKEN}}]\ncontexts: [{name: b, context: {cluster: c, user: u}}]\n";

/// One machine at a time.
static MACHINES: Mutex<()> = Mutex::new(());

/// A host with containerd and one image of busybox.
struct Machine {
    host: Host,
    _segment: Segment,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Imports an image whose containers run `entrypoint`.
    fn import(&self, image: &str, entrypoint: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned();
        let script = script.join("deploy/examples/image.sh");
        self.ok(&format!(
            "mkdir -p /tmp/box/bin && cp /bin/busybox /tmp/box/bin/ && for n in sh sleep cat dd; do \
             ln -sf busybox /tmp/box/bin/$n; done && bash {} {image} /tmp/box /tmp/box.tar '{entrypoint}' && \
             ctr -n k8s.io images import /tmp/box.tar && rm -rf /tmp/box /tmp/box.tar",
            script.display()
        ));
    }

    fn new(network: &str) -> Self {
        let alone = MACHINES.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = Segment::new(network);
        let machine = Self { host: Host::new(&segment, "node", 1), _segment: segment, _alone: alone };
        machine.write("/etc/cni/net.d/10-bridge.conflist", BRIDGE);
        machine.write("/etc/containerd.toml", &CONTAINERD.replace("IMAGE", IMAGE));
        machine.start("containerd", "containerd --config /etc/containerd.toml");
        machine.until("ctr version", |_| true);
        machine.import(IMAGE, r#"["/bin/busybox","sleep","1000000"]"#);
        machine
    }

    fn programs() -> PathBuf {
        binary("kubelet").parent().expect("a directory").to_owned()
    }

    fn ok(&self, line: &str) -> String {
        self.host.ok(&Self::programs(), line)
    }

    /// Repeats a command until it succeeds with the wanted output.
    fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let output = self.host.run(&Self::programs(), line);
            if output.code == 0 && wanted(&output.out) {
                return output.out;
            }
            let late = start.elapsed() > Duration::from_secs(90);
            assert!(
                !late,
                "waited for {line}: {}{}\n{}",
                output.out,
                output.err,
                self.ok("tail -n 60 /var/log/kubelet.log; true")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn write(&self, path: &str, text: &str) {
        let end = "END-OF-FILE";
        self.ok(&format!("mkdir -p $(dirname {path}) && cat >{path} <<'{end}'\n{text}\n{end}"));
    }

    /// Starts a program in the background; its log and its id stand below `/var/log` and `/run`.
    fn start(&self, name: &str, line: &str) {
        self.ok(&format!("setsid {line} >>/var/log/{name}.log 2>&1 </dev/null & echo $! >/run/{name}.pid"));
    }

    fn end(&self, name: &str) {
        self.ok(&format!(
            "kill $(cat /run/{name}.pid); while kill -0 $(cat /run/{name}.pid) 2>/dev/null; do sleep 0.1; done"
        ));
    }

    /// Starts a kubelet with more configuration and flags.
    fn start_kubelet(&self, config: &str, flags: &str) {
        // The disk of the machine is shared, and may be fuller than a node likes.
        let eviction = if config.contains("evictionHard") { "" } else { "evictionHard: {nodefs.available: 0%}\n" };
        self.write("/etc/kubelet.yaml", &format!("{KUBELET}{config}{eviction}"));
        self.ok("mkdir -p /etc/manifests");
        self.start("kubelet", &format!("kubelet --config=/etc/kubelet.yaml {flags}"));
    }

    /// A host with a control plane and a kubelet that has joined it and may run Pods of the default namespace.
    fn joined(network: &str, config: &str) -> Self {
        let machine = Self::new(network);
        machine.start_control_plane();
        machine.ok("cp /etc/admin.conf /etc/kubelet.conf");
        machine.start_kubelet(config, JOINED);
        machine.until(&machine.kubectl("get serviceaccount default"), |_| true);
        machine.until(&machine.kubectl("get node node"), |_| true);
        machine
    }

    /// A command that tells phase, reason and message of a Pod.
    fn status(&self, pod: &str) -> String {
        self.kubectl(&format!("get pod {pod} -o jsonpath='{{.status.phase}} {{.status.reason}} {{.status.message}}'"))
    }

    fn kubectl(&self, line: &str) -> String {
        format!("kubectl --kubeconfig /etc/admin.conf {line}")
    }

    /// An API server with a controller manager that signs certificates of nodes.
    fn start_control_plane(&self) {
        self.write("/etc/admin.conf", &BOOTSTRAP.replace("TOKEN", "admin"));
        self.write("/etc/tokens.csv", "admin,admin,1,\"system:masters\"\njoin,joiner,2,\"system:bootstrappers\"");
        self.ok("kubeadm init phase certs ca && kubeadm init phase certs apiserver-kubelet-client");
        let flags = "--bind-address=127.0.0.1 --secure-port=6443 --cert-dir=/var/lib/timonel/certs \
             --embedded-store-dir=/var/lib/timonel/store --token-auth-file=/etc/tokens.csv \
             --client-ca-file=/etc/kubernetes/pki/ca.crt --authorization-mode=Node,RBAC --allow-privileged=true \
             --kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt \
             --kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key";
        self.start("kube-apiserver", &format!("kube-apiserver {flags}"));
        self.until(&self.kubectl("get --raw /readyz"), |out| out == "ok");
        self.write("/etc/roles.yaml", ROLES);
        self.ok(&self.kubectl("apply --server-side -f /etc/roles.yaml"));
        self.start(
            "kube-controller-manager",
            "kube-controller-manager --kubeconfig=/etc/admin.conf --leader-elect=false \
             --cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt \
             --cluster-signing-key-file=/etc/kubernetes/pki/ca.key",
        );
    }

    fn tasks(&self) -> String {
        self.ok("ctr -n k8s.io tasks ls -q | sort")
    }
}

const CONTAINERD: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "IMAGE"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"#;

const BRIDGE: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "bridge": "cni0",
  "isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}}]}"#;

const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
    staticPodPath: /etc/manifests\nfailSwapOn: false\nfailCgroupV1: false\nrotateCertificates: true\nimageGCHighThresholdPercent: 100\n\
    authentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}\n";

const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: join}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node-bootstrapper}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:bootstrappers}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: approve}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole,
  name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:bootstrappers}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: proxy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:kubelet-api-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client}]
"#;

const STATIC: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: kube-system}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 3
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
"#;

#[test]
fn static_pods_run_before_the_first_certificate() {
    let machine = Machine::new("10.75.0");
    machine.write("/etc/bootstrap.conf", &BOOTSTRAP.replace("TOKEN", "join"));
    machine.ok("kubeadm init phase certs ca");
    machine.write("/etc/manifests/early.yaml", STATIC);
    machine.start_kubelet("", "--bootstrap-kubeconfig=/etc/bootstrap.conf --kubeconfig=/etc/kubelet.conf");
    machine.until("ctr -n k8s.io tasks ls | grep -c RUNNING", |out| out.trim() == "2");
    let before = machine.tasks();
    let refused = machine
        .ok("curl -sk -o /dev/null -m 5 -w '%{http_code}' -H 'Authorization: Bearer x' https://127.0.0.1:10250/pods");
    assert_eq!(refused, "401");
    machine.start_control_plane();
    machine.until(
        &machine.kubectl("get node node -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'"),
        |out| out == "True",
    );
    machine.until(&machine.kubectl("get pod early-node -n kube-system -o jsonpath='{.status.phase}'"), |out| {
        out == "Running"
    });
    assert_eq!(machine.tasks(), before, "nothing was restarted");
    assert_eq!(machine.ok("curl -sf http://127.0.0.1:10248/healthz"), "ok");
    // A manifest that comes back while its Pod is being stopped.
    machine.ok("mv /etc/manifests/early.yaml /tmp/early.yaml");
    machine.until(&machine.kubectl("get events -n kube-system"), |out| out.contains("Stopping container c"));
    machine.ok("mv /tmp/early.yaml /etc/manifests/early.yaml");
    machine.until("ctr -n k8s.io tasks ls -q | sort", |out| out.lines().count() == 2 && out != before);
    machine.end("kubelet");
}

const LIMITED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: limited, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    command: [sh, -c, "dd if=/dev/zero of=/scratch/file bs=1M count=4; sleep 1000"]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
---
apiVersion: v1
kind: Pod
metadata: {name: steady, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
"#;

#[test]
fn use_is_told_and_limited() {
    let machine = Machine::new("10.76.0");
    machine.start_control_plane();
    machine.ok("cp /etc/admin.conf /etc/kubelet.conf");
    machine.start_kubelet("volumeStatsAggPeriod: 1s\n", "--kubeconfig=/etc/kubelet.conf");
    let node = "get node node -o jsonpath='{.status.conditions[?(@.type==\"TYPE\")].status}'";
    machine.until(&machine.kubectl(&node.replace("TYPE", "Ready")), |out| out == "True");
    machine.until(&machine.kubectl("get serviceaccount default"), |_| true);
    machine.write("/etc/pods.yaml", LIMITED);
    machine.ok(&machine.kubectl("apply --server-side -f /etc/pods.yaml"));
    let status = |pod: &str| {
        machine
            .kubectl(&format!("get pod {pod} -o jsonpath='{{.status.phase}} {{.status.reason}} {{.status.message}}'"))
    };
    machine.until(&status("steady"), |out| out.starts_with("Running"));
    let proxy = |path: &str| machine.kubectl(&format!("get --raw /api/v1/nodes/node/proxy/{path}"));
    let shows = |path: &str, parts: &[&str]| {
        machine.until(&proxy(path), |out| parts.iter().all(|part| out.contains(part)));
    };
    let fields = [
        "usageNanoCores",
        "workingSetBytes",
        "\"rootfs\"",
        "\"imageFs\"",
        "maxpid",
        "\"name\":\"eth0\"",
        "ephemeral-storage",
    ];
    shows("stats/summary", &fields);
    let series = [
        "container_cpu_usage_seconds_total{container=\"c\",cpu=\"total\",id=\"/kubepods/besteffort/pod",
        "container_network_receive_bytes_total{container=\"\",id=",
        "container_memory_working_set_bytes{container=\"c\"",
        "container_memory_max_usage_bytes{container=\"c\"",
        "container_fs_usage_bytes{container=\"c\",device=\"/dev/",
        "container_cpu_usage_seconds_total{container=\"\",cpu=\"total\",id=\"/kubepods/besteffort\"",
        "container_scrape_error 0",
        "machine_scrape_error 0",
        "machine_cpu_cores ",
    ];
    shows("metrics/cadvisor", &series);
    shows("metrics/resource", &["pod_memory_working_set_bytes{namespace=\"default\",pod=\"steady\"}"]);
    let own = [
        "kubelet_running_pods ",
        "process_cpu_seconds_total",
        "rest_client_requests_total",
        "kubernetes_build_info",
        "kubelet_cgroup_version ",
        "kubelet_node_startup_duration_seconds ",
        "kubelet_pod_start_sli_duration_seconds_count ",
        "kubelet_pod_worker_duration_seconds_count{operation_type=\"create\"}",
        "kubelet_image_manager_ensure_image_requests_total{",
        "kubelet_container_log_filesystem_used_bytes{container=\"c\",",
        "kubelet_run_podsandbox_duration_seconds_count{runtime_handler=\"\"}",
        "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"} 1",
        "storage_operation_duration_seconds_count{migrated=\"false\",operation_name=\"volume_mount\",",
    ];
    shows("metrics", &own);
    // This runtime writes no containers to disk.
    for (place, told) in [
        ("default/steady/c", "checkpointing of default/steady/c failed"),
        ("default/nobody/c", "pod does not exist"),
        ("default/steady/other", "container other does not exist"),
    ] {
        let post = "curl -sk -X POST -H 'Authorization: Bearer admin' https://127.0.0.1:10250/checkpoint";
        let output = machine.ok(&format!("{post}/{place}"));
        assert!(output.contains(told), "{output}");
    }
    let anonymous = machine.ok("curl -sk -X POST https://127.0.0.1:10250/checkpoint/default/steady/c");
    assert_eq!(anonymous, "Unauthorized", "CVE-2025-0426");
    let evicted = machine.until(&status("limited"), |out| out.starts_with("Failed"));
    assert_eq!(evicted.trim_end(), "Failed Evicted Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\".");
    machine.end("kubelet");
    machine.start_kubelet("evictionHard: {memory.available: 1Ti}\n", "--kubeconfig=/etc/kubelet.conf");
    machine.until(&status("steady"), |out| out.starts_with("Failed Evicted The node was low on resource: memory. "));
    machine.until(&machine.kubectl(&node.replace("TYPE", "MemoryPressure")), |out| out == "True");
    machine.ok(&machine.kubectl("delete pod limited steady --timeout=60s"));
    machine.ok(&machine.kubectl("apply --server-side -f /etc/pods.yaml"));
    let refused = machine.until(&status("steady"), |out| out.starts_with("Failed"));
    assert_eq!(refused.trim_end(), "Failed Evicted Pod was rejected: The node had condition: [MemoryPressure].");
    machine.ok(&machine.kubectl("delete pod limited steady --timeout=60s"));
    machine.end("kubelet");
}

#[test]
fn a_full_disk_costs_the_node_its_own_garbage_first() {
    let machine = Machine::new("10.77.0");
    machine.start_control_plane();
    machine.ok("cp /etc/admin.conf /etc/kubelet.conf");
    machine.import("timonel.local/unused:1", r#"["/bin/busybox","true"]"#);
    machine.write("/etc/manifests/early.yaml", STATIC);
    machine.start_kubelet("", JOINED);
    machine.until("ctr -n k8s.io tasks ls | grep -c RUNNING", |out| out.trim() == "2");
    machine.end("kubelet");
    // A dead container of a Pod that nobody wants any more, with its logs.
    machine.ok("rm /etc/manifests/early.yaml");
    let logs = machine.ok("ls /var/log/pods");
    assert!(logs.contains("kube-system_early-node_"), "{logs}");
    machine.start_kubelet("evictionHard: {imagefs.available: 1Pi}\n", JOINED);
    machine.until("ctr -n k8s.io images ls -q", |out| !out.contains("unused"));
    let pressure = "get node node -o jsonpath='{.status.conditions[?(@.type==\"DiskPressure\")].status}'";
    machine.until(&machine.kubectl(pressure), |out| out == "True");
    machine.until("ctr -n k8s.io containers ls -q | wc -l", |out| out.trim() == "0");
    machine.until("ls /var/log/pods /var/log/containers", |out| !out.contains("early"));
    assert!(machine.ok("ctr -n k8s.io images ls -q").contains(IMAGE), "the image of sandboxes stays");
    let events = machine.ok(&machine.kubectl("get events -o jsonpath='{.items[*].message}'"));
    assert!(events.contains("Attempting to reclaim ephemeral-storage"), "{events}");
    machine.end("kubelet");
}

const VOLUMES: &str = r#"
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: dirs.timonel.test}
spec:
  attachRequired: false
  podInfoOnMount: true
  fsGroupPolicy: File
  volumeLifecycleModes: [Persistent, Ephemeral]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: kept}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  csi: {driver: dirs.timonel.test, volumeHandle: kept-handle}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept, namespace: default}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  volumeName: kept
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 4321}
  volumes:
  - name: kept
    persistentVolumeClaim: {claimName: kept}
  - name: brief
    csi: {driver: dirs.timonel.test}
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    command: [sh, -c, "echo $NAMES >/kept/file; echo brief >/brief/file; sleep 1000"]
    resources: {limits: {timonel.test/name: "1"}}
    volumeMounts: [{name: kept, mountPath: /kept}, {name: brief, mountPath: /brief}]
"#;
/// What a driver published that the kubelet does not know yet.
const SLICE: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: old}
spec: {driver: gone.timonel.test, nodeName: node, pool: {name: node, generation: 1, resourceSliceCount: 1}}
"#;
const GREEDY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: greedy, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    resources: {limits: {timonel.test/name: "2"}}
"#;

#[test]
fn plugins_give_volumes_and_devices() {
    let machine = Machine::new("10.78.0");
    machine.start_control_plane();
    machine.ok("cp /etc/admin.conf /etc/kubelet.conf");
    machine.write("/etc/slice.yaml", SLICE);
    machine.ok(&machine.kubectl("create -f /etc/slice.yaml"));
    machine.start("csi", "node-plugin csi dirs.timonel.test /opt/dirs");
    machine.start("devices", "node-plugin devices timonel.test/name 2");
    machine.start_kubelet("", JOINED);
    let driver = "get csinode node -o jsonpath='{.spec.drivers[*].nodeID} {.spec.drivers[*].allocatable.count}'";
    machine.until(&machine.kubectl(driver), |out| out == "this-node 7");
    let node = machine.ok(&machine.kubectl("get node node -o yaml"));
    for text in
        ["topology.timonel.test/place: here", r#"csi.volume.kubernetes.io/nodeid: '{"dirs.timonel.test":"this-node"}'"#]
    {
        assert!(node.contains(text), "{text} in {node}");
    }
    let names = "get node node -o jsonpath='{.status.allocatable.timonel\\.test/name}'";
    machine.until(&machine.kubectl(names), |out| out == "2");
    machine.until(&machine.kubectl("get resourceslices -o name"), |out| out.is_empty());
    machine.until(&machine.kubectl("get serviceaccount default"), |_| true);
    machine.write("/etc/volumes.yaml", VOLUMES);
    machine.ok(&machine.kubectl("apply --server-side -f /etc/volumes.yaml"));
    machine.until(&machine.status("writer"), |out| out.starts_with("Running"));
    machine.until("cat /opt/dirs/kept-handle/file", |out| out.trim() == "name0" || out.trim() == "name1");
    machine.until("cat /opt/dirs/csi-*/file", |out| out.trim() == "brief");
    assert_eq!(machine.ok("stat -c %g /opt/dirs/kept-handle").trim(), "4321");
    machine.write("/etc/greedy.yaml", GREEDY);
    machine.ok(&machine.kubectl("apply --server-side -f /etc/greedy.yaml"));
    let refused = machine.until(&machine.status("greedy"), |out| out.starts_with("Failed"));
    assert_eq!(
        refused.trim_end(),
        "Failed UnexpectedAdmissionError Pod was rejected: Allocate failed due to requested number of devices unavailable for timonel.test/name. Requested: 2, Available: 1, which is unexpected"
    );
    assert!(machine.ok("cat /var/log/csi.log").contains("csi.storage.k8s.io/pod.name"));
    let summary = machine.kubectl("get --raw /api/v1/nodes/node/proxy/stats/summary");
    machine.until(&summary, |out| out.contains("\"capacityBytes\":1000"));
    // A kubelet that starts anew knows what the last one did.
    machine.end("kubelet");
    machine.start_kubelet("", JOINED);
    machine.until(&machine.kubectl(names), |out| out == "2");
    let grow = r#"patch pv kept --type=merge -p '{"spec":{"capacity":{"storage":"2Gi"}}}'"#;
    machine.ok(&machine.kubectl(grow));
    machine.ok(&machine.kubectl("annotate pod writer look=again"));
    let capacity = "get pvc kept -o jsonpath='{.status.capacity.storage}'";
    machine.until(&machine.kubectl(capacity), |out| out == "2Gi");
    assert!(machine.ok("cat /var/log/csi.log").contains("expand 2147483648"));
    machine.ok(&machine.kubectl("delete pod writer greedy --timeout=60s"));
    let calls = machine.ok("cat /var/log/csi.log");
    assert!(calls.contains("unpublish kept-handle") && calls.contains("unstage kept-handle"), "{calls}");
    assert_eq!(machine.ok("grep -c dirs /proc/mounts; true").trim(), "0");
    machine.until("ls /var/lib/kubelet/pods | wc -l", |out| out.trim() == "0");
    assert_eq!(machine.ok("cat /opt/dirs/kept-handle/file | wc -l").trim(), "1", "the data stays");
    machine.end("csi");
    machine.ok("rm /var/lib/kubelet/plugins_registry/*");
    machine.until(&machine.kubectl("get csinode node -o jsonpath='{.spec.drivers}'"), |out| !out.contains("dirs"));
    machine.end("devices");
    machine.until(&machine.kubectl(names), |out| out == "0");
    machine.end("kubelet");
}
