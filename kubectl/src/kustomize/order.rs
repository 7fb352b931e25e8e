//! The order of the output: what others need comes first.

use super::{file::SortOptions, item::Item};

const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts, unless the file wants the order of reading.
pub(super) fn sort(items: &mut [Item], options: Option<&SortOptions>) {
    if options.is_some_and(|options| options.order == "fifo") {
        return;
    }
    let owned = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
    let (first, last) = match options.and_then(|options| options.legacy_sort_options.as_ref()) {
        Some(own) => (own.order_first.clone(), own.order_last.clone()),
        None => (owned(&FIRST), owned(&LAST)),
    };
    let rank = |kind: &str| {
        let early = first.iter().position(|one| one == kind);
        let late = last.iter().position(|one| one == kind).map(|at| first.len() + 1 + at);
        early.or(late).unwrap_or(first.len())
    };
    items.sort_by_cached_key(|item| (rank(item.kind()), key(item)));
}

/// Absent parts come after all others.
fn key(item: &Item) -> [String; 5] {
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    [
        or(item.group(), "~G"),
        or(item.version(), "~V"),
        or(item.kind(), "~K"),
        or(item.namespace(), "~X"),
        or(item.name(), "~N"),
    ]
}
