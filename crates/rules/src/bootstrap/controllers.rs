//! One ClusterRole per controller of kube-controller-manager.

use super::{READ, events, paths, rule};
use crate::rbac::PolicyRule;

/// Controllers by ServiceAccount name, with their rules.
pub(super) fn controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let mut all = workloads();
    all.extend(network());
    all.extend(volumes());
    all.extend(cluster());
    for (_, rules) in &mut all {
        rules.push(events());
    }
    all.extend(silent());
    all
}

fn workloads() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "cronjob-controller",
            vec![
                rule("get,list,update,watch", "batch", "cronjobs"),
                rule("create,delete,get,list,patch,update,watch", "batch", "jobs"),
                rule("update", "batch", "cronjobs/status"),
                rule("update", "batch", "cronjobs/finalizers"),
                rule("delete,list", "-", "pods"),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                rule(READ, "apps,extensions", "daemonsets"),
                rule("update", "apps,extensions", "daemonsets/status"),
                rule("update", "apps,extensions", "daemonsets/finalizers"),
                rule("list,watch", "-", "nodes"),
                rule("create,delete,list,patch,watch", "-", "pods"),
                rule("create", "-", "pods/binding"),
                rule("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions"),
            ],
        ),
        (
            "deployment-controller",
            vec![
                rule("get,list,update,watch", "apps,extensions", "deployments"),
                rule("update", "apps,extensions", "deployments/status"),
                rule("update", "apps,extensions", "deployments/finalizers"),
                rule("create,delete,get,list,patch,update,watch", "apps,extensions", "replicasets"),
                rule("get,list,update,watch", "-", "pods"),
            ],
        ),
        (
            "job-controller",
            vec![
                rule("get,list,patch,update,watch", "batch", "jobs"),
                rule("update", "batch", "jobs/status"),
                rule("update", "batch", "jobs/finalizers"),
                rule("create,delete,list,patch,watch", "-", "pods"),
            ],
        ),
        (
            "replicaset-controller",
            vec![
                rule("get,list,update,watch", "apps,extensions", "replicasets"),
                rule("update", "apps,extensions", "replicasets/status"),
                rule("update", "apps,extensions", "replicasets/finalizers"),
                rule("create,delete,list,patch,watch", "-", "pods"),
            ],
        ),
        (
            "replication-controller",
            vec![
                rule("get,list,update,watch", "-", "replicationcontrollers"),
                rule("update", "-", "replicationcontrollers/status"),
                rule("update", "-", "replicationcontrollers/finalizers"),
                rule("create,delete,list,patch,watch", "-", "pods"),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                rule("list,watch", "-", "pods"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "apps", "statefulsets/status"),
                rule("update", "apps", "statefulsets/finalizers"),
                rule("create,delete,get,patch,update", "-", "pods"),
                rule("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions"),
                rule("create,get", "-", "persistentvolumeclaims"),
                rule("delete,list,update,watch", "-", "persistentvolumeclaims"),
            ],
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "apps,extensions", "deployments"),
                rule(READ, "apps,extensions", "replicasets"),
                rule(READ, "-", "replicationcontrollers"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("get,list,watch", "-", "pods"),
                rule("patch,update", "-", "pods/status"),
                rule("get", "*", "*/scale"),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                rule(READ, "autoscaling", "horizontalpodautoscalers"),
                rule("update", "autoscaling", "horizontalpodautoscalers/status"),
                rule("get,update", "*", "*/scale"),
                rule("list", "-", "pods"),
                rule("list", "metrics.k8s.io", "pods"),
                rule("get,list", "custom.metrics.k8s.io", "*"),
                rule("get,list", "external.metrics.k8s.io", "*"),
            ],
        ),
        ("ttl-after-finished-controller", vec![rule("delete,get,list,watch", "batch", "jobs")]),
    ]
}

fn network() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "-", "pods,services"),
                rule("create,delete,get,list,update,watch", "-", "endpoints"),
                rule("create", "-", "endpoints/restricted"),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                rule(READ, "-", "nodes,pods,services"),
                rule("update", "-", "services/finalizers"),
                rule("create,delete,get,list,update,watch", "discovery.k8s.io", "endpointslices"),
                rule("create", "discovery.k8s.io", "endpointslices/restricted"),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                rule(READ, "-", "endpoints,services"),
                rule("update", "-", "services/finalizers"),
                rule("update", "-", "endpoints/finalizers"),
                rule("create,delete,get,list,update,watch", "discovery.k8s.io", "endpointslices"),
                rule("create", "discovery.k8s.io", "endpointslices/restricted"),
            ],
        ),
        ("route-controller", vec![rule("list,watch", "-", "nodes"), rule("patch", "-", "nodes/status")]),
        (
            "service-controller",
            vec![
                rule(READ, "-", "services"),
                rule("patch,update", "-", "services/status"),
                rule("list,watch", "-", "nodes"),
            ],
        ),
        (
            "service-cidrs-controller",
            vec![
                rule("get,list,patch,update,watch", "networking.k8s.io", "servicecidrs"),
                rule("patch,update", "networking.k8s.io", "servicecidrs/finalizers"),
                rule("patch,update", "networking.k8s.io", "servicecidrs/status"),
                rule(READ, "networking.k8s.io", "ipaddresses"),
            ],
        ),
    ]
}

