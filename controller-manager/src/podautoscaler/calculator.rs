//! How many replicas a metric asks for: pure arithmetic over samples and Pods. Values are in thousandths.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ::controller::Cached;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::views::{Phase, PodView};

/// What a metrics API says of one Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) value: i64,
    pub(super) at: Timestamp,
    pub(super) window: Duration,
}

/// Samples by the names of Pods.
pub(super) type Samples = BTreeMap<String, Sample>;

/// How far the ratio of usage to target may be from one without anything being done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerances {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerances {
    fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// Why there is no number.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum CalculationError {
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoSamples,
    #[error("no metrics returned matched known pods")]
    NothingMatched,
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    MissingRequest { resource: String, container: String, pod: String },
}

/// A number of replicas and the usage it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calculated {
    pub(super) replicas: i32,
    /// Percentage of the requests, where it was asked for.
    pub(super) utilization: Option<i32>,
    /// Usage, of all or on average as the kind of metric has it.
    pub(super) usage: i64,
}

/// The Pods of a target as they are now.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) pods: &'a [Arc<Cached<PodView>>],
    pub(super) now: Timestamp,
    /// How long the CPU usage of a new Pod may be that of its start.
    pub(super) initialization: Duration,
    /// How long after its start the first readiness of a Pod is not a change of readiness.
    pub(super) readiness_delay: Duration,
    pub(super) tolerances: Tolerances,
    /// Replicas the target asks for.
    pub(super) current: i32,
}

/// Pods by what is known of their usage.
#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

impl<'a> Scene<'a> {
    /// Replicas for a percentage of what Pods, or one container of each, request.
    pub(super) fn by_utilization(
        &self,
        mut samples: Samples,
        resource: &str,
        container: Option<&str>,
        target: i32,
    ) -> Result<Calculated, CalculationError> {
        let groups = self.usable(&mut samples, resource)?;
        let requests = requests(self.pods, container, resource)?;
        let measured = utilization(&samples, &requests, target)?;
        let fallback = i64::from(target.max(100));
        let assumed = |pod: &str| requests.get(pod).map_or(0, |request| fallback.saturating_mul(*request) / 100);
        let ratio = |samples: &Samples| Ok(utilization(samples, &requests, target)?.0);
        let replicas = self.replicas(samples, &groups, measured.0, assumed, ratio)?;
        Ok(Calculated { replicas, utilization: Some(measured.1), usage: measured.2 })
    }

    /// Replicas for an average over Pods. `resource` is empty for metrics that are not resources.
    pub(super) fn by_average(
        &self,
        mut samples: Samples,
        resource: &str,
        target: i64,
    ) -> Result<Calculated, CalculationError> {
        let groups = self.usable(&mut samples, resource)?;
        let (measured, usage) = average(&samples, target);
        let ratio = |samples: &Samples| Ok(average(samples, target).0);
        let replicas = self.replicas(samples, &groups, measured, |_| target, ratio)?;
        Ok(Calculated { replicas, utilization: None, usage })
    }

    /// Replicas for a value that does not belong to single Pods.
    pub(super) fn by_value(&self, usage: i64, target: i64) -> Result<Calculated, CalculationError> {
        let ratio = quotient(usage, target);
        let calculated = |replicas| Calculated { replicas, utilization: None, usage };
        if self.current == 0 {
            return Ok(calculated(ceiling(ratio)));
        }
        if self.tolerances.covers(ratio) {
            return Ok(calculated(self.current));
        }
        if self.pods.is_empty() {
            return Err(CalculationError::NoPods);
        }
        let ready = self.pods.iter().filter(|pod| pod.phase == Phase::Running && pod.is_ready()).count();
        Ok(calculated(ceiling(ratio * count(ready))))
    }

    /// Replicas for a value that is shared out over the replicas there are.
    pub(super) fn by_share(&self, usage: i64, target: i64, existing: i32) -> Calculated {
        let ratio = quotient(usage, target.saturating_mul(i64::from(existing)));
        let replicas = if self.tolerances.covers(ratio) { existing } else { ceiling(quotient(usage, target)) };
        let share = if existing > 0 { div_up(usage, i64::from(existing)) } else { usage };
        Calculated { replicas, utilization: None, usage: share }
    }

