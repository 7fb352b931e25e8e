//! Kubelets that start anew, and machines that go down, with Pods on them.

use super::{JOINED, Machine};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: steady, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: "timonel.local/box:1"
    imagePullPolicy: Never
    readinessProbe: {exec: {command: [sh, -c, "exit 0"]}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: dying, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: leaving, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
"#;

const LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: default}
spec:
  nodeName: node
  automountServiceAccountToken: false
  containers: [{name: c, image: "timonel.local/box:1", imagePullPolicy: Never}]
"#;

/// Makes the Pods and waits until all of them run.
fn start_pods(machine: &Machine) {
    machine.write("/etc/pods.yaml", PODS);
    machine.ok(&machine.kubectl("apply --server-side -f /etc/pods.yaml"));
    let phases = machine.kubectl("get pods -o jsonpath='{.items[*].status.phase}'");
    machine.until(&phases, |out| out == "Running Running Running");
    let ready = "get pod steady -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'";
    machine.until(&machine.kubectl(ready), |out| out == "True");
}

#[test]
fn a_kubelet_that_starts_anew_leaves_pods_alone() {
    let machine = Machine::joined("10.84.0", "");
    start_pods(&machine);
    let id = |pod: &str| {
        let path = "jsonpath='{.status.containerStatuses[0].containerID}'";
        let id = machine.ok(&machine.kubectl(&format!("get pod {pod} -o {path}")));
        id.trim_start_matches("containerd://").to_owned()
    };
    let steady = "get pod steady -o jsonpath='{.status.containerStatuses[0].containerID} \
         {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready} \
         {.status.conditions[?(@.type==\"Ready\")].lastTransitionTime} {.status.startTime}'";
    let before = machine.ok(&machine.kubectl(steady));
    let dying = id("dying");
    // Of containers that began just before it a kubelet believes nothing that it has not seen.
    let began = machine.kubectl("get pod steady -o jsonpath='{.status.containerStatuses[0].state.running.startedAt}'");
    machine.until(&format!("echo $(($(date +%s) - $(date -d $({began}) +%s)))"), |age| {
        age.trim().parse().is_ok_and(|age: u32| age > 11)
    });
    machine.end("kubelet");
    // What happens meanwhile is made up for afterwards.
    machine.ok(&format!("ctr -n k8s.io tasks kill -s SIGKILL {dying}"));
    machine.ok(&machine.kubectl("delete pod leaving --wait=false"));
    machine.start_kubelet("", JOINED);
    machine.until(&machine.kubectl("get pods -o name"), |out| !out.contains("leaving"));
    let restarts = "get pod dying -o jsonpath='{.status.containerStatuses[0].restartCount} \
         {.status.containerStatuses[0].ready} {.status.containerStatuses[0].lastState.terminated.exitCode}'";
    machine.until(&machine.kubectl(restarts), |out| out == "1 true 137");
    assert_eq!(machine.ok(&machine.kubectl(steady)), before, "the same container, ready all the time");
    let series = machine.kubectl("get --raw /api/v1/nodes/node/proxy/metrics");
    machine.until(&series, |out| {
        let has = |line: &str| out.lines().any(|one| one == line);
        has("kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"\"} 2")
            && has("kubelet_active_pods{static=\"\"} 2")
            && out.contains("kubelet_metrics_provider{provider=\"cadvisor\"} 1")
    });
    machine.ok(&machine.kubectl("delete pod steady dying --timeout=60s"));
    machine.end("kubelet");
}

#[test]
fn a_machine_that_goes_down_waits_for_its_pods() {
    let machine = Machine::joined("10.85.0", "shutdownGracePeriod: 20s\nshutdownGracePeriodCriticalPods: 5s\n");
    machine.start("logind", "node-plugin logind /run/down");
    start_pods(&machine);
    machine.until("ls /run/down.held", |_| true);
    machine.ok("touch /run/down");
    for pod in ["steady", "dying", "leaving"] {
        machine.until(&machine.status(pod), |out| {
            out == "Failed Terminated Pod was terminated in response to imminent node shutdown."
        });
    }
    machine.until("ls /run/down.released", |_| true);
    assert_eq!(machine.tasks(), "", "nothing runs any more");
    let condition = "get pod steady -o jsonpath='{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}'";
    assert_eq!(machine.ok(&machine.kubectl(condition)), "TerminationByKubelet");
    let ready = "get node node -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status} \
         {.status.conditions[?(@.type==\"Ready\")].message}'";
    machine.until(&machine.kubectl(ready), |out| out == "False node is shutting down");
    machine.write("/etc/late.yaml", LATE);
    machine.ok(&machine.kubectl("apply --server-side -f /etc/late.yaml"));
    machine.until(&machine.status("late"), |out| {
        out == "Failed NodeShutdown Pod was rejected: Pod was rejected as the node is shutting down."
    });
    let events = machine.ok(&machine.kubectl("get events -o jsonpath='{.items[*].message}'"));
    assert!(events.contains("Shutdown manager detected shutdown event"), "{events}");
    machine.end("kubelet");
    machine.end("logind");
}
