//! In which order groups and versions are listed.

use std::cmp::{Ordering, Reverse};

/// Priorities of the built-in groups.
const PRIORITIES: [(&str, i32); 23] = [
    ("apiregistration.k8s.io", 20_000),
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
];

/// Priority of a group.
pub(super) fn priority(group: &str) -> i32 {
    PRIORITIES.iter().find(|(name, _)| *name == group).map_or(super::CUSTOM_GROUP_PRIORITY, |(_, priority)| *priority)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    /// `v10`, `v2beta1`, ...: stability (GA first), then major, then minor number, higher first.
    Kubernetes(u8, Reverse<u64>, Reverse<u64>),
    /// Anything else, after those, by name.
    Other(&'a str),
}

fn rank(version: &str) -> Rank<'_> {
    parse(version).unwrap_or(Rank::Other(version))
}

fn parse(version: &str) -> Option<Rank<'_>> {
    let rest = version.strip_prefix('v')?;
    let split = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, tail) = rest.split_at(split);
    let major = Reverse(number(major)?);
    if tail.is_empty() {
        return Some(Rank::Kubernetes(0, major, Reverse(0)));
    }
    let (stability, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (2, minor),
        _ => return None,
    };
    Some(Rank::Kubernetes(stability, major, Reverse(number(minor)?)))
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Orders versions, preferred first: `v10 > v2 > v1 > v11beta2 > v3beta1 > v12alpha1 > foo1`.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    rank(a).cmp(&rank(b))
}
