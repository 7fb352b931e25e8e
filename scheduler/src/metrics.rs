//! Metrics of scheduling, under upstream's names.

use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};
use runtime::metrics::{self, Stability, exponential_buckets};

use crate::{config::Point, framework::PluginId, meter::Status};

/// Label of the attempts of Pods that took very many.
const MANY_ATTEMPTS: u32 = 15;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Scheduled,
    Unschedulable,
    Error,
}

impl Attempt {
    fn label(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        }
    }
}

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    algorithm: Histogram,
    extension_point: HistogramVec,
    plugin: HistogramVec,
    evaluations: IntCounterVec,
    hints: HistogramVec,
    in_flight: IntGaugeVec,
    sli: HistogramVec,
    attempts_of_pod: Histogram,
    pending: IntGaugeVec,
    incoming: IntCounterVec,
    preemptions: IntCounter,
    victims: Histogram,
    cache: IntGaugeVec,
    goroutines: IntGaugeVec,
    unschedulable: IntGaugeVec,
    handling: HistogramVec,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    calls_pending: IntGaugeVec,
    preemption_duration: HistogramVec,
    preemptions_executed: IntCounterVec,
}

/// A call to the API server beside the scheduling of other Pods; without a word about its end it has failed.
pub(crate) struct Call<'a> {
    metrics: &'a Metrics,
    kind: &'static str,
    began: Instant,
    result: &'static str,
}

impl Call<'_> {
    /// How it ended.
    pub(crate) fn ended<T, E>(mut self, outcome: &Result<T, E>) {
        self.result = result_of(outcome.is_ok());
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let labels = [self.kind, self.result];
        self.metrics.calls.with_label_values(&labels).inc();
        self.metrics.call_duration.with_label_values(&labels).observe(self.began.elapsed().as_secs_f64());
        self.metrics.calls_pending.with_label_values(&[self.kind]).dec();
    }
}

