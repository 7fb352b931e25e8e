//! Checks of the repository. `xtask layers`: dependencies between crates only go down (ARCHITECTURE.md, "Layers").

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode},
};

use serde_json::Value;

/// Layer of each crate, lowest first.
const LAYERS: [&[&str]; 7] = [
    &["timonel-util", "timonel-machinery", "timonel-api"],
    &["timonel-semantics", "timonel-cel", "timonel-schema", "timonel-rules"],
    &["timonel-runtime", "timonel-proto"],
    &["timonel-client", "timonel-streaming", "timonel-spans"],
    &[
        "timonel-storage",
        "timonel-controller",
        "timonel-apiserver-generic",
        "timonel-apiserver-registry",
        "timonel-apiserver-apiextensions",
        "timonel-apiserver-aggregator",
    ],
    &[
        "kube-apiserver",
        "kube-scheduler",
        "kube-controller-manager",
        "kubelet",
        "kube-proxy",
        "kubectl",
        "kubeadm",
        "timonel-pod-network",
        "timonel-cluster-dns",
        "timonel-local-path",
        "timonel-metrics",
        "timonel-ingress",
        "timonel-dashboard",
        "timonel-logs",
        "pause",
    ],
    &["timonel-harness", "timonel-integration", "timonel-fuzz", "timonel-bench", "timonel-xtask"],
];
/// Crates of the two lowest layers link none of these.
const ASYNC: [&str; 5] = ["tokio", "hyper", "tonic", "axum", "kube"];
/// Who may link what.
const ONLY: [(&str, &[&str]); 2] = [
    ("etcd-client", &["timonel-storage"]),
    (
        "timonel-storage",
        &[
            "kube-apiserver",
            "timonel-apiserver-generic",
            "timonel-apiserver-registry",
            "timonel-apiserver-apiextensions",
            "timonel-apiserver-aggregator",
        ],
    ),
];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("layers") => layers(),
        _ => {
            eprintln!("usage: xtask layers");
            ExitCode::from(2)
        }
    }
}

fn layers() -> ExitCode {
    let output = Command::new("cargo").args(["metadata", "--format-version=1", "--no-deps"]).output();
    let parsed: Option<Value> = output.ok().and_then(|o| serde_json::from_slice(&o.stdout).ok());
    let Some(metadata) = parsed else {
        eprintln!("cargo metadata failed");
        return ExitCode::FAILURE;
    };
    let problems = problems(&dependencies(&metadata));
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Normal dependencies of each workspace crate.
fn dependencies(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().into_iter().flatten();
            let normal = all.filter(|d| d["kind"].is_null()).map(|d| text(d, "name")).collect();
            (text(package, "name"), normal)
        })
        .collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|crates| crates.contains(&name))
}

fn problems(crates: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, dependencies) in crates {
        let Some(own) = layer(name) else {
            problems.push(format!("{name} is in no layer"));
            continue;
        };
        for dependency in dependencies {
            let components = own == 5 && layer(dependency) == Some(5);
            if layer(dependency).is_some_and(|other| other > own) || components {
                problems.push(format!("{name} may not depend on {dependency}"));
            }
            if own < 2 && ASYNC.contains(&dependency.as_str()) {
                problems.push(format!("{name} may not link {dependency}: its layer does no I/O"));
            }
            let refused = ONLY.iter().any(|(what, who)| what == dependency && !who.contains(&name.as_str()));
            if refused {
                problems.push(format!("{name} may not link {dependency}"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_that_go_up_are_found() {
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), vec![(*b).to_owned()])).collect::<BTreeMap<_, _>>()
        };
        assert!(problems(&of(&[("kubelet", "timonel-client")])).is_empty());
        assert_eq!(problems(&of(&[("timonel-client", "kubelet")])).len(), 1);
        assert_eq!(problems(&of(&[("kubelet", "kube-proxy")])).len(), 1);
        assert_eq!(problems(&of(&[("timonel-rules", "tokio")])).len(), 1);
        assert_eq!(problems(&of(&[("kubelet", "etcd-client")])).len(), 1);
    }
}
