//! Requests, limits, QoS and the numbers that cgroups want, all pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{quantity, spec};

/// The lowest cpu weight of cgroup v1.
pub const MIN_SHARES: i64 = 2;
/// The highest cpu weight of cgroup v1.
pub const MAX_SHARES: i64 = 262_144;
/// The shortest cpu quota the kernel takes.
pub const MIN_QUOTA: i64 = 1000;
/// Default quota period, microseconds.
pub const QUOTA_PERIOD: i64 = 100_000;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Quality of service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qos {
    /// No cpu or memory request or limit anywhere.
    BestEffort,
    /// Everything between.
    Burstable,
    /// Limits equal requests for cpu and memory in every container.
    Guaranteed,
}

impl Qos {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// One amount of a map.
pub fn amount<'a>(map: Option<&'a Amounts>, resource: &str) -> Option<&'a Quantity> {
    map?.get(resource)
}

/// A container's request, in thousandths for cpu and whole units otherwise; the limit stands in for a missing request.
pub fn request(resources: Option<&ResourceRequirements>, resource: &str) -> Option<i64> {
    let resources = resources?;
    amount(resources.requests.as_ref(), resource)
        .or_else(|| amount(resources.limits.as_ref(), resource))
        .map(|quantity| number(resource, quantity))
}

/// A container's limit.
pub fn limit(resources: Option<&ResourceRequirements>, resource: &str) -> Option<i64> {
    amount(resources?.limits.as_ref(), resource).map(|quantity| number(resource, quantity)).filter(|n| *n > 0)
}

/// Thousandths for cpu, whole units for anything else.
pub fn number(resource: &str, amount: &Quantity) -> i64 {
    if resource == "cpu" { quantity::milli(amount) } else { quantity::value(amount) }
}

/// The quantity of an amount as [`number`] tells it.
pub fn quantity_of(resource: &str, amount: i64) -> Quantity {
    match resource {
        "cpu" => quantity::from_milli(amount),
        "memory" | "ephemeral-storage" => quantity::from_bytes(amount),
        name if name.starts_with("hugepages-") => quantity::from_bytes(amount),
        _ => quantity::from_count(amount),
    }
}

/// The Pod's quality of service class.
pub fn qos(pod: &Pod) -> Qos {
    if let Some(resources) = &spec(pod).resources
        && has_cpu_or_memory(resources)
    {
        return if is_guaranteed(resources) { Qos::Guaranteed } else { Qos::Burstable };
    }
    let mut any = false;
    let mut all_guaranteed = true;
    for container in super::init_containers(pod).iter().chain(super::containers(pod)) {
        let set = container.resources.as_ref().filter(|resources| has_cpu_or_memory(resources));
        any |= set.is_some();
        all_guaranteed &= set.is_some_and(is_guaranteed);
    }
    match (any, all_guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

fn has_cpu_or_memory(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().any(|name| {
        [&resources.requests, &resources.limits]
            .into_iter()
            .any(|map| amount(map.as_ref(), name).is_some_and(|q| quantity::milli(q) > 0))
    })
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = limit(Some(resources), name);
        limit.is_some() && limit == request(Some(resources), name)
    })
}

/// The Pod's effective request or limit: regular containers and sidecars together, or the largest init step, plus
/// overhead; Pod-level resources win for cpu, memory and huge pages.
#[derive(Clone, Copy)]
pub struct Effective<'a> {
    pod: &'a Pod,
}

impl<'a> Effective<'a> {
    /// Looks at one Pod.
    pub fn of(pod: &'a Pod) -> Self {
        Self { pod }
    }

    /// Sum of requests of one resource.
    pub fn request(self, resource: &str) -> i64 {
        let pod_level = spec(self.pod).resources.as_ref().and_then(|r| request(Some(r), resource));
        pod_level.unwrap_or_else(|| self.sum(|c| request(c.resources.as_ref(), resource).unwrap_or(0)))
            + self.overhead(resource)
    }

    /// Sum of requests without the Pod's overhead.
    pub fn request_without_overhead(self, resource: &str) -> i64 {
        self.request(resource) - self.overhead(resource)
    }

    /// Sum of limits, if every container has one (or the Pod does).
    pub fn limit(self, resource: &str) -> Option<i64> {
        if let Some(limit) = spec(self.pod).resources.as_ref().and_then(|r| limit(Some(r), resource)) {
            return Some(limit + self.overhead(resource));
        }
        let all = super::init_containers(self.pod)
            .iter()
            .chain(super::containers(self.pod))
            .all(|c| limit(c.resources.as_ref(), resource).is_some());
        all.then(|| self.sum(|c| limit(c.resources.as_ref(), resource).unwrap_or(0)) + self.overhead(resource))
    }

    /// The Pod's overhead of one resource.
    pub fn overhead(self, resource: &str) -> i64 {
        amount(spec(self.pod).overhead.as_ref(), resource).map_or(0, |q| number(resource, q))
    }

    /// Names of all resources any container asks for.
    pub fn names(self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let containers = super::init_containers(self.pod).iter().chain(super::containers(self.pod));
        let maps = containers
            .filter_map(|c| c.resources.as_ref())
            .chain(spec(self.pod).resources.as_ref())
            .flat_map(|r| [r.requests.as_ref(), r.limits.as_ref()])
            .chain([spec(self.pod).overhead.as_ref()]);
        names.extend(maps.flatten().flat_map(|map| map.keys().cloned()));
        names.sort();
        names.dedup();
        names
    }

