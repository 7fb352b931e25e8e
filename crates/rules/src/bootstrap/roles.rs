//! Roles for people, components and add-ons.

use serde_json::{Value, json};

use super::{ClusterRole, READ, READ_WRITE, WRITE, binding, events, named, object, paths, rule};
use crate::rbac::PolicyRule;

const DISCOVERY_PATHS: &str =
    "/api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/";
const TO_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
const TO_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";

pub(super) fn cluster_roles() -> Vec<ClusterRole> {
    let mut all = people();
    all.extend(components());
    all.extend(certificates());
    all
}

fn people() -> Vec<ClusterRole> {
    vec![
        ClusterRole::new("cluster-admin", vec![rule("*", "*", "*"), paths("*", "*")]),
        ClusterRole { aggregates: Some(TO_ADMIN), ..ClusterRole::new("admin", vec![]) },
        ClusterRole { aggregates: Some(TO_EDIT), labels: &[TO_ADMIN], ..ClusterRole::new("edit", vec![]) },
        ClusterRole { aggregates: Some(TO_VIEW), labels: &[TO_EDIT], ..ClusterRole::new("view", vec![]) },
        ClusterRole { labels: &[TO_ADMIN], ..ClusterRole::new("system:aggregate-to-admin", to_admin()) },
        ClusterRole { labels: &[TO_EDIT], ..ClusterRole::new("system:aggregate-to-edit", to_edit()) },
        ClusterRole { labels: &[TO_VIEW], ..ClusterRole::new("system:aggregate-to-view", to_view()) },
        ClusterRole::new(
            "system:basic-user",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews,selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        ClusterRole::new("system:discovery", vec![paths("get", DISCOVERY_PATHS)]),
        ClusterRole::new("system:public-info-viewer", vec![paths("get", "/healthz,/livez,/readyz,/version,/version/")]),
        ClusterRole::new(
            "system:service-account-issuer-discovery",
            vec![paths(
                "get",
                "/.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
            )],
        ),
        ClusterRole::new(
            "system:monitoring",
            vec![
                paths(
                    "get",
                    "/flagz,/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*,/statusz",
                ),
                rule("get", "-", "nodes/metrics"),
            ],
        ),
        ClusterRole::new(
            "system:auth-delegator",
            vec![
                rule("create", "authentication.k8s.io", "tokenreviews"),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            ],
        ),
    ]
}

fn to_admin() -> Vec<PolicyRule> {
    vec![
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings,roles"),
    ]
}

fn to_edit() -> Vec<PolicyRule> {
    vec![
        rule(READ, "-", "pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy"),
        rule("impersonate", "-", "serviceaccounts"),
        rule(WRITE, "-", "pods,pods/attach,pods/exec,pods/portforward,pods/proxy"),
        rule("create", "-", "pods/eviction"),
        rule(
            WRITE,
            "-",
            "configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy",
        ),
        rule("create", "-", "serviceaccounts/token"),
        rule(
            WRITE,
            "apps",
            "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale",
        ),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "cronjobs,jobs"),
        rule(
            WRITE,
            "extensions",
            "daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale",
        ),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "ingresses,networkpolicies"),
        rule(READ_WRITE, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims,resourceclaimtemplates"),
        rule(WRITE, "events.k8s.io", "events"),
    ]
}

