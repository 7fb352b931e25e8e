//! What the kubelet does as its feature gates say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use runtime::features::FeatureGates;

/// Features that a Node declares, in the order it lists them; each is a gate of the same name.
const DECLARED: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    RESTART_ALL,
];
/// A rule of a container may have the whole Pod start anew.
pub(crate) const RESTART_ALL: &str = "RestartAllContainersOnContainerExits";
/// Amounts of a running Pod as a whole may change.
pub(crate) const RESIZE_POD: &str = "InPlacePodLevelResourcesVerticalScaling";
/// Amounts of running init containers may change.
pub(crate) const RESIZE_INIT: &str = "InPlacePodVerticalScalingInitContainers";

/// Gates that make a difference, by what they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// A Pod may name its host in full.
    hostname_override: bool,
    /// Environment comes from files too.
    env_files: bool,
    /// Containers may have policies and rules of their own.
    restart_rules: bool,
    /// A rule may have the whole Pod start anew.
    restart_all: bool,
    /// Images are only for those whose credentials brought them.
    pub verified_images: bool,
    /// Pods say when their sandbox is there.
    pub ready_to_start: bool,
    /// Pods end in order before the machine goes down.
    pub shutdown: bool,
    /// The same, by priority.
    pub shutdown_by_priority: bool,
    /// Containers are written to disk as they run.
    pub checkpoints: bool,
    /// The longest wait between restarts is configurable.
    pub restart_period: bool,
    /// What the Node declares; nothing if it declares nothing at all.
    pub declared: Option<Vec<&'static str>>,
}

impl Features {
    /// As the gates say.
    pub fn of(gates: &FeatureGates) -> Self {
        let on = |name: &str| gates.enabled(name);
        Self {
            hostname_override: on("HostnameOverride"),
            env_files: on("EnvFiles"),
            restart_rules: on("ContainerRestartRules"),
            restart_all: on(RESTART_ALL),
            verified_images: on("KubeletEnsureSecretPulledImages"),
            ready_to_start: on("PodReadyToStartContainersCondition"),
            shutdown: on("GracefulNodeShutdown"),
            shutdown_by_priority: on("GracefulNodeShutdownBasedOnPodPriority"),
            checkpoints: on("ContainerCheckpoint"),
            restart_period: on("KubeletCrashLoopBackOffMax"),
            declared: on("NodeDeclaredFeatures").then(|| DECLARED.into_iter().filter(|name| on(name)).collect()),
        }
    }

    /// The Pod without fields that mean nothing here.
    pub fn without_unknown(&self, pod: Arc<Pod>) -> Arc<Pod> {
        if self.hostname_override && self.env_files && self.restart_rules && !self.ignores_restart_all() {
            return pod;
        }
        let mut own = Arc::unwrap_or_clone(pod);
        if let Some(spec) = own.spec.as_mut() {
            self.strip(spec);
        }
        Arc::new(own)
    }

    /// Pods whose rules have them start anew are taken, and the rules mean nothing. A node that declares features
    /// refuses such Pods instead.
    fn ignores_restart_all(&self) -> bool {
        !self.restart_all && self.declared.is_none()
    }

    fn strip(&self, spec: &mut PodSpec) {
        if !self.hostname_override {
            spec.hostname_override = None;
        }
        for container in &mut spec.containers {
            if !self.restart_rules {
                (container.restart_policy, container.restart_policy_rules) = (None, None);
            }
        }
        let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        all.for_each(|container| self.strip_container(container));
    }

    fn strip_container(&self, container: &mut Container) {
        if !self.restart_rules {
            container.restart_policy_rules = None;
        }
        if let Some(rules) = container.restart_policy_rules.as_mut().filter(|_| self.ignores_restart_all()) {
            rules.retain(|rule| rule.action != crate::workers::plan::RESTART_ALL);
        }
        for variable in container.env.iter_mut().flatten().filter(|_| !self.env_files) {
            if variable.value_from.as_ref().is_some_and(|source| source.file_key_ref.is_some()) {
                (variable.value_from, variable.value) = (None, Some(String::new()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{KubeletConfiguration, gates};

    fn features(off: &[&str]) -> Features {
        let feature_gates = off.iter().map(|name| ((*name).to_owned(), false)).collect();
        let config = KubeletConfiguration { feature_gates, ..KubeletConfiguration::default() };
        let gates = gates(&config);
        assert!(gates.enabled("KubeletTracing"), "these gates go together");
        Features::of(&gates)
    }

    fn pod() -> Arc<Pod> {
        let codes = json!({ "operator": "In", "values": [42] });
        let value = json!({ "spec": {
            "hostnameOverride": "host",
            "containers": [{
                "name": "c", "restartPolicy": "Never",
                "restartPolicyRules": [
                    { "action": "Restart", "exitCodes": codes }, { "action": "RestartAllContainers", "exitCodes": codes },
                ],
                "env": [{ "name": "A", "valueFrom": { "fileKeyRef": { "volumeName": "v", "path": "p", "key": "k" } } }],
            }],
        } });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn what_is_off_means_nothing() {
        let on = features(&[]);
        assert_eq!(on.without_unknown(pod()), pod());
        assert_eq!(on.declared.as_deref(), Some(DECLARED.as_slice()));
        let seen = |off: &[&str]| features(off).without_unknown(pod()).spec.clone().unwrap();
        assert_eq!(seen(&["HostnameOverride"]).hostname_override, None);
        let variable = seen(&["EnvFiles"]).containers[0].env.as_ref().unwrap()[0].clone();
        assert_eq!((variable.value.as_deref(), variable.value_from), (Some(""), None));
        let rules = |spec: PodSpec| spec.containers[0].restart_policy_rules.as_ref().map_or(0, Vec::len);
        let without_rules = seen(&["ContainerRestartRules", RESTART_ALL]);
        assert_eq!(without_rules.containers[0].restart_policy, None);
        assert_eq!(rules(without_rules), 0);
        assert_eq!(rules(seen(&[RESTART_ALL])), 2, "the Pod is refused");
        let pod = features(&[RESTART_ALL, "NodeDeclaredFeatures"]).without_unknown(pod());
        assert_eq!(rules(pod.spec.clone().unwrap()), 1);
    }

    #[test]
    fn nodes_declare_what_is_on() {
        let declared = features(&[RESTART_ALL]).declared.unwrap();
        assert_eq!(declared.len(), 3);
        assert!(!declared.contains(&RESTART_ALL));
        assert_eq!(features(&["NodeDeclaredFeatures"]).declared, None);
    }
}
