//! Files, drop-ins and flags meet in one configuration.

use std::fs;

use serde_json::json;

use super::*;

#[test]
fn drop_ins_merge_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    fs::write(
        &file,
        format!("{head}maxPods: 50\nstaticPodPath: manifests\nfeatureGates: {{NodeSwap: true}}\nodd: 1\n"),
    )
    .unwrap();
    let conf = dir.path().join("d");
    fs::create_dir_all(conf.join("sub")).unwrap();
    fs::write(
        conf.join("10-a.conf"),
        format!("{head}maxPods: 60\nclusterDNS: [10.0.0.1]\nfeatureGates: {{PodHostIPs: true}}\n"),
    )
    .unwrap();
    fs::write(conf.join("sub/20.conf"), format!("{head}clusterDNS: [10.0.0.2]\n")).unwrap();
    fs::write(conf.join("ignored.yaml"), "x").unwrap();
    let loaded = load(Some(&file), Some(&conf), json!({ "port": 1234 })).unwrap();
    let config = loaded.config;
    assert_eq!((config.max_pods, config.port), (60, 1234));
    assert_eq!(config.cluster_dns, ["10.0.0.2"]);
    assert_eq!(config.feature_gates.len(), 2);
    assert_eq!(config.static_pod_path, dir.path().join("manifests").display().to_string());
    assert!(loaded.warnings[0].contains("\"odd\""));
    assert!(!config.authentication.anonymous.enabled && config.authentication.webhook.enabled);
}

#[test]
fn empty_files_and_wrong_kinds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, "").unwrap();
    assert!(load(Some(&file), None, json!({})).is_err());
    fs::write(&file, "kind: Pod\napiVersion: v1\n").unwrap();
    assert!(load(Some(&file), None, json!({})).is_err());
}

#[test]
fn report_frequency_follows_an_explicit_update_frequency() {
    let config = load(None, None, json!({ "nodeStatusUpdateFrequency": "5s" })).unwrap().config;
    assert_eq!(config.node_status_report_frequency, Span::seconds(5));
    let config = load(None, None, json!({})).unwrap().config;
    assert_eq!(config.node_status_report_frequency, Span::seconds(300));
}

#[test]
fn values_out_of_range_are_named() {
    let error = load(None, None, json!({ "imageGCHighThresholdPercent": 101 })).unwrap_err().to_string();
    assert!(error.contains("--image-gc-high-threshold"), "{error}");
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (change, named) in [
        (json!({ "cpuManagerPolicy": "odd" }), "cpuManagerPolicy"),
        (json!({ "cpuManagerPolicyOptions": { "x": "true" } }), "cpuManagerPolicyOptions"),
        (json!({ "memoryManagerPolicy": "Some" }), "memoryManagerPolicy"),
        (json!({ "topologyManagerPolicy": "tight" }), "topologyManagerPolicy"),
        (
            json!({ "shutdownGracePeriod": "500ms" }),
            "shutdownGracePeriod 500ms must be either zero or otherwise >= 1 sec",
        ),
        (
            json!({ "shutdownGracePeriod": "5s", "shutdownGracePeriodCriticalPods": "6s" }),
            "shutdownGracePeriodCriticalPods 6s must be <= shutdownGracePeriod 5s",
        ),
        (
            json!({ "shutdownGracePeriod": "5s", "shutdownGracePeriodByPodPriority": [{ "priority": 0 }] }),
            "Cannot specify both",
        ),
        (json!({ "topologyManagerPolicyOptions": { "max-allowable-numa-nodes": "99" } }), "must be between 8 and 16"),
        (json!({ "topologyManagerPolicyOptions": { "near": "true" } }), "topologyManagerPolicyOptions"),
        (json!({ "userNamespaces": { "idsPerPod": 1000 } }), "must be a multiple of 65536"),
        (json!({ "runOnce": true }), "runOnce"),
        (json!({ "tracing": { "samplingRatePerMillion": -1 } }), "tracing.samplingRatePerMillion: Invalid value: -1"),
        (json!({ "tracing": { "endpoint": "ftp://here" } }), "tracing.endpoint"),
        (json!({ "tracing": { "end": "here" } }), "tracing"),
        (json!({ "systemCgroups": "/system" }), "cgroupRoot (--cgroup-root) was not specified"),
        (json!({ "systemCgroups": "/../system", "cgroupRoot": "/" }), "systemCgroups"),
        (json!({ "featureGates": { "Unheard": true } }), "Unheard"),
        (json!({ "featureGates": { "NodeSwap": false } }), "NodeSwap"),
        (json!({ "evictionHard": { "memory.free": "1Gi" } }), "memory.free"),
        (json!({ "tlsMinVersion": "VersionTLS99" }), "VersionTLS99"),
        (json!({ "hairpinMode": "odd" }), "hairpinMode"),
        (json!({ "enforceNodeAllocatable": ["system-reserved"] }), "systemReservedCgroup"),
        (json!({ "enforceNodeAllocatable": ["all"] }), "\"all\""),
        (json!({ "reservedSystemCPUs": "3-1" }), "reservedSystemCPUs"),
        (json!({ "imagePullCredentialsVerificationPolicy": "Sometimes" }), "imagePullCredentialsVerificationPolicy"),
        (json!({ "logging": { "format": "xml" } }), "format: Invalid value: \"xml\": Unsupported log format"),
        (json!({ "logging": { "options": { "json": { "splitStream": true } } } }), "LoggingAlphaOptions"),
        (json!({ "configMapAndSecretChangeDetectionStrategy": "Guess" }), "ChangeDetectionStrategy"),
    ] {
        let error = load(None, None, change.clone()).expect_err(named).to_string();
        assert!(error.contains(named), "{change}: {error}");
    }
}

#[test]
fn reserved_cpus_are_counted() {
    let patch = json!({ "reservedSystemCPUs": "0-1,4", "kubeReserved": { "cpu": "100m", "memory": "1Gi" } });
    let config = load(None, None, patch).unwrap().config;
    assert_eq!(config.system_reserved["cpu"], "3");
    assert_eq!(config.kube_reserved.keys().collect::<Vec<_>>(), ["memory"]);
}

#[test]
fn oddities_are_told_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    fs::write(&file, format!("{head}maxPods: 1\nmaxPods: 2\nauthentication: {{x509: {{file: a}}}}\n")).unwrap();
    let loaded = load(Some(&file), None, json!({})).unwrap();
    assert_eq!(loaded.config.max_pods, 2);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("maxPods") && loaded.warnings[1].contains("authentication.x509.file"));
}
