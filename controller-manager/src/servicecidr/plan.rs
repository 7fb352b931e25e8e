//! What a ServiceCIDR needs.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::ServiceCIDR,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::{FINALIZER, READY};

/// Seconds from the deletion to the end: allocators hear of it meanwhile.
const GRACE: i64 = 10;

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// The finalizer is put on, and it is ready.
    Adopt,
    /// Its condition is written.
    Mark(Condition),
    /// The finalizer is taken off.
    Release,
    /// Come again after so many seconds.
    Wait(u64),
}

/// The condition of one that can be used.
pub(super) fn ready() -> Condition {
    condition("True", "", "Kubernetes Service CIDR is ready")
}

fn terminating() -> Condition {
    let text =
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
    condition("False", "Terminating", text)
}

fn condition(status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// Decides. `addresses` are the names of all that are in use.
pub(super) fn step<'a>(
    range: &ServiceCIDR,
    others: impl Iterator<Item = &'a ServiceCIDR>,
    addresses: impl Iterator<Item = &'a str>,
    now: Timestamp,
) -> Step {
    let meta = &range.metadata;
    let adopted = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let mut conditions = range.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let present = conditions.find(|condition| condition.type_ == READY);
    let Some(deleted) = &meta.deletion_timestamp else {
        return match present {
            _ if !adopted => Step::Adopt,
            Some(condition) if condition.status == "True" => Step::Nothing,
            _ => Step::Mark(ready()),
        };
    };
    if !adopted {
        return Step::Nothing;
    }
    let others: Vec<IpNet> =
        others.filter(|other| other.metadata.deletion_timestamp.is_none()).flat_map(networks).collect();
    let own = networks(range);
    let held = addresses.filter_map(|name| name.parse::<IpAddr>().ok()).any(|address| {
        own.iter().any(|network| network.contains(&address)) && !others.iter().any(|other| other.contains(&address))
    });
    if held {
        let told = present.is_some_and(|condition| condition.status == "False" && condition.reason == "Terminating");
        return if told { Step::Nothing } else { Step::Mark(terminating()) };
    }
    let left = deleted.0.as_second() + GRACE - now.as_second();
    u64::try_from(left).ok().filter(|left| *left > 0).map_or(Step::Release, Step::Wait)
}

fn networks(range: &ServiceCIDR) -> Vec<IpNet> {
    let texts = range.spec.iter().filter_map(|spec| spec.cidrs.as_ref()).flatten();
    texts.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(cidr: &str, adopted: bool, deleted: Option<i64>, ready: Option<(&str, &str)>) -> ServiceCIDR {
        let mut value = json!({"metadata": {"name": "r"}, "spec": {"cidrs": [cidr]}});
        if adopted {
            value["metadata"]["finalizers"] = json!([FINALIZER]);
        }
        if let Some(at) = deleted {
            value["metadata"]["deletionTimestamp"] = json!(Timestamp::from_second(at).unwrap().to_string());
        }
        if let Some((status, reason)) = ready {
            value["status"] = json!({"conditions": [{"type": "Ready", "status": status, "reason": reason,
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn steps() {
        let now = Timestamp::from_second(1000).unwrap();
        let one = "10.0.0.0/24";
        let decide = |range: &ServiceCIDR, others: &[ServiceCIDR], addresses: &[&'static str]| {
            step(range, others.iter(), addresses.iter().copied(), now)
        };
        let (none, used): (&[ServiceCIDR], &[&str]) = (&[], &["10.0.0.7", "192.168.0.1", "fd00::1"]);
        let deleted = |at, told| range(one, true, Some(at), told);
        let wide = range("10.0.0.0/16", true, None, None);
        let leaving = range("10.0.0.0/16", true, Some(1), None);
        let cases = [
            (range(one, false, None, None), none, used, Step::Adopt),
            (range(one, true, None, None), none, used, Step::Mark(ready())),
            (range(one, true, None, Some(("True", ""))), none, used, Step::Nothing),
            (range(one, true, None, Some(("False", "Terminating"))), none, used, Step::Mark(ready())),
            (range(one, false, Some(900), None), none, used, Step::Nothing),
            (deleted(900, None), none, used, Step::Mark(terminating())),
            (deleted(900, Some(("False", "Terminating"))), none, used, Step::Nothing),
            (deleted(900, None), none, &["192.168.0.1"], Step::Release),
            (deleted(900, None), std::slice::from_ref(&wide), used, Step::Release),
            (deleted(900, None), std::slice::from_ref(&leaving), used, Step::Mark(terminating())),
            (deleted(994, None), none, &[], Step::Wait(4)),
            (deleted(990, None), none, &[], Step::Release),
        ];
        for (at, (range, others, addresses, expected)) in cases.into_iter().enumerate() {
            assert_eq!(decide(&range, others, addresses), expected, "case {at}");
        }
    }
}
