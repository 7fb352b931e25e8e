use super::{
    behind,
    plan::{Available, Component, object_of, text_of},
    policy::{Allowed, Objections, Versions, objections},
};
use crate::config::version::Version;
use serde_json::json;

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn judge(target: &str, cluster: &str, kubelets: &[&str], allowed: Allowed) -> Objections {
    let versions = Versions {
        cluster: version(cluster),
        kubeadm: version("v1.36.2"),
        kubelets: kubelets.iter().map(|v| version(v)).collect(),
    };
    objections(&version(target), &versions, allowed)
}

#[test]
fn versions_that_nothing_speaks_against() {
    for (target, cluster) in [("v1.36.2", "v1.35.7"), ("v1.36.1", "v1.36.0"), ("v1.36.0", "v1.36.2")] {
        let found = judge(target, cluster, &["v1.33.0"], Allowed::default());
        assert_eq!(found, Objections::default(), "{cluster} to {target}");
    }
}

#[test]
fn versions_that_are_refused() {
    let high =
        "Specified version to upgrade to \"v1.36.0\" is too high; kubeadm can upgrade only 1 minor version at a time";
    assert_eq!(judge("v1.36.0", "v1.34.0", &[], Allowed::default()).fatal, [high]);
    let found = judge("v1.37.0", "v1.36.0", &[], Allowed::default());
    assert!(found.fatal[0].contains("higher than the kubeadm minor release (37 > 36)"), "{found:?}");
    let found = judge("v1.34.0", "v1.35.0", &[], Allowed::default());
    assert!(found.fatal[0].contains("minimum supported version \"v1.35.0\""), "{found:?}");
    let text = found.text(true).unwrap();
    assert!(text.starts_with("the version argument is invalid due to these fatal errors:\n\n\t- Specified"), "{text}");
}

#[test]
fn versions_that_force_allows() {
    let cases = [
        ("v1.36.3", "v1.36.0", &[][..], "higher than the kubeadm version \"v1.36.2\""),
        ("v1.35.4", "v1.35.0", &[], "Kubeadm version v1.36.2 can only be used to upgrade to Kubernetes version 1.36"),
        ("v1.36.0", "v1.35.0", &["v1.32.1"], "that have these versions [v1.32.1]"),
        ("v1.36.0-beta.1", "v1.35.0", &[], "setting the --allow-experimental-upgrades flag"),
        ("v1.36.0-rc.0", "v1.35.0", &[], "--allow-experimental-upgrades or --allow-release-candidate-upgrades flag"),
    ];
    for (target, cluster, kubelets, words) in cases {
        let found = judge(target, cluster, kubelets, Allowed::default());
        assert!(found.fatal.is_empty() && found.skippable.len() == 1, "{target}: {found:?}");
        assert!(found.skippable[0].contains(words), "{target}: {found:?}");
        assert!(found.text(false).unwrap().ends_with("Can be bypassed if you pass the --force flag"), "{found:?}");
        assert_eq!(found.text(true), None);
    }
    let candidates = Allowed { candidates: true, experimental: false };
    assert_eq!(judge("v1.36.0-rc.0", "v1.35.0", &[], candidates), Objections::default());
}

#[test]
fn api_servers_that_are_behind() {
    let pod = |node: &str, tag: &str| json!({"spec": {"nodeName": node, "containers": [{"image": format!("r/kube-apiserver:{tag}")}]}});
    let pods = json!({"items": [pod("a", "v1.36.0"), pod("b", "v1.35.0")]});
    assert_eq!(behind(&pods, "r/kube-apiserver:v1.36.0"), ["b"]);
}

#[test]
fn a_plan_as_text_and_as_an_object() {
    let row = |name: &str, node: &str| Component {
        name: name.into(),
        node: node.into(),
        current: "v1.35.0".into(),
        target: "v1.36.0".into(),
    };
    let found = [Available {
        description: "stable version".into(),
        version: version("v1.36.0"),
        components: vec![row("kube-apiserver", "a"), row("kube-proxy", "")],
        manual: vec![row("kubelet", "a")],
    }];
    let text = text_of(&found, |rows| rows.iter().map(|row| row.join("|") + "\n").collect());
    assert!(text.starts_with(
        "Components that must be upgraded manually after you have upgraded the control plane with 'kubeadm upgrade \
         apply':\nCOMPONENT|NODE|CURRENT|TARGET\nkubelet|a|v1.35.0|v1.36.0\n\nUpgrade to the latest stable version:\n\n"
    ));
    assert!(text.contains("\n\tkubeadm upgrade apply v1.36.0\n\n"), "{text}");
    let object = object_of(&found, "v");
    let expected = json!([
        {"name": "kubelet", "nodeName": "a", "currentVersion": "v1.35.0", "newVersion": "v1.36.0"},
        {"name": "kube-apiserver", "nodeName": "a", "currentVersion": "v1.35.0", "newVersion": "v1.36.0"},
        {"name": "kube-proxy", "currentVersion": "v1.35.0", "newVersion": "v1.36.0"},
    ]);
    assert_eq!(object["availableUpgrades"][0]["components"], expected);
}