fn volumes() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let claims = || rule("get,list,update,watch", "-", "persistentvolumeclaims");
    vec![
        (
            "attachdetach-controller",
            vec![
                rule("list,watch", "-", "persistentvolumeclaims,persistentvolumes"),
                rule(READ, "-", "nodes"),
                rule("patch,update", "-", "nodes/status"),
                rule("list,watch", "-", "pods"),
                rule("create,delete,get,list,watch", "storage.k8s.io", "volumeattachments"),
                rule(READ, "storage.k8s.io", "csidrivers,csinodes"),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                rule(READ, "-", "pods"),
                rule("update", "-", "pods/finalizers"),
                rule("create,get,list,watch", "-", "persistentvolumeclaims"),
            ],
        ),
        (
            "expand-controller",
            vec![
                rule("get,list,patch,update,watch", "-", "persistentvolumes"),
                rule("patch,update", "-", "persistentvolumeclaims/status"),
                rule(READ, "-", "persistentvolumeclaims"),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                rule("create,delete,get,list,update,watch", "-", "persistentvolumes"),
                rule("update", "-", "persistentvolumes/status"),
                claims(),
                rule("update", "-", "persistentvolumeclaims/status"),
                rule("create,delete,get,list,watch", "-", "pods"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("create,delete,get", "-", "endpoints,services"),
                rule("get,list", "-", "secrets"),
                rule(READ, "-", "nodes"),
            ],
        ),
        ("pv-protection-controller", vec![rule("get,list,update,watch", "-", "persistentvolumes")]),
        ("pvc-protection-controller", vec![claims(), rule("get,list,watch", "-", "pods")]),
        (
            "volumeattributesclass-protection-controller",
            vec![
                rule("get,list,update,watch", "storage.k8s.io", "volumeattributesclasses"),
                rule(READ, "-", "persistentvolumeclaims,persistentvolumes"),
            ],
        ),
        (
            "selinux-warning-controller",
            vec![
                rule(READ, "-", "persistentvolumeclaims,persistentvolumes,pods"),
                rule(READ, "storage.k8s.io", "csidrivers"),
            ],
        ),
    ]
}

fn cluster() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        ("generic-garbage-collector", vec![rule("delete,get,list,patch,update,watch", "*", "*")]),
        (
            "node-controller",
            vec![
                rule("delete,get,list,patch,update", "-", "nodes"),
                rule("patch,update", "-", "nodes/status"),
                rule("patch,update", "-", "pods/status"),
                rule("delete,list", "-", "pods"),
                rule("get,list,watch", "-", "pods"),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule("delete,list,watch", "-", "pods"),
                rule("get,list", "-", "nodes"),
                rule("patch,update", "-", "pods/status"),
            ],
        ),
        ("resourcequota-controller", vec![rule("list,watch", "*", "*"), rule("update", "-", "resourcequotas/status")]),
        ("service-account-controller", vec![rule("create", "-", "serviceaccounts")]),
        ("ttl-controller", vec![rule("list,patch,update,watch", "-", "nodes")]),
        ("root-ca-cert-publisher", vec![rule("create,update", "-", "configmaps")]),
        (
            "resource-claim-controller",
            vec![
                rule(READ, "-", "pods"),
                rule("update", "-", "pods/finalizers"),
                rule("create,delete,get,list,watch", "resource.k8s.io", "resourceclaims"),
                rule("patch,update", "resource.k8s.io", "resourceclaims,resourceclaims/status"),
                rule("patch,update", "resource.k8s.io", "resourceclaims/binding"),
                rule("patch,update", "-", "pods/status"),
                rule(READ, "resource.k8s.io", "resourceclaimtemplates"),
            ],
        ),
        (
            "device-taint-eviction-controller",
            vec![
                rule("get,list,watch", "-", "pods"),
                rule("patch,update", "-", "pods/status"),
                rule("delete", "-", "pods"),
                rule(READ, "resource.k8s.io", "deviceclasses,devicetaintrules,resourceclaims,resourceslices"),
                rule("patch,update", "resource.k8s.io", "devicetaintrules/status"),
            ],
        ),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
                rule("get,patch,update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
                rule(READ, "apiextensions.k8s.io", "customresourcedefinitions"),
            ],
        ),
    ]
}

/// Controllers that write no events.
fn silent() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let signers = "kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,\
                   kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown";
    let signer = |verb: &str, names: &str| PolicyRule {
        resource_names: names.split(',').map(str::to_owned).collect(),
        ..rule(verb, "certificates.k8s.io", "signers")
    };
    vec![
        (
            "certificate-controller",
            vec![
                rule("delete,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
                rule(
                    "update",
                    "certificates.k8s.io",
                    "certificatesigningrequests/approval,certificatesigningrequests/status",
                ),
                signer("approve", "kubernetes.io/kube-apiserver-client-kubelet"),
                signer("sign", signers),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
                events(),
            ],
        ),
        (
            "clusterrole-aggregation-controller",
            vec![rule("escalate,get,list,patch,update,watch", "rbac.authorization.k8s.io", "clusterroles")],
        ),
        (
            "namespace-controller",
            vec![
                rule("delete,get,list,watch", "-", "namespaces"),
                rule("update", "-", "namespaces/finalize,namespaces/status"),
                rule("delete,deletecollection,get,list", "*", "*"),
                paths("get", "/api,/api/*,/apis,/apis/*"),
            ],
        ),
        (
            "legacy-service-account-token-cleaner",
            vec![rule("get", "-", "configmaps"), rule("delete,patch", "-", "secrets")],
        ),
    ]
}
