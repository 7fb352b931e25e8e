use super::*;

fn through(kind: &GroupVersionKind, new: &Value, old: &Value) -> Vec<String> {
    told(update(kind, new, old, "status"))
}

#[test]
fn pods_do_not_rise_again() {
    let kind = gvk("", "Pod");
    let never = with(&pod(), &[("/spec/restartPolicy", json!("Never"))]);
    let state = |base: &Value, state: Value| {
        with(
            base,
            &[("/status", json!({"qosClass": "Burstable", "containerStatuses": [{"name": "a", "state": state}]}))],
        )
    };
    let ended = json!({"terminated": {"exitCode": 1}});
    let running = json!({"running": {}});
    let expected = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
    assert_eq!(through(&kind, &state(&never, running.clone()), &state(&never, ended.clone())), [expected]);
    assert_eq!(through(&kind, &state(&pod(), running.clone()), &state(&pod(), ended.clone())), [""; 0]);
    let failing = with(&pod(), &[("/spec/restartPolicy", json!("OnFailure"))]);
    assert_eq!(through(&kind, &state(&failing, running.clone()), &state(&failing, ended)), [""; 0]);
    let done = json!({"terminated": {"exitCode": 0}});
    assert_eq!(through(&kind, &state(&failing, running), &state(&failing, done)), [expected]);
}

#[test]
fn pods_tell_sound_addresses() {
    let kind = gvk("", "Pod");
    let status = |status: Value| with(&pod(), &[("/status", status)]);
    let sent = status(json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}));
    let texts = through(&kind, &sent, &status(json!({})));
    assert!(texts[0].ends_with("may specify no more than one IP for each IP family"), "{texts:?}");
    let sent = status(json!({"qosClass": "Guaranteed"}));
    let expected = "status.qosClass: Invalid value: \"Guaranteed\": field is immutable";
    assert_eq!(through(&kind, &sent, &status(json!({"qosClass": "Burstable"}))), [expected]);
}

#[test]
fn jobs_end_once() {
    let kind = gvk("batch", "Job");
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let status = |status: Value| json!({"spec": {}, "status": status});
    let complete = status(json!({"startTime": "t", "completionTime": "t", "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]}));
    let begun = status(json!({"startTime": "t", "active": 1}));
    assert_eq!(through(&kind, &complete, &begun), [""; 0]);
    let expected = "status.conditions: Invalid value: cannot disable the terminal Complete=True condition";
    assert!(through(&kind, &begun, &complete).contains(&expected.to_owned()));
    let early = status(json!({"startTime": "t", "conditions": [condition("Failed")]}));
    let expected =
        "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition";
    assert_eq!(through(&kind, &early, &begun), [expected]);
    let fewer = status(json!({"startTime": "t", "failed": 1}));
    let expected = "status.failed: Invalid value: 1: cannot decrease the failed counter";
    assert_eq!(through(&kind, &fewer, &status(json!({"startTime": "t", "failed": 2}))), [expected]);
}

#[test]
fn workloads_count_soundly() {
    let status = |status: Value| json!({"status": status});
    let sent = status(json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 2}));
    assert_eq!(
        through(&gvk("apps", "Deployment"), &sent, &status(json!({}))),
        [
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ]
    );
    let stored = status(json!({"collisionCount": 2}));
    let expected = "status.collisionCount: Invalid value: 1: cannot be decremented";
    let sent = status(json!({"collisionCount": 1}));
    assert_eq!(through(&gvk("apps", "DaemonSet"), &sent, &stored), [expected]);
}

#[test]
fn services_and_namespaces() {
    let kind = gvk("", "Service");
    let status = |status: Value| json!({"spec": {"type": "ClusterIP"}, "status": {"loadBalancer": status}});
    let expected = "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'";
    assert_eq!(through(&kind, &status(json!({"ingress": [{"ip": "10.0.0.1"}]})), &status(json!({}))), [expected]);
    let namespace = |phase: &str| json!({"metadata": {"name": "n"}, "status": {"phase": phase}});
    let expected = "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty";
    assert_eq!(through(&gvk("", "Namespace"), &namespace("Terminating"), &namespace("Active")), [expected]);
}

#[test]
fn decisions_on_requests_stay() {
    let kind = gvk("certificates.k8s.io", "CertificateSigningRequest");
    let with = |conditions: Value| json!({"spec": {}, "status": {"conditions": conditions}});
    let approved = with(json!([{"type": "Approved", "status": "True"}]));
    let none = with(json!([]));
    let expected = "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
    assert_eq!(through(&kind, &approved, &none), [expected]);
    assert_eq!(told(update(&kind, &approved, &none, "approval")), [""; 0]);
    let expected = "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
    assert_eq!(told(update(&kind, &none, &approved, "approval")), [expected]);
    let both = with(json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]));
    let expected = "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually \
                    exclusive";
    assert_eq!(told(update(&kind, &both, &none, "approval")), [expected]);
}
