use serde_json::json;

use super::*;

fn clock() -> Clock {
    Clock { now: "2026-01-02T04:00:00Z".parse().expect("a time"), zone: jiff::tz::TimeZone::UTC }
}

fn text_of(object: &Value, facts: &Facts) -> String {
    describe(object, facts, clock()).expect("described")
}

#[test]
fn a_pod_with_events() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "n", "labels": {"b": "c", "a": "b"}, "annotations": {"k": "v\nw"}},
        "spec": {"nodeName": "n1", "containers": [{
            "name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "d", "mountPath": "/d", "readOnly": true, "subPath": "s"}]}],
            "volumes": [{"name": "d", "emptyDir": {"sizeLimit": "1024Mi"}}],
            "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 60}]},
        "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}],
            "containerStatuses": [{"name": "c", "ready": true, "restartCount": 1, "containerID": "x",
                "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}],
            "conditions": [{"type": "Ready", "status": "True"}], "qosClass": "BestEffort"},
    });
    let event = json!({"type": "Normal", "reason": "Pulled", "message": "got it ", "count": 2,
        "source": {"component": "kubelet"}, "involvedObject": {"fieldPath": "spec.containers{c}"},
        "firstTimestamp": "2026-01-02T03:00:00Z", "lastTimestamp": "2026-01-02T03:59:00Z"});
    let facts = Facts { events: Some(vec![event]), ..Facts::default() };
    let expected = "\
Name:         web
Namespace:    n
Node:         n1/10.0.0.1
Labels:       a=b
              b=c
Annotations:  k:
                v
                w
Status:       Running
IP:           10.1.0.2
IPs:
  IP:  10.1.0.2
Containers:
  c:
    Container ID:   x
    Image:          i
    Image ID:       
    Port:           80/TCP (http)
    Host Port:      0/TCP (http)
    State:          Running
      Started:      Fri, 02 Jan 2026 03:04:05 +0000
    Ready:          True
    Restart Count:  1
    Environment:
      E:  web (v1:metadata.name)
    Mounts:
      /d from d (ro,path=\"s\")
Conditions:
  Type    Status
  Ready   True 
Volumes:
  d:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
    Medium:      
    SizeLimit:   1Gi
QoS Class:       BestEffort
Node-Selectors:  <none>
Tolerations:     op=Exists
                 a=b:NoExecute for 60s
Events:
  Type    Reason  Age                From     Message
  ----    ------  ----               ----     -------
  Normal  Pulled  60s (x2 over 60m)  kubelet  spec.containers{c}: got it
";
    assert_eq!(text_of(&pod, &facts), expected);
}

#[test]
fn a_node_with_shares() {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"taints": [{"key": "b", "effect": "NoSchedule"}, {"key": "a", "value": "v", "effect": "NoExecute"}]},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10", "example.com/gpu": "1"}},
    });
    let pod = json!({"metadata": {"namespace": "n", "name": "p", "creationTimestamp": "2026-01-02T03:55:00Z"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}}}]}});
    let text = text_of(&node, &Facts { pods: vec![pod], lease: Err("none".into()), ..Facts::default() });
    let flat: Vec<String> = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "Roles: control-plane",
        "Taints: a=v:NoExecute",
        "b:NoSchedule",
        "Lease: Failed to get lease: none",
        "n p 100m (5%) 0 (0%) 70Mi (6%) 0 (0%) 5m",
        "cpu 100m (5%) 0 (0%)",
        "example.com/gpu 0 0",
    ] {
        assert!(flat.iter().any(|l| l == line), "{line} in {text}");
    }
}

#[test]
fn services_show_three_endpoints_of_a_port() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n"},
        "spec": {"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]}});
    let endpoint = |address: &str, ready: bool| json!({"addresses": [address], "conditions": {"ready": ready}});
    let slice = json!({"ports": [{"name": "", "port": 8080}], "endpoints": [
        endpoint("10.0.0.1", true), endpoint("10.0.0.2", false), endpoint("fd00::3", true),
        endpoint("10.0.0.4", true), endpoint("10.0.0.5", true)]});
    let text = text_of(&service, &Facts { endpoint_slices: vec![slice], ..Facts::default() });
    assert!(text.contains("TargetPort:        http/TCP\n"), "{text}");
    assert!(text.contains("Endpoints:         10.0.0.1:8080,[fd00::3]:8080,10.0.0.4:8080 + 1 more...\n"), "{text}");
    assert!(text_of(&service, &Facts::default()).contains("Endpoints:         <none>\n"));
}

#[test]
fn a_deployment_tells_old_from_new() {
    let template = |image: &str, hash: Option<&str>| {
        let mut labels = json!({"app": "web"});
        if let Some(hash) = hash {
            labels["pod-template-hash"] = json!(hash);
        }
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
    };
    let set = |name: &str, image: &str| {
        json!({"metadata": {"name": name, "uid": name, "ownerReferences": [{"uid": "d", "controller": true}]},
               "spec": {"replicas": 1, "template": template(image, Some(name))}, "status": {"replicas": 1}})
    };
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n", "uid": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template("b", None)}});
    let facts = Facts { replica_sets: vec![set("old", "a"), set("new", "b")], ..Facts::default() };
    let text = text_of(&deployment, &facts);
    assert!(text.contains("OldReplicaSets:    old (1/1 replicas created)\n"), "{text}");
    assert!(text.contains("NewReplicaSet:     new (1/1 replicas created)\n"), "{text}");
}