fn to_view() -> Vec<PolicyRule> {
    vec![
        rule(
            READ,
            "-",
            "configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status",
        ),
        rule(
            READ,
            "-",
            "bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status",
        ),
        rule(READ, "-", "namespaces"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs,cronjobs/status,jobs,jobs/status"),
        rule(
            READ,
            "extensions",
            "daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale",
        ),
        rule(READ, "policy", "poddisruptionbudgets,poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses,ingresses/status,networkpolicies"),
        rule(READ, "resource.k8s.io", "resourceclaims,resourceclaims/status,resourceclaimtemplates"),
        rule(READ, "events.k8s.io", "events"),
    ]
}

pub(super) fn node() -> Vec<PolicyRule> {
    vec![
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews,subjectaccessreviews"),
        rule(READ, "-", "services"),
        rule("create,get,list,watch", "-", "nodes"),
        rule("patch,update", "-", "nodes/status"),
        rule("patch,update", "-", "nodes"),
        rule(READ, "-", "pods"),
        rule("create,delete", "-", "pods"),
        rule("patch,update", "-", "pods/status"),
        rule("create", "-", "pods/eviction"),
        rule(READ, "-", "configmaps,secrets"),
        rule("get", "-", "persistentvolumeclaims,persistentvolumes"),
        rule("get", "-", "endpoints"),
        rule("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create,delete,get,patch,update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("get,patch,update", "-", "persistentvolumeclaims/status"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create,delete,get,patch,update", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule("deletecollection", "resource.k8s.io", "resourceslices"),
        rule("create", "-", "serviceaccounts/token"),
        rule("get", "-", "serviceaccounts"),
        events(),
    ]
}

fn components() -> Vec<ClusterRole> {
    vec![
        ClusterRole::new("system:node", node()),
        ClusterRole::new("system:kube-controller-manager", controller_manager()),
        ClusterRole::new("system:kube-scheduler", scheduler()),
        ClusterRole::new(
            "system:volume-scheduler",
            vec![
                rule("get,list,patch,update,watch", "-", "persistentvolumes"),
                rule("get,list,patch,update,watch", "-", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
            ],
        ),
        ClusterRole::new(
            "system:node-proxier",
            vec![
                rule("list,watch", "-", "endpoints,services"),
                rule(READ, "-", "nodes"),
                events(),
                rule("list,watch", "networking.k8s.io", "servicecidrs"),
                rule("list,watch", "discovery.k8s.io", "endpointslices"),
            ],
        ),
        ClusterRole::new(
            "system:node-bootstrapper",
            vec![rule("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests")],
        ),
        ClusterRole::new(
            "system:node-problem-detector",
            vec![rule("get", "-", "nodes"), rule("patch", "-", "nodes/status"), events()],
        ),
        ClusterRole::new(
            "system:kubelet-api-admin",
            vec![
                rule(READ, "-", "nodes"),
                rule("proxy", "-", "nodes"),
                rule(
                    "*",
                    "-",
                    "nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats",
                ),
            ],
        ),
        ClusterRole::new("system:kube-dns", vec![rule("list,watch", "-", "endpoints,services")]),
        ClusterRole::new("system:kube-aggregator", vec![rule(READ, "-", "endpoints,services")]),
        ClusterRole::new(
            "system:heapster",
            vec![rule(READ, "-", "events,namespaces,nodes,pods"), rule(READ, "extensions", "deployments")],
        ),
        ClusterRole::new(
            "system:persistent-volume-provisioner",
            vec![
                rule("create,delete,get,list,watch", "-", "persistentvolumes"),
                rule("get,list,update,watch", "-", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch", "-", "events"),
                events(),
            ],
        ),
    ]
}

fn controller_manager() -> Vec<PolicyRule> {
    vec![
        events(),
        rule("create", "coordination.k8s.io", "leases"),
        named("get,update", "coordination.k8s.io", "leases", "kube-controller-manager"),
        rule("create", "-", "secrets,serviceaccounts"),
        rule("delete", "-", "secrets"),
        rule("get", "-", "configmaps,namespaces,secrets,serviceaccounts"),
        rule("update", "-", "secrets,serviceaccounts"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule("list,watch", "*", "*"),
        rule("create", "-", "serviceaccounts/token"),
    ]
}

fn scheduler() -> Vec<PolicyRule> {
    vec![
        events(),
        rule("create", "coordination.k8s.io", "leases"),
        named("get,list,update,watch", "coordination.k8s.io", "leases", "kube-scheduler"),
        rule("create", "coordination.k8s.io", "leasecandidates"),
        rule("deletecollection,get,list,patch,update,watch,delete", "coordination.k8s.io", "leasecandidates"),
        rule(READ, "-", "nodes"),
        rule("delete,get,list,watch", "-", "pods"),
        rule("create", "-", "bindings,pods/binding"),
        rule("patch,update", "-", "pods/status"),
        rule("update", "-", "pods/finalizers"),
        rule(READ, "-", "replicationcontrollers,services"),
        rule(READ, "apps,extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "-", "persistentvolumeclaims,persistentvolumes"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule(READ, "storage.k8s.io", "csinodes"),
        rule(READ, "-", "namespaces"),
        rule(READ, "storage.k8s.io", "csidrivers,csistoragecapacities,volumeattachments"),
        rule(READ, "resource.k8s.io", "deviceclasses,resourceslices"),
        rule("create,delete,get,list,patch,update,watch", "resource.k8s.io", "resourceclaims"),
        rule("get,list,patch,update,watch", "resource.k8s.io", "resourceclaims/status"),
        rule("patch,update", "resource.k8s.io", "resourceclaims/binding"),
    ]
}

fn certificates() -> Vec<ClusterRole> {
    let approve =
        |signer: &str| vec![named("approve", "certificates.k8s.io", "signers", &format!("kubernetes.io/{signer}"))];
    let request = |sub: &str| vec![rule("create", "certificates.k8s.io", &format!("certificatesigningrequests/{sub}"))];
    vec![
        ClusterRole::new("system:certificates.k8s.io:certificatesigningrequests:nodeclient", request("nodeclient")),
        ClusterRole::new(
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            request("selfnodeclient"),
        ),
        ClusterRole::new("system:certificates.k8s.io:kube-apiserver-client-approver", approve("kube-apiserver-client")),
        ClusterRole::new(
            "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
            approve("kube-apiserver-client-kubelet"),
        ),
        ClusterRole::new("system:certificates.k8s.io:kubelet-serving-approver", approve("kubelet-serving")),
        ClusterRole::new("system:certificates.k8s.io:legacy-unknown-approver", approve("legacy-unknown")),
    ]
}

pub(super) fn cluster_role_bindings() -> Vec<Value> {
    let table: &[(&str, &[&str])] = &[
        ("cluster-admin", &["Group:system:masters"]),
        ("system:monitoring", &["Group:system:monitoring"]),
        ("system:discovery", &["Group:system:authenticated"]),
        ("system:basic-user", &["Group:system:authenticated"]),
        ("system:public-info-viewer", &["Group:system:authenticated", "Group:system:unauthenticated"]),
        ("system:service-account-issuer-discovery", &["Group:system:serviceaccounts"]),
        ("system:node-proxier", &["User:system:kube-proxy"]),
        ("system:kube-controller-manager", &["User:system:kube-controller-manager"]),
        ("system:kube-dns", &["ServiceAccount:kube-system/kube-dns"]),
        ("system:kube-scheduler", &["User:system:kube-scheduler"]),
        ("system:volume-scheduler", &["User:system:kube-scheduler"]),
        ("system:node", &[]),
    ];
    table.iter().map(|(role, who)| binding("ClusterRoleBinding", "", role, "ClusterRole", role, who)).collect()
}

fn role(namespace: &str, name: &str, rules: Vec<PolicyRule>) -> Value {
    let mut role = object("Role", namespace, name);
    role["rules"] = json!(rules);
    role
}

pub(super) fn namespaced() -> Vec<Value> {
    let system = "kube-system";
    let managers = &["User:system:kube-controller-manager", "User:system:kube-scheduler"];
    let leader = |component: &str| {
        vec![
            rule("create,get,list,update,watch", "coordination.k8s.io", "leases"),
            named("get,update", "coordination.k8s.io", "leases", component),
        ]
    };
    let bind = |namespace: &str, name: &str, role: &str, who: &[&str]| {
        binding("RoleBinding", namespace, name, "Role", role, who)
    };
    let mut objects = vec![
        role(
            system,
            "extension-apiserver-authentication-reader",
            vec![named(READ, "-", "configmaps", "extension-apiserver-authentication")],
        ),
        role(system, "system:controller:bootstrap-signer", vec![rule(READ, "-", "secrets")]),
        role(
            system,
            "system:controller:cloud-provider",
            vec![
                rule("create,get,list,watch", "-", "configmaps"),
                rule("create,get,list,update,watch", "-", "configmaps"),
            ],
        ),
        role(system, "system:controller:token-cleaner", vec![rule("delete,get,list,watch", "-", "secrets"), events()]),
        role(
            "kube-public",
            "system:controller:bootstrap-signer",
            vec![rule(READ, "-", "configmaps"), named("update", "-", "configmaps", "cluster-info"), events()],
        ),
    ];
    for component in ["kube-controller-manager", "kube-scheduler"] {
        let name = format!("system::leader-locking-{component}");
        let mut rules = leader(component);
        rules.push(rule("create,get,list,update,watch", "coordination.k8s.io", "leasecandidates"));
        objects.push(role(system, &name, rules));
        let user = format!("User:system:{component}");
        objects.push(bind(system, &name, &name, &[&user]));
    }
    objects.push(bind(
        system,
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        managers,
    ));
    for (namespace, name) in [
        (system, "bootstrap-signer"),
        (system, "cloud-provider"),
        (system, "token-cleaner"),
        ("kube-public", "bootstrap-signer"),
    ] {
        let role = format!("system:controller:{name}");
        let who = format!("ServiceAccount:kube-system/{name}");
        objects.push(bind(namespace, &role, &role, &[&who]));
    }
    objects
}