    /// Groups the Pods and takes away the samples that do not count.
    fn usable(&self, samples: &mut Samples, resource: &str) -> Result<Groups<'a>, CalculationError> {
        if self.pods.is_empty() {
            return Err(CalculationError::NoPods);
        }
        let groups = self.groups(samples, resource);
        samples.retain(|pod, _| !groups.ignored.contains(pod.as_str()) && !groups.unready.contains(pod.as_str()));
        if samples.is_empty() { Err(CalculationError::NoSamples) } else { Ok(groups) }
    }

    fn groups(&self, samples: &Samples, resource: &str) -> Groups<'a> {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.key.name.as_str();
            if pod.deletion.is_some() || pod.phase == Phase::Failed {
                groups.ignored.insert(name);
            } else if pod.phase == Phase::Pending {
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(name) {
                if resource == "cpu" && self.starts(pod, sample) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        groups
    }

    /// Whether the CPU usage of a Pod is still that of its start.
    fn starts(&self, pod: &PodView, sample: &Sample) -> bool {
        let (Some(condition), Some(started)) = (pod.condition("Ready"), pod.started) else { return true };
        let unready = condition.status == "False";
        let changed = condition.since.unwrap_or(Timestamp::UNIX_EPOCH);
        if after(started, self.initialization) > self.now {
            // The sample has to be of the time since readiness last changed.
            return unready || sample.at < after(changed, sample.window);
        }
        // Never ready since its start.
        unready && after(started, self.readiness_delay) > changed
    }

    /// Replicas by ratio; Pods without samples are assumed to speak against the change.
    fn replicas(
        &self,
        mut samples: Samples,
        groups: &Groups<'_>,
        ratio: f64,
        assumed: impl Fn(&str) -> i64,
        again: impl Fn(&Samples) -> Result<f64, CalculationError>,
    ) -> Result<i32, CalculationError> {
        let counts_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !counts_unready && groups.missing.is_empty() {
            if self.tolerances.covers(ratio) {
                return Ok(self.current);
            }
            return Ok(ceiling(ratio * count(groups.ready)));
        }
        let sample = |value| Sample { value, at: self.now, window: Duration::ZERO };
        if ratio < 1.0 {
            samples.extend(groups.missing.iter().map(|pod| ((*pod).to_owned(), sample(assumed(pod)))));
        } else if ratio > 1.0 {
            samples.extend(groups.missing.iter().map(|pod| ((*pod).to_owned(), sample(0))));
        }
        if counts_unready {
            samples.extend(groups.unready.iter().map(|pod| ((*pod).to_owned(), sample(0))));
        }
        let new = again(&samples)?;
        let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
        if turned || self.tolerances.covers(new) {
            return Ok(self.current);
        }
        let replicas = ceiling(new * count(samples.len()));
        let against = (new < 1.0 && replicas > self.current) || (new > 1.0 && replicas < self.current);
        Ok(if against { self.current } else { replicas })
    }
}

/// Ratio to the target, percentage of the requests, and average usage.
fn utilization(
    samples: &Samples,
    requests: &BTreeMap<&str, i64>,
    target: i32,
) -> Result<(f64, i32, i64), CalculationError> {
    let (mut used, mut requested, mut entries) = (0i64, 0i64, 0i64);
    for (pod, sample) in samples {
        let Some(request) = requests.get(pod.as_str()) else { continue };
        used = used.saturating_add(sample.value);
        requested = requested.saturating_add(*request);
        entries += 1;
    }
    if requested <= 0 || entries == 0 {
        return Err(CalculationError::NothingMatched);
    }
    let percent = i32::try_from(i128::from(used) * 100 / i128::from(requested)).unwrap_or(i32::MAX);
    Ok((quotient(i64::from(percent), i64::from(target)), percent, used / entries))
}

/// Ratio to the target, and the average.
fn average(samples: &Samples, target: i64) -> (f64, i64) {
    let total = samples.values().fold(0i64, |sum, sample| sum.saturating_add(sample.value));
    let average = total / i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
    (quotient(average, target), average)
}

/// What each Pod requests of a resource, or its container of that name.
fn requests<'a>(
    pods: &'a [Arc<Cached<PodView>>],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<&'a str, i64>, CalculationError> {
    let mut all = BTreeMap::new();
    for pod in pods {
        if container.is_none()
            && let Some(request) = pod.requests.of_pod(resource)
        {
            all.insert(pod.key.name.as_str(), request);
            continue;
        }
        let mut sum = 0i64;
        for (name, request) in pod.requests.of_containers(resource) {
            if container.is_some_and(|wanted| wanted != name) {
                continue;
            }
            let request = request.ok_or_else(|| CalculationError::MissingRequest {
                resource: resource.to_owned(),
                container: name.to_owned(),
                pod: pod.key.name.clone(),
            })?;
            sum = sum.saturating_add(request);
        }
        all.insert(pod.key.name.as_str(), sum);
    }
    Ok(all)
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[allow(clippy::cast_precision_loss)]
fn quotient(value: i64, by: i64) -> f64 {
    value as f64 / by as f64
}

#[allow(clippy::cast_precision_loss)]
fn count(number: usize) -> f64 {
    number as f64
}

/// Rounded up, within what a replica count can be.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn ceiling(number: f64) -> i32 {
    // A conversion of floats saturates, and makes 0 of what is not a number.
    number.ceil() as i32
}

fn div_up(value: i64, by: i64) -> i64 {
    let whole = value / by;
    if value % by > 0 { whole + 1 } else { whole }
}

#[cfg(test)]
mod tests;
