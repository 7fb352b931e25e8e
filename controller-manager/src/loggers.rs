//! What controllers are called in logs: like everywhere else.

/// Modules and the controllers in them.
pub(crate) const LOGGERS: &[(&str, &str)] = &[
    ("kube_controller_manager::aggregation", "clusterrole-aggregation-controller"),
    ("kube_controller_manager::attachdetach", "persistentvolume-attach-detach-controller"),
    ("kube_controller_manager::bootstrap::cleaner", "token-cleaner-controller"),
    ("kube_controller_manager::bootstrap::signer", "bootstrap-signer-controller"),
    ("kube_controller_manager::certificates::approver", "certificatesigningrequest-approving-controller"),
    ("kube_controller_manager::certificates::cleaner", "certificatesigningrequest-cleaner-controller"),
    ("kube_controller_manager::certificates::signer", "certificatesigningrequest-signing-controller"),
    ("kube_controller_manager::collector", "garbage-collector-controller"),
    ("kube_controller_manager::cronjob", "cronjob-controller"),
    ("kube_controller_manager::daemonset", "daemonset-controller"),
    ("kube_controller_manager::deployment", "deployment-controller"),
    ("kube_controller_manager::devicetaints", "device-taint-eviction-controller"),
    ("kube_controller_manager::disruption", "disruption-controller"),
    ("kube_controller_manager::endpoints", "endpoints-controller"),
    ("kube_controller_manager::endpointslice", "endpointslice-controller"),
    ("kube_controller_manager::job", "job-controller"),
    ("kube_controller_manager::mirroring", "endpointslice-mirroring-controller"),
    ("kube_controller_manager::namespace", "namespace-controller"),
    ("kube_controller_manager::nodeipam", "node-ipam-controller"),
    ("kube_controller_manager::nodelifecycle", "node-lifecycle-controller"),
    ("kube_controller_manager::nodelifecycle::eviction", "taint-eviction-controller"),
    ("kube_controller_manager::podautoscaler", "horizontal-pod-autoscaler-controller"),
    ("kube_controller_manager::podgc", "pod-garbage-collector-controller"),
    ("kube_controller_manager::policystatus", "validatingadmissionpolicy-status-controller"),
    ("kube_controller_manager::replicaset", "replicaset-controller"),
    ("kube_controller_manager::resourceclaim", "resourceclaim-controller"),
    ("kube_controller_manager::resourcequota", "resourcequota-controller"),
    ("kube_controller_manager::rootca", "root-ca-certificate-publisher-controller"),
    ("kube_controller_manager::serviceaccount", "serviceaccount-controller"),
    ("kube_controller_manager::servicecidr", "service-cidr-controller"),
    ("kube_controller_manager::statefulset", "statefulset-controller"),
    ("kube_controller_manager::tokens", "serviceaccount-token-controller"),
    ("kube_controller_manager::tokens::legacy", "legacy-serviceaccount-token-cleaner-controller"),
    ("kube_controller_manager::ttl", "ttl-controller"),
    ("kube_controller_manager::ttlafterfinished", "ttl-after-finished-controller"),
    ("kube_controller_manager::volumes", "persistentvolume-binder-controller"),
    ("kube_controller_manager::volumes::ephemeral", "ephemeral-volume-controller"),
    ("kube_controller_manager::volumes::expand", "persistentvolume-expander-controller"),
];

#[cfg(test)]
mod tests {
    use super::LOGGERS;
    use crate::table::CONTROLLERS;

    #[test]
    fn they_are_controllers() {
        for (module, name) in LOGGERS {
            assert!(CONTROLLERS.iter().any(|c| c.name == *name), "{module}: {name}");
        }
    }
}
