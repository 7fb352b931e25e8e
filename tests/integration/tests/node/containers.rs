//! What becomes of containers while their Pod stays: resized, restarted together, refused.

use crate::{JOINED, Machine};

const SIZED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sized, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  volumes: [{name: memory, emptyDir: {medium: Memory}}]
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    command: [sh, -c, "dd if=/dev/zero of=/memory/file bs=1M count=32; sleep 1000000"]
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}
    volumeMounts: [{name: memory, mountPath: /memory}]
  - name: d
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    resources: {requests: {cpu: 500m}}
"#;

#[test]
fn pods_are_resized_where_they_run() {
    let cores = std::thread::available_parallelism().expect("processors").get();
    // One core for Pods.
    let config = format!("kubeReserved: {{cpu: '{}'}}\n", cores - 1);
    let machine = Machine::joined("10.79.0", &config);
    machine.write("/etc/sized.yaml", SIZED);
    machine.ok(&machine.kubectl("apply --server-side -f /etc/sized.yaml"));
    let of = |path: &str| machine.kubectl(&format!("get pod sized -o jsonpath='{path}'"));
    let ready = "{.status.containerStatuses[*].ready} {.status.resources.limits.memory}";
    machine.until(&of(ready), |out| out == "true true 128Mi");
    let file = |container: &str, path: &str| {
        let id = machine.ok(&of(&format!("{{.status.containerStatuses[?(@.name==\"{container}\")].containerID}}")));
        let uid = machine.ok(&of("{.metadata.uid}"));
        let id = id.trim_start_matches("containerd://").to_owned();
        let group = if container == "pod" { String::new() } else { format!("/{id}") };
        let (controller, file) = path.split_once('/').expect("a controller");
        machine
            .ok(&format!("cat /sys/fs/cgroup/{controller}/kubepods/burstable/pod{uid}{group}/{file}"))
            .trim()
            .to_owned()
    };
    let resize = |container: &str, resources: &str| {
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"{container}","resources":{resources}}}]}}}}"#);
        machine.kubectl(&format!("patch pod sized --subresource=resize -p '{patch}'"))
    };
    let condition = |name: &str, field: &str| of(&format!("{{.status.conditions[?(@.type==\"{name}\")].{field}}}"));
    let settled = |allocated: &str| {
        let path = "{.status.containerStatuses[?(@.name==\"c\")].resources.limits.cpu} \
                    {.status.containerStatuses[?(@.name==\"c\")].allocatedResources.cpu}";
        machine.until(&of(path), |out| out == allocated);
        machine.until(&condition("PodResizeInProgress", "status"), str::is_empty);
    };
    assert_eq!(file("c", "cpu/cpu.cfs_quota_us"), "20000");
    assert_eq!(file("pod", "cpu/cpu.cfs_quota_us"), "30000");

    machine.ok(&resize("c", r#"{"requests":{"cpu":"300m"},"limits":{"cpu":"400m","memory":"96Mi"}}"#));
    settled("400m 300m");
    assert_eq!(file("c", "cpu/cpu.cfs_quota_us"), "40000");
    assert_eq!(file("c", "cpu/cpu.shares"), "307");
    assert_eq!(file("pod", "cpu/cpu.cfs_quota_us"), "50000");
    assert_eq!(file("c", "memory/memory.limit_in_bytes"), "100663296");
    assert_eq!(file("pod", "memory/memory.limit_in_bytes"), "167772160");
    assert_eq!(machine.ok(&of("{.status.containerStatuses[*].restartCount}")), "0 0");

    // Less memory than is in use.
    machine.ok(&resize("c", r#"{"requests":{"memory":"16Mi"},"limits":{"memory":"16Mi"}}"#));
    let refused = machine.until(&condition("PodResizeInProgress", "message"), |out| !out.is_empty());
    assert!(
        refused.starts_with(
            "cannot decrease memory limits: attempting to set container \"c\" memory limit (16777216) below current usage ("
        ),
        "{refused}"
    );
    assert_eq!(machine.ok(&condition("PodResizeInProgress", "reason")), "Error");
    machine.ok(&resize("c", r#"{"requests":{"memory":"64Mi"},"limits":{"memory":"96Mi"}}"#));
    settled("400m 300m");

    // A container that has to start anew for it.
    machine.ok(&resize("d", r#"{"requests":{"memory":"80Mi"},"limits":{"memory":"80Mi"}}"#));
    machine.until(&of("{.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].ready}"), |out| {
        out == "0 1 true true"
    });
    settled("400m 300m");
    assert_eq!(file("d", "memory/memory.limit_in_bytes"), "83886080");

    // More than there is room for waits, over a restart of the kubelet too, and comes when there is room.
    machine.ok(&resize("c", r#"{"requests":{"cpu":"600m"},"limits":{"cpu":"600m"}}"#));
    let waits = machine.until(&condition("PodResizePending", "message"), |out| !out.is_empty());
    assert_eq!(waits, "Node didn't have enough resource: cpu, requested: 700, used: 500, capacity: 1000");
    assert_eq!(machine.ok(&condition("PodResizePending", "reason")), "Deferred");
    machine.end("kubelet");
    machine.start_kubelet(&config, JOINED);
    machine.until("curl -sf http://127.0.0.1:10248/healthz", |out| out == "ok");
    assert_eq!(file("c", "cpu/cpu.cfs_quota_us"), "40000");
    machine.ok(&machine.kubectl("delete pod other --timeout=60s"));
    settled("600m 600m");
    assert_eq!(file("c", "cpu/cpu.cfs_quota_us"), "60000");
    assert_eq!(machine.ok(&condition("PodResizePending", "status")), "");
    machine.ok(&resize("c", r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"200m"}}"#));
    settled("200m 100m");
    assert_eq!(file("pod", "cpu/cpu.cfs_quota_us"), "30000");
    assert_eq!(machine.ok(&of("{.status.containerStatuses[*].restartCount}")), "0 1");
    let events = machine.ok(&machine.kubectl("get events -o jsonpath='{.items[*].message}'"));
    for text in [
        "Pod resize started: {\"containers\":[{\"name\":\"c\",",
        "Pod resize OutOfcpu: {\"containers\":",
        "Pod resize error: {\"containers\":",
        "Container d resize requires restart",
        "Pod resize completed: {\"containers\":",
    ] {
        assert!(events.contains(text), "{text} in {events}");
    }
    machine.ok(&machine.kubectl("delete pod sized --timeout=60s"));
    machine.until("cat /var/lib/kubelet/allocated_pods_state", |out| !out.contains("ContainerResources"));
    machine.end("kubelet");
}

const SPECIAL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: anew, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  volumes: [{name: kept, emptyDir: {}}]
  initContainers:
  - name: i
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    command: [sh, -c, "echo run >>/kept/runs"]
    volumeMounts: [{name: kept, mountPath: /kept}]
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
  - name: d
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    command: [sh, -c, "while read run; do n=$((n+1)); done </kept/runs; [ $n = 2 ] && sleep 1000000; exit 42"]
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
    volumeMounts: [{name: kept, mountPath: /kept}]
---
apiVersion: v1
kind: Pod
metadata: {name: users, namespace: default}
spec:
  nodeName: node
  hostUsers: false
  automountServiceAccountToken: false
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: groups, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  securityContext: {supplementalGroupsPolicy: Strict}
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
"#;

#[test]
fn pods_start_from_the_beginning_or_not_at_all() {
    let machine = Machine::joined("10.80.0", "");
    machine.write("/etc/special.yaml", SPECIAL);
    machine.ok(&machine.kubectl("create -f /etc/special.yaml"));
    let of = |pod: &str, path: &str| machine.kubectl(&format!("get pod {pod} -o jsonpath='{path}'"));
    machine.until(
        &of("anew", "{.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].ready}"),
        |out| out == "1 1 true true",
    );
    assert_eq!(
        machine.ok(&of(
            "anew",
            "{.status.initContainerStatuses[0].restartCount} \
             {.status.containerStatuses[*].lastState.terminated.reason} {.status.containerStatuses[0].lastState.terminated.exitCode}"
        )),
        "1 RestartingAllContainers RestartingAllContainers 137"
    );
    machine.until(&of("anew", "{.status.conditions[?(@.type==\"AllContainersRestarting\")].status}"), |out| {
        out == "False"
    });
    assert_eq!(machine.ok("ctr -n k8s.io tasks ls -q | wc -l").trim(), "3", "one sandbox and two containers");
    let events = |pod: &str| {
        machine.kubectl(&format!(
            "get events --field-selector involvedObject.name={pod} -o jsonpath='{{.items[*].message}}'"
        ))
    };
    machine.until(&events("users"), |out| {
        out.contains("can't set `spec.hostUsers: false`, runtime does not support user namespaces")
    });
    assert_eq!(machine.ok(&of("users", "{.status.phase}")), "Pending");
    let refused = machine.until(&of("groups", "{.status.reason}: {.status.message}"), |out| out.len() > 3);
    assert_eq!(
        refused,
        "SupplementalGroupsPolicyNotSupported: Pod was rejected: SupplementalGroupsPolicy=Strict is not supported in this node"
    );
    machine.ok(&machine.kubectl("delete pod anew users groups --timeout=60s"));
    machine.end("kubelet");
}
