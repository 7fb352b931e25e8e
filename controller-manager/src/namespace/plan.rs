//! What the emptying of a namespace says about itself: pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use machinery::GroupVersionResource;

/// Seconds that objects with finalizers are given before the next look.
const FINALIZER_ESTIMATE: i64 = 15;

/// What was found and done, over all resources.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Group versions that could not be discovered.
    pub(super) undiscovered: Vec<String>,
    /// Errors of deleting.
    pub(super) errors: Vec<String>,
    /// Objects that are left, by resource.
    pub(super) remaining: BTreeMap<String, usize>,
    /// Objects that are left, by finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// Seconds after which what is left may be gone.
    pub(super) estimate: i64,
}

impl Report {
    /// Notes what is left of a resource. Left without a finalizer and without time to end, it should not be there.
    pub(super) fn left(&mut self, gvr: &GroupVersionResource, finalizers: &[Vec<String>], grace: i64, namespace: &str) {
        if finalizers.is_empty() {
            return;
        }
        *self.remaining.entry(format!("{}.{}", gvr.resource, gvr.group)).or_default() += finalizers.len();
        let mut held = false;
        for finalizer in finalizers.iter().flatten() {
            held = true;
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        let estimate = grace.max(if held { FINALIZER_ESTIMATE } else { 0 });
        self.estimate = self.estimate.max(estimate);
        if estimate == 0 {
            let text = format!(
                "unexpected items still remain in namespace: {namespace} for gvr: {}/{}, Resource={}",
                gvr.group, gvr.version, gvr.resource
            );
            self.errors.push(text);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.undiscovered.is_empty() && self.errors.is_empty() && self.remaining.is_empty()
    }

    /// All conditions, in order.
    fn conditions(&self) -> [(&'static str, bool, &'static str, String); 5] {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list.join(", ")
        };
        let counted = |map: &BTreeMap<String, usize>, verb: &str| {
            let texts: Vec<String> = map.iter().map(|(k, n)| format!("{k} {verb} {n} resource instances")).collect();
            texts.join(", ")
        };
        [
            if self.undiscovered.is_empty() {
                let text = "All resources successfully discovered".to_owned();
                ("NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered", text)
            } else {
                let text = format!(
                    "Discovery failed for some groups, {} failing: {}",
                    self.undiscovered.len(),
                    sorted(&self.undiscovered)
                );
                ("NamespaceDeletionDiscoveryFailure", true, "DiscoveryFailed", text)
            },
            {
                let text = "All legacy kube types successfully parsed".to_owned();
                ("NamespaceDeletionGroupVersionParsingFailure", false, "ParsedGroupVersions", text)
            },
            if self.errors.is_empty() {
                let text = "All content successfully deleted, may be waiting on finalization".to_owned();
                ("NamespaceDeletionContentFailure", false, "ContentDeleted", text)
            } else {
                let text = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    self.errors.len(),
                    sorted(&self.errors)
                );
                ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", text)
            },
            if self.remaining.is_empty() {
                let text = "All content successfully removed".to_owned();
                ("NamespaceContentRemaining", false, "ContentRemoved", text)
            } else {
                let text = format!("Some resources are remaining: {}", counted(&self.remaining, "has"));
                ("NamespaceContentRemaining", true, "SomeResourcesRemain", text)
            },
            if self.finalizers.is_empty() {
                let text = "All content-preserving finalizers finished".to_owned();
                ("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", text)
            } else {
                let text = format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(&self.finalizers, "in")
                );
                ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", text)
            },
        ]
    }

    /// The status with the conditions of this report.
    pub(super) fn status(&self, present: &NamespaceStatus, now: &Time) -> NamespaceStatus {
        let mut next = present.clone();
        let conditions = next.conditions.get_or_insert_default();
        for (kind, on, reason, message) in self.conditions() {
            let status = if on { "True" } else { "False" };
            let fresh = NamespaceCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(now.clone()),
            };
            match conditions.iter_mut().find(|c| c.type_ == kind) {
                None => conditions.push(fresh),
                Some(known) if known.status == status => {
                    known.reason = fresh.reason;
                    known.message = fresh.message;
                }
                Some(known) => *known = fresh,
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn gvr(group: &str, resource: &str) -> GroupVersionResource {
        GroupVersionResource { group: group.into(), version: "v1".into(), resource: resource.into() }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn texts() {
        let mut report = Report::default();
        report.left(&gvr("", "pods"), &[Vec::new()], 30, "n");
        report.left(&gvr("x.io", "things"), &[vec!["a/b".into()], vec!["a/b".into(), "c".into()]], 0, "n");
        report.undiscovered.push("metrics.k8s.io/v1".into());
        let status = report.status(&NamespaceStatus::default(), &at(1));
        let got: Vec<_> =
            status.conditions.unwrap().into_iter().map(|c| (c.status, c.reason.unwrap(), c.message.unwrap())).collect();
        let expected = [
            ("True", "DiscoveryFailed", "Discovery failed for some groups, 1 failing: metrics.k8s.io/v1"),
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            (
                "True",
                "SomeResourcesRemain",
                "Some resources are remaining: pods. has 1 resource instances, things.x.io has 2 resource instances",
            ),
            (
                "True",
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: a/b in 2 resource instances, c in 1 resource instances",
            ),
        ];
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!((got.0.as_str(), got.1.as_str(), got.2.as_str()), expected);
        }
        assert_eq!((report.estimate, report.errors.len()), (30, 0));
    }

    #[test]
    fn what_stays_without_reason_is_an_error() {
        let mut report = Report::default();
        report.left(&gvr("", "secrets"), &[Vec::new()], 0, "n");
        assert_eq!(report.errors.len(), 1);
        assert!(!report.is_empty());
    }

    #[test]
    fn transition_times_hold() {
        let first = Report::default().status(&NamespaceStatus::default(), &at(1));
        let second = Report::default().status(&first, &at(2));
        assert_eq!(first, second);
        let failed = Report { errors: vec!["e".into()], ..Report::default() };
        let third = failed.status(&second, &at(3));
        assert_eq!(third.conditions.unwrap()[2].last_transition_time, Some(at(3)));
    }
}
