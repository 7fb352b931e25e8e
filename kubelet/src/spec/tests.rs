//! Pure parts of the translation.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::cri::v1;
use crate::node::NodeFacts;
use crate::pods::resources::Qos;

fn settings() -> Settings {
    Settings::new(&KubeletConfiguration::default(), CgroupDriver::Cgroupfs, true)
}

fn pod(spec: serde_json::Value) -> Pod {
    let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u-1", "labels": { "a": "b",
        "io.kubernetes.pod.name": "spoofed" } }, "spec": spec });
    serde_json::from_value(pod).unwrap()
}

fn sandbox(pod: &Pod) -> v1::PodSandboxConfig {
    let settings = settings();
    let inputs = SandboxInputs {
        attempt: 2,
        log_directory: Path::new("/var/log/pods/x"),
        dns: v1::DnsConfig::default(),
        groups: &[9],
        users: &Default::default(),
        settings: &settings,
    };
    sandbox_config(pod, inputs).unwrap()
}

#[test]
fn sandbox_identity_wins_over_labels() {
    let config = sandbox(&pod(json!({ "containers": [{ "name": "c", "ports": [
        { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 53, "protocol": "UDP" }] }],
        "securityContext": { "sysctls": [{ "name": "net/ipv4/tcp_syncookies", "value": "1" }], "fsGroup": 5, "supplementalGroups": [6] } })));
    assert_eq!(config.labels["io.kubernetes.pod.name"], "p");
    assert_eq!(config.labels["a"], "b");
    assert_eq!(config.port_mappings.len(), 2);
    let linux = config.linux.unwrap();
    assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu-1");
    assert_eq!(linux.sysctls["net.ipv4.tcp_syncookies"], "1");
    let context = linux.security_context.unwrap();
    assert_eq!(context.supplemental_groups, [5, 9, 6], "those of volumes after the one that owns files");
    assert_eq!(context.namespace_options.unwrap().pid, v1::NamespaceMode::Container as i32);
    assert_eq!(config.hostname, "p");
}

#[test]
fn user_ids_of_a_pod_reach_the_runtime() {
    let ids = v1::IdMapping { host_id: 65_536, container_id: 0, length: 65_536 };
    let users = v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, uids: vec![ids], gids: vec![ids] };
    let own = pod(json!({ "hostUsers": false, "containers": [{ "name": "c" }] }));
    let settings = settings();
    let (log_directory, dns) = (Path::new("/x"), v1::DnsConfig::default());
    let inputs = SandboxInputs { attempt: 0, log_directory, dns, groups: &[], users: &users, settings: &settings };
    let context = sandbox_config(&own, inputs).unwrap().linux.unwrap().security_context.unwrap();
    assert_eq!(context.namespace_options.unwrap().userns_options, Some(users));
}

#[test]
fn pod_limits_need_every_container_to_have_one() {
    let half = pod(json!({ "containers": [
        { "name": "a", "resources": { "limits": { "cpu": "1", "memory": "64Mi" } } }, { "name": "b", "resources": { "requests": { "cpu": "500m" } } }] }));
    let limits = pod_limits(&half, &settings());
    assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.memory), (Some(1536), Some(-1), Some(-1)));
    let full =
        pod(json!({ "containers": [{ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "64Mi" } } }] }));
    let limits = pod_limits(&full, &settings());
    assert_eq!((limits.cpu_quota, limits.memory), (Some(100_000), Some(64 << 20)));
    assert_eq!(qos_limits(Qos::Burstable, [&half].into_iter()).cpu_shares, Some(1536));
}

#[test]
fn containers_are_limited_and_without_swap() {
    let pod = pod(
        json!({ "containers": [{ "name": "a", "resources": { "limits": { "cpu": "250m", "memory": "1Gi" }, "requests": { "cpu": "100m" } } }] }),
    );
    let node = NodeFacts::default();
    let out = container_resources(&pod, &pod.spec.as_ref().unwrap().containers[0], &node, &settings());
    assert_eq!((out.cpu_shares, out.cpu_quota, out.memory_limit_in_bytes), (102, 25_000, 1 << 30));
    assert_eq!(out.unified["memory.swap.max"], "0");
    assert_eq!(out.unified["memory.oom.group"], "1");
}

#[test]
fn root_is_refused_where_forbidden() {
    let pod = pod(json!({ "containers": [{ "name": "a" }], "securityContext": { "runAsNonRoot": true } }));
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let check = |image: ImageUser| {
        security::container(&pod, container, &image, Path::new("/x"), &Default::default(), &settings())
    };
    let named = check(ImageUser { uid: None, name: "www".into() }).unwrap_err();
    assert_eq!(
        named.0,
        "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: \"p_n(u-1)\", container: a)"
    );
    assert!(
        check(ImageUser::default()).unwrap_err().0.starts_with("container has runAsNonRoot and image will run as root")
    );
    assert_eq!(check(ImageUser { uid: Some(5), name: String::new() }).unwrap().run_as_user.unwrap().value, 5);
}