    /// Sums of requests and of limits, as far as there are any.
    pub fn totals(self) -> (Amounts, Amounts) {
        let limit = |name: &str| {
            let own = spec(self.pod).resources.as_ref().and_then(|r| limit(Some(r), name));
            let sum = own.unwrap_or_else(|| self.sum(|c| limit(c.resources.as_ref(), name).unwrap_or(0)));
            if sum > 0 { sum + self.overhead(name) } else { 0 }
        };
        let amounts = |of: &dyn Fn(&str) -> i64| {
            let all = self.names().into_iter().map(|name| (of(&name), name));
            all.filter(|(amount, _)| *amount > 0)
                .map(|(amount, name)| (name.clone(), quantity_of(&name, amount)))
                .collect()
        };
        (amounts(&|name| self.request(name)), amounts(&limit))
    }

    fn sum(self, of: impl Fn(&Container) -> i64) -> i64 {
        let mut sidecars = 0_i64;
        let mut largest_init = 0_i64;
        for container in super::init_containers(self.pod) {
            if super::is_sidecar(container) {
                sidecars = sidecars.saturating_add(of(container));
                largest_init = largest_init.max(sidecars);
            } else {
                largest_init = largest_init.max(sidecars.saturating_add(of(container)));
            }
        }
        let regular = super::containers(self.pod).iter().fold(sidecars, |sum, c| sum.saturating_add(of(c)));
        regular.max(largest_init)
    }
}

/// cpu.shares of an amount of cpu.
pub fn shares(milli: i64) -> i64 {
    if milli == 0 { MIN_SHARES } else { (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// cpu.weight (v2) of cpu.shares.
pub fn weight(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

/// CFS quota in microseconds of an amount of cpu; 0 means none.
pub fn quota(milli: i64, period: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli.saturating_mul(period) / 1000).max(MIN_QUOTA) }
}

/// The cpu of a quota.
pub fn quota_to_milli(quota: i64, period: i64) -> i64 {
    if quota <= 0 || period <= 0 { 0 } else { quota.saturating_mul(1000) / period }
}

/// The cpu of shares, rounded up.
pub fn shares_to_milli(shares: i64) -> i64 {
    (shares.saturating_mul(1000) + 1023) / 1024
}

/// How likely the kernel picks the container's processes when memory runs out.
pub fn oom_score_adj(pod: &Pod, container: &Container, capacity: i64) -> i64 {
    if super::is_node_critical(pod) {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let own = burstable_score(pod, memory_request(container), capacity);
            let is_side = super::init_containers(pod).iter().any(|c| c.name == container.name && super::is_sidecar(c));
            if !is_side {
                return own;
            }
            let smallest = super::containers(pod).iter().map(memory_request).min().unwrap_or(0);
            own.min(burstable_score(pod, smallest, capacity))
        }
    }
}

fn memory_request(container: &Container) -> i64 {
    request(container.resources.as_ref(), "memory").unwrap_or(0)
}

fn burstable_score(pod: &Pod, request_bytes: i64, capacity: i64) -> i64 {
    let mut bytes = request_bytes;
    if let Some(total) = spec(pod).resources.as_ref().and_then(|r| request(Some(r), "memory")) {
        let count = i64::try_from(super::init_containers(pod).len() + super::containers(pod).len()).unwrap_or(1).max(1);
        let assigned = Effective::of(pod).sum(memory_request);
        bytes += (total - assigned).max(0) / count;
    }
    if capacity <= 0 {
        return 999;
    }
    let score = 1000 - i64::try_from(i128::from(bytes) * 1000 / i128::from(capacity)).unwrap_or(1000);
    score.clamp(3, 999)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "p" }, "spec": json })).unwrap()
    }

    #[test]
    fn classes() {
        let none = pod(serde_json::json!({ "containers": [{ "name": "c" }] }));
        assert_eq!(qos(&none), Qos::BestEffort);
        let full = serde_json::json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        let guaranteed = pod(serde_json::json!({ "containers": [{ "name": "c", "resources": full }] }));
        assert_eq!(qos(&guaranteed), Qos::Guaranteed);
        let mixed = pod(serde_json::json!({ "containers": [{ "name": "c", "resources": full }, { "name": "d" }] }));
        assert_eq!(qos(&mixed), Qos::Burstable);
        assert_eq!(oom_score_adj(&none, &none.spec.as_ref().unwrap().containers[0], 1 << 30), 1000);
        assert_eq!(oom_score_adj(&guaranteed, &guaranteed.spec.as_ref().unwrap().containers[0], 1 << 30), -997);
    }

    #[test]
    fn effective_sums_count_sidecars_with_both_sides() {
        let pod = pod(serde_json::json!({
            "initContainers": [
                { "name": "i1", "resources": { "requests": { "cpu": "3" } } },
                { "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": "1" } } },
                { "name": "i2", "resources": { "requests": { "cpu": "2500m" } } }],
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": "2" } } }],
            "overhead": { "cpu": "100m" } }));
        assert_eq!(Effective::of(&pod).request("cpu"), 3600);
        assert_eq!(Effective::of(&pod).limit("cpu"), None);
    }

    #[test]
    fn conversions() {
        assert_eq!(shares(0), 2);
        assert_eq!(shares(250), 256);
        assert_eq!(weight(2), 1);
        assert_eq!(weight(262_144), 10_000);
        assert_eq!(quota(5, QUOTA_PERIOD), 1000);
        assert_eq!(quota(500, QUOTA_PERIOD), 50_000);
        assert_eq!(shares_to_milli(256), 250);
    }
}
