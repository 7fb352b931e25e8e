//! Volumes of storage drivers, as their drivers tell of them now and then, and the series about claims.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::{PodStats, VolumeStats};
use crate::csi::VolumeUse;
use crate::metrics::METRICS;
use crate::platform::{DiskUse, FsUsage};
use crate::pods;
use crate::services::Services;

/// Pod UID and volume.
type Key = (String, String);

/// The last answers.
pub(super) struct DriverVolumes {
    period: Duration,
    known: Mutex<HashMap<Key, (Instant, Option<VolumeUse>)>>,
    told: Mutex<BTreeSet<(String, String)>>,
}

impl DriverVolumes {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, known: Mutex::default(), told: Mutex::default() }
    }

    /// Asks drivers whose last answers are too old.
    pub(super) async fn refresh(&self, services: &Services, live: &[Arc<Pod>]) {
        let mut keys = BTreeSet::new();
        for pod in live {
            for volume in pods::spec(pod).volumes.iter().flatten() {
                let of_driver =
                    volume.csi.is_some() || volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
                if of_driver {
                    keys.insert((pods::uid(pod).to_owned(), volume.name.clone()));
                }
            }
        }
        self.known.lock().retain(|key, _| keys.contains(key));
        for key in keys {
            let is_fresh = self.known.lock().get(&key).is_some_and(|(at, _)| at.elapsed() < self.period);
            if !is_fresh {
                let found = services.volumes.driver_stats(&key.0, &key.1).await;
                // A volume that is not there yet may be soon.
                if found.is_some() {
                    self.known.lock().insert(key, (Instant::now(), found));
                }
            }
        }
    }

    /// What drivers say of a Pod's volumes.
    pub(super) fn of(&self, pod: &Pod) -> Vec<VolumeStats> {
        let known = self.known.lock();
        let volumes = pods::spec(pod).volumes.iter().flatten();
        volumes
            .filter_map(|volume| {
                let found = known.get(&(pods::uid(pod).to_owned(), volume.name.clone()))?.1?;
                let (capacity, available, bytes) = found.bytes?;
                let (inodes, inodes_free, inodes_used) = found.inodes.unwrap_or_default();
                Some(VolumeStats {
                    name: volume.name.clone(),
                    claim: super::claim_of(pod, volume),
                    fs: FsUsage { capacity, available, used: bytes, inodes, inodes_free },
                    used: DiskUse { bytes, inodes: inodes_used },
                    ephemeral: false,
                    abnormal: found.abnormal,
                })
            })
            .collect()
    }

    /// Tells of all claims, and no longer of those that are gone.
    pub(super) fn publish(&self, all: &[PodStats]) {
        let mut told = BTreeSet::new();
        for pod in all {
            for volume in &pod.volumes {
                let Some(claim) = &volume.claim else { continue };
                let labels = [pod.namespace.as_str(), claim.as_str()];
                for (gauge, value) in METRICS.volume_stats.iter().zip([
                    volume.fs.capacity,
                    volume.fs.available,
                    volume.used.bytes,
                    volume.fs.inodes,
                    volume.fs.inodes_free,
                    volume.used.inodes,
                ]) {
                    gauge.with_label_values(&labels).set(value as f64);
                }
                let [.., health] = &METRICS.volume_stats;
                match volume.abnormal {
                    Some(abnormal) => health.with_label_values(&labels).set(f64::from(u8::from(abnormal))),
                    None => drop(health.remove_label_values(&labels)),
                }
                told.insert((pod.namespace.clone(), claim.clone()));
            }
        }
        let mut before = self.told.lock();
        for (namespace, claim) in before.difference(&told) {
            for gauge in &METRICS.volume_stats {
                // It is gone already if somebody else has removed it.
                drop(gauge.remove_label_values(&[namespace, claim]));
            }
        }
        *before = told;
    }
}
