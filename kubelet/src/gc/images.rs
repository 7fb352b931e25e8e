//! Images that no container uses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::GcError;
use crate::cri::v1;
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::pods;
use crate::services::Services;
use crate::stats::Stats;
use crate::workers::Workers;

/// When images are removed.
#[derive(Clone, Debug)]
pub struct ImagePolicy {
    /// Percent in use from which on images are removed.
    pub high: u64,
    /// Percent in use down to which.
    pub low: u64,
    /// Younger ones are kept.
    pub min_age: Duration,
    /// Those unused for longer go anyway; zero: none.
    pub max_age: Duration,
}

/// What is remembered of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    first_seen: Timestamp,
    last_used: Option<Timestamp>,
    size: u64,
    pinned: bool,
    in_use: bool,
}

impl Record {
    fn unused_since(&self) -> Timestamp {
        self.last_used.unwrap_or(self.first_seen)
    }
}

/// Removes images.
pub struct ImageGc {
    services: Arc<Services>,
    workers: Arc<Workers>,
    stats: Arc<Stats>,
    policy: ImagePolicy,
    records: Mutex<HashMap<String, Record>>,
}

impl ImageGc {
    /// Nothing is known yet.
    pub fn new(services: Arc<Services>, workers: Arc<Workers>, stats: Arc<Stats>, policy: ImagePolicy) -> Arc<Self> {
        Arc::new(Self { services, workers, stats, policy, records: Mutex::default() })
    }

    /// Removes what is too old, then, if the file system is full, what was not used for the longest time.
    pub async fn collect(&self) -> Result<(), GcError> {
        let now = Timestamp::now();
        self.look(now).await?;
        let old = too_old(&self.records.lock(), &self.policy, self.services.started, now);
        for id in old {
            self.remove(&id, "age").await?;
        }
        let (usage, _) = self.stats.node().await.image_fs.ok_or(GcError::NoFileSystem)?;
        if usage.capacity == 0 {
            let error = GcError::Capacity;
            self.services.events.node(EventType::Warning, "InvalidDiskCapacity", error.to_string());
            return Err(error);
        }
        let wanted = excess(usage.capacity, usage.available.min(usage.capacity), &self.policy);
        if wanted == 0 {
            return Ok(());
        }
        tracing::info!(
            bytes = wanted,
            "disk usage on the image file system is over the high threshold, removing images"
        );
        let freed = self.free(wanted, now, self.policy.min_age).await?;
        if freed >= wanted {
            return Ok(());
        }
        let error = GcError::NotEnough { wanted, freed };
        self.services.events.node(EventType::Warning, "FreeDiskSpaceFailed", error.to_string());
        Err(error)
    }

    /// Removes every image that is not used.
    pub async fn remove_unused(&self) -> Result<(), GcError> {
        let now = Timestamp::now();
        self.look(now).await?;
        self.free(u64::MAX, now, Duration::ZERO).await.map(drop)
    }

    async fn free(&self, wanted: u64, now: Timestamp, min_age: Duration) -> Result<u64, GcError> {
        let chosen = least_used(&self.records.lock(), wanted, min_age, now);
        let mut freed = 0_u64;
        for (id, size) in chosen {
            self.remove(&id, "space").await?;
            freed = freed.saturating_add(size);
        }
        Ok(freed)
    }

    async fn remove(&self, id: &str, reason: &str) -> Result<(), GcError> {
        tracing::info!(image = id, reason, "removing image to free bytes");
        self.services.cri.remove_image(id).await?;
        self.records.lock().remove(id);
        METRICS.images_collected.with_label_values(&[reason]).inc();
        Ok(())
    }

    /// Brings the records up to date.
    async fn look(&self, now: Timestamp) -> Result<(), GcError> {
        let cri = &self.services.cri;
        let images = cri.list_images().await?;
        let mut used: HashSet<String> = HashSet::new();
        for container in cri.list_containers(None).await? {
            used.insert(container.image_ref);
            used.extend(container.image.map(|image| image.image));
        }
        for summary in self.workers.all() {
            let volumes = pods::spec(&summary.pod).volumes.iter().flatten();
            let references = volumes.filter_map(|volume| volume.image.as_ref()?.reference.clone());
            used.extend(references.filter_map(|name| Some(crate::images::parse(&name).ok()?.normalized)));
        }
        used.extend(self.services.cri.sandbox_image().await);
        let present = images.iter().map(|image| image.id.clone()).collect();
        self.services.images.forget_absent(present, now).await;
        let mut records = self.records.lock();
        let known: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        records.retain(|id, _| known.contains(id.as_str()));
        for image in &images {
            let in_use = names(image).any(|name| used.contains(name));
            let record = records.entry(image.id.clone()).or_insert(Record {
                first_seen: now,
                last_used: None,
                size: image.size,
                pinned: image.pinned,
                in_use,
            });
            (record.size, record.pinned, record.in_use) = (image.size, image.pinned, in_use);
            if in_use {
                record.last_used = Some(now);
            }
        }
        Ok(())
    }
}

