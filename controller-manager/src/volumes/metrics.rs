//! How many volumes and claims there are, counted when somebody asks.

use std::collections::BTreeMap;

use ::controller::Informer;
use prometheus::{
    IntGaugeVec, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use runtime::metrics::{self, Stability};

use super::{VolumeView, class_of_claim, class_of_volume, is_bound, namespace};
use crate::views::ClaimView;

/// Counts by labels.
type Counts = BTreeMap<Vec<String>, i64>;

/// `pv_collector_*`.
struct VolumeCollector {
    volumes: Informer<VolumeView>,
    claims: Informer<ClaimView>,
    bound_volumes: IntGaugeVec,
    unbound_volumes: IntGaugeVec,
    bound_claims: IntGaugeVec,
    unbound_claims: IntGaugeVec,
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    metrics::unregistered_gauge_vec(Stability::Alpha, name, help, labels)
}

/// Registers the collector.
pub(super) fn register(
    registry: &Registry,
    volumes: Informer<VolumeView>,
    claims: Informer<ClaimView>,
) -> Result<(), prometheus::Error> {
    let of_volume = ["storage_class"];
    let of_claim = ["namespace", "storage_class", "volume_attributes_class"];
    registry.register(Box::new(VolumeCollector {
        volumes,
        claims,
        bound_volumes: gauge(
            "pv_collector_bound_pv_count",
            "Gauge measuring number of persistent volume currently bound",
            &of_volume,
        )?,
        unbound_volumes: gauge(
            "pv_collector_unbound_pv_count",
            "Gauge measuring number of persistent volume currently unbound",
            &of_volume,
        )?,
        bound_claims: gauge(
            "pv_collector_bound_pvc_count",
            "Gauge measuring number of persistent volume claim currently bound",
            &of_claim,
        )?,
        unbound_claims: gauge(
            "pv_collector_unbound_pvc_count",
            "Gauge measuring number of persistent volume claim currently unbound",
            &of_claim,
        )?,
    }))
}

fn told(gauges: &IntGaugeVec, counts: &Counts) -> Vec<MetricFamily> {
    gauges.reset();
    for (labels, count) in counts {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        gauges.with_label_values(&labels).set(*count);
    }
    gauges.collect()
}

impl Collector for VolumeCollector {
    fn desc(&self) -> Vec<&Desc> {
        let all = [&self.bound_volumes, &self.unbound_volumes, &self.bound_claims, &self.unbound_claims];
        all.into_iter().flat_map(|gauges| gauges.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (mut bound, mut unbound) = (Counts::new(), Counts::new());
        for volume in self.volumes.list() {
            let counts = if volume.is_bound() { &mut bound } else { &mut unbound };
            *counts.entry(vec![class_of_volume(&volume.view.0).to_owned()]).or_default() += 1;
        }
        let mut all = told(&self.bound_volumes, &bound);
        all.extend(told(&self.unbound_volumes, &unbound));
        let (mut bound, mut unbound) = (Counts::new(), Counts::new());
        for claim in self.claims.list() {
            let attributes = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
            let labels = vec![
                namespace(&claim.view.0).to_owned(),
                class_of_claim(&claim.view.0).to_owned(),
                attributes.unwrap_or_default(),
            ];
            *if is_bound(&claim) { &mut bound } else { &mut unbound }.entry(labels).or_default() += 1;
        }
        all.extend(told(&self.bound_claims, &bound));
        all.extend(told(&self.unbound_claims, &unbound));
        all
    }
}