fn result_of(fine: bool) -> &'static str {
    if fine { "success" } else { "error" }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        use Stability::{Alpha, Beta, Stable};
        let x15 = exponential_buckets(0.001, 2.0, 15);
        let of_pod = [1.0, 2.0, 4.0, 8.0, 16.0];
        let victims = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        // No plugin lets a Pod wait at Permit: it counts among the metrics, and has no series.
        let name = "scheduler_permit_wait_duration_seconds";
        metrics::histogram_vec(registry, Alpha, name, "Duration of waiting on permit.", &["result"], &x15)?;
        Ok(Self {
            attempts: metrics::counter_vec(
                registry,
                Stable,
                "scheduler_schedule_attempts_total",
                "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, \
                 while 'error' means an internal scheduler problem.",
                &["result", "profile"],
            )?,
            attempt_duration: metrics::histogram_vec(
                registry,
                Stable,
                "scheduler_scheduling_attempt_duration_seconds",
                "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                &["result", "profile"],
                &x15,
            )?,
            algorithm: metrics::histogram(
                registry,
                Alpha,
                "scheduler_scheduling_algorithm_duration_seconds",
                "Scheduling algorithm latency in seconds",
                &x15,
            )?,
            extension_point: metrics::histogram_vec(
                registry,
                Stable,
                "scheduler_framework_extension_point_duration_seconds",
                "Latency for running all plugins of a specific extension point.",
                &["extension_point", "status", "profile"],
                &exponential_buckets(0.0001, 2.0, 12),
            )?,
            plugin: metrics::histogram_vec(
                registry,
                Alpha,
                "scheduler_plugin_execution_duration_seconds",
                "Duration for running a plugin at a specific extension point.",
                &["plugin", "extension_point", "status"],
                &exponential_buckets(0.000_01, 1.5, 20),
            )?,
            evaluations: metrics::counter_vec(
                registry,
                Alpha,
                "scheduler_plugin_evaluation_total",
                "Number of attempts to schedule pods by each plugin and the extension point (available only in \
                 PreFilter, Filter, PreScore, and Score).",
                &["plugin", "extension_point", "profile"],
            )?,
            hints: metrics::histogram_vec(
                registry,
                Alpha,
                "scheduler_queueing_hint_execution_duration_seconds",
                "Duration for running a queueing hint function of a plugin.",
                &["plugin", "event", "hint"],
                &exponential_buckets(0.000_01, 2.0, 12),
            )?,
            in_flight: metrics::gauge_vec(
                registry,
                Alpha,
                "scheduler_inflight_events",
                "Number of events currently tracked in the scheduling queue.",
                &["event"],
            )?,
            sli: metrics::histogram_vec(
                registry,
                Beta,
                "scheduler_pod_scheduling_sli_duration_seconds",
                "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might \
                 involve multiple scheduling attempts.",
                &["attempts"],
                &exponential_buckets(0.01, 2.0, 20),
            )?,
            attempts_of_pod: metrics::histogram(
                registry,
                Stable,
                "scheduler_pod_scheduling_attempts",
                "Number of attempts to successfully schedule a pod.",
                &of_pod,
            )?,
            pending: metrics::gauge_vec(
                registry,
                Stable,
                "scheduler_pending_pods",
                "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means \
                 number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the \
                 scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the \
                 scheduler never attempted to schedule because they are gated.",
                &["queue"],
            )?,
            incoming: metrics::counter_vec(
                registry,
                Stable,
                "scheduler_queue_incoming_pods_total",
                "Number of pods added to scheduling queues by event and queue type.",
                &["queue", "event"],
            )?,
            preemptions: metrics::counter(
                registry,
                Stable,
                "scheduler_preemption_attempts_total",
                "Total preemption attempts in the cluster till now",
            )?,
            victims: metrics::histogram(
                registry,
                Stable,
                "scheduler_preemption_victims",
                "Number of selected preemption victims",
                &victims,
            )?,
            cache: metrics::gauge_vec(
                registry,
                Alpha,
                "scheduler_cache_size",
                "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
                &["type"],
            )?,
            goroutines: metrics::gauge_vec(
                registry,
                Alpha,
                "scheduler_goroutines",
                "Number of running goroutines split by the work they do such as binding.",
                &["operation"],
            )?,
            unschedulable: metrics::gauge_vec(
                registry,
                Alpha,
                "scheduler_unschedulable_pods",
                "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all \
                 plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
                &["plugin", "profile"],
            )?,
            handling: metrics::histogram_vec(
                registry,
                Alpha,
                "scheduler_event_handling_duration_seconds",
                "Event handling latency in seconds.",
                &["event"],
                &exponential_buckets(0.0001, 2.0, 14),
            )?,
            calls: metrics::counter_vec(
                registry,
                Alpha,
                "scheduler_async_api_call_execution_total",
                "Total number of API calls executed by the async dispatcher.",
                &["call_type", "result"],
            )?,
            call_duration: metrics::histogram_vec(
                registry,
                Alpha,
                "scheduler_async_api_call_execution_duration_seconds",
                "Duration in seconds for executing API call in the async dispatcher.",
                &["call_type", "result"],
                &x15,
            )?,
            calls_pending: metrics::gauge_vec(
                registry,
                Alpha,
                "scheduler_pending_async_api_calls",
                "Number of API calls currently pending in the async queue.",
                &["call_type"],
            )?,
            preemption_duration: metrics::histogram_vec(
                registry,
                Alpha,
                "scheduler_preemption_goroutines_duration_seconds",
                "Duration in seconds for running goroutines for the preemption.",
                &["result"],
                &exponential_buckets(0.01, 2.0, 20),
            )?,
            preemptions_executed: metrics::counter_vec(
                registry,
                Alpha,
                "scheduler_preemption_goroutines_execution_total",
                "Number of preemption goroutines executed.",
                &["result"],
            )?,
        })
    }

    /// A call of a kind begins.
    pub(crate) fn calling(&self, kind: &'static str) -> Call<'_> {
        self.calls_pending.with_label_values(&[kind]).inc();
        Call { metrics: self, kind, began: Instant::now(), result: result_of(false) }
    }

    /// The victims of a preemption were asked to go.
    pub(crate) fn evicted(&self, fine: bool, took: Duration) {
        self.preemptions_executed.with_label_values(&[result_of(fine)]).inc();
        self.preemption_duration.with_label_values(&[result_of(fine)]).observe(took.as_secs_f64());
    }

    /// A change was taken over.
    pub(crate) fn handled(&self, event: &str, took: Duration) {
        self.handling.with_label_values(&[event]).observe(took.as_secs_f64());
    }

    /// An attempt ended.
    pub(crate) fn attempted(&self, profile: &str, how: Attempt, took: Duration) {
        let labels = [how.label(), profile];
        self.attempts.with_label_values(&labels).inc();
        self.attempt_duration.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// The algorithm, without binding, took so long.
    pub(crate) fn computed(&self, took: Duration) {
        self.algorithm.observe(took.as_secs_f64());
    }

    /// The plugins of an extension point ran.
    pub(crate) fn ran(&self, point: Point, status: Status, profile: &str, took: Duration) {
        let labels = [point.label(), status.label(), profile];
        self.extension_point.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// A plugin ran at an extension point.
    pub(crate) fn plugin_ran(&self, plugin: PluginId, point: Point, status: Status, took: Duration) {
        let labels = [plugin.name(), point.label(), status.label()];
        self.plugin.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// A plugin looked at a Pod or at nodes.
    pub(crate) fn evaluated(&self, plugin: PluginId, point: Point, profile: &str, times: u32) {
        let labels = [plugin.name(), point.label(), profile];
        self.evaluations.with_label_values(&labels).inc_by(u64::from(times));
    }

    /// A plugin said whether an event may help a Pod.
    pub(crate) fn hinted(&self, plugin: PluginId, event: &str, helps: bool, took: Duration) {
        let hint = if helps { "Queue" } else { "QueueSkip" };
        self.hints.with_label_values(&[plugin.name(), event, hint]).observe(took.as_secs_f64());
    }

    /// Pods that were taken from the queue and are not decided.
    pub(crate) fn set_in_flight(&self, pods: usize) {
        self.in_flight.with_label_values(&["PodPopped"]).set(whole(pods));
    }

    /// A Pod is bound, after so many attempts and so much time.
    pub(crate) fn bound(&self, attempts: u32, waited: Duration) {
        self.attempts_of_pod.observe(f64::from(attempts));
        let label = if attempts >= MANY_ATTEMPTS { format!("{MANY_ATTEMPTS}+") } else { attempts.to_string() };
        self.sli.with_label_values(&[&label]).observe(waited.as_secs_f64());
    }

    /// A Pod came to a queue.
    pub(crate) fn came(&self, queue: &str, event: &str) {
        self.incoming.with_label_values(&[queue, event]).inc();
    }

    /// A preemption with so many victims.
    pub(crate) fn preempted(&self, victims: usize) {
        self.victims.observe(f64::from(u32::try_from(victims).unwrap_or(u32::MAX)));
    }

    /// A preemption was looked for.
    pub(crate) fn preemption_tried(&self) {
        self.preemptions.inc();
    }

    /// Work of a kind began (1) or ended (-1).
    pub(crate) fn running(&self, operation: &str, change: i64) {
        self.goroutines.with_label_values(&[operation]).add(change);
    }

    pub(crate) fn set_pending(&self, queue: &str, pods: usize) {
        self.pending.with_label_values(&[queue]).set(whole(pods));
    }

    pub(crate) fn set_cache(&self, kind: &str, size: usize) {
        self.cache.with_label_values(&[kind]).set(whole(size));
    }

    /// Replaces all counts of unschedulable Pods.
    pub(crate) fn set_unschedulable<'a>(&self, counts: impl Iterator<Item = (&'a str, &'a str, usize)>) {
        self.unschedulable.reset();
        for (plugin, profile, pods) in counts {
            self.unschedulable.with_label_values(&[plugin, profile]).set(whole(pods));
        }
    }
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