/// All names of an image.
fn names(image: &v1::Image) -> impl Iterator<Item = &str> {
    let all = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
    all.map(String::as_str)
}

/// Bytes to be freed.
fn excess(capacity: u64, available: u64, policy: &ImagePolicy) -> u64 {
    let percent_used = 100 - available * 100 / capacity;
    if percent_used < policy.high {
        return 0;
    }
    (capacity / 100 * (100 - policy.low)).saturating_sub(available)
}

/// Images unused for longer than allowed, counted from the kubelet's start on.
fn too_old(records: &HashMap<String, Record>, policy: &ImagePolicy, started: Timestamp, now: Timestamp) -> Vec<String> {
    let Ok(limit) = SignedDuration::try_from(policy.max_age) else { return Vec::new() };
    if limit.is_zero() || now.duration_since(started) <= limit {
        return Vec::new();
    }
    let old = records
        .iter()
        .filter(|(_, record)| !record.in_use && !record.pinned && now.duration_since(record.unused_since()) > limit);
    let mut ids: Vec<String> = old.map(|(id, _)| id.clone()).collect();
    ids.sort();
    ids
}

/// Unused images, those first that were not used for the longest time, until enough is found.
fn least_used(records: &HashMap<String, Record>, wanted: u64, min_age: Duration, now: Timestamp) -> Vec<(String, u64)> {
    let min_age = SignedDuration::try_from(min_age).unwrap_or(SignedDuration::MAX);
    let mut all: Vec<(&String, &Record)> = records
        .iter()
        .filter(|(_, record)| !record.in_use && !record.pinned)
        .filter(|(_, record)| now.duration_since(record.first_seen) >= min_age)
        .collect();
    all.sort_by_key(|(id, record)| (record.last_used.unwrap_or(Timestamp::MIN), record.first_seen, (*id).clone()));
    let mut found = 0_u64;
    let mut out = Vec::new();
    for (id, record) in all {
        if found >= wanted {
            break;
        }
        found = found.saturating_add(record.size);
        out.push((id.clone(), record.size));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(first_seen: i64, last_used: Option<i64>, size: u64) -> Record {
        Record { first_seen: at(first_seen), last_used: last_used.map(at), size, pinned: false, in_use: false }
    }

    fn policy() -> ImagePolicy {
        ImagePolicy { high: 85, low: 80, min_age: Duration::from_secs(120), max_age: Duration::ZERO }
    }

    #[test]
    fn thresholds_say_how_much() {
        assert_eq!(excess(1000, 160, &policy()), 0);
        assert_eq!(excess(1000, 150, &policy()), 50);
        assert_eq!(excess(1000, 0, &policy()), 200);
    }

    #[test]
    fn the_longest_unused_go_first() {
        let records = HashMap::from([
            ("never".to_owned(), record(10, None, 5)),
            ("old".to_owned(), record(0, Some(50), 5)),
            ("recent".to_owned(), record(0, Some(90), 5)),
            ("young".to_owned(), record(950, None, 5)),
            ("used".to_owned(), Record { in_use: true, ..record(0, Some(1), 5) }),
            ("pinned".to_owned(), Record { pinned: true, ..record(0, Some(1), 5) }),
        ]);
        let ids = |wanted| -> Vec<String> {
            least_used(&records, wanted, policy().min_age, at(1000)).into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!(ids(1), ["never"]);
        assert_eq!(ids(6), ["never", "old"]);
        assert_eq!(ids(u64::MAX), ["never", "old", "recent"]);
    }

    #[test]
    fn age_counts_from_the_start() {
        let records =
            HashMap::from([("a".to_owned(), record(0, Some(100), 1)), ("b".to_owned(), record(0, Some(950), 1))]);
        let policy = ImagePolicy { max_age: Duration::from_secs(100), ..policy() };
        assert_eq!(too_old(&records, &policy, at(0), at(1000)), ["a"]);
        assert!(too_old(&records, &policy, at(950), at(1000)).is_empty());
        assert!(too_old(&records, &super::tests::policy(), at(0), at(1000)).is_empty());
    }
}
