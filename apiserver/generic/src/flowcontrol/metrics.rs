//! `apiserver_flowcontrol_*`.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use runtime::metrics::{Stability, counter_vec, gauge_vec, histogram_vec};

use super::{demand::Stats, queues::Refusal, shares::Bounds};

const WAITS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCHES: [f64; 5] = [0.0, 1.0, 10.0, 100.0, 1000.0];
const BOTH: [&str; 2] = ["priority_level", "flow_schema"];

/// The metrics of all levels and schemas.
pub(super) struct Metrics {
    rejected: IntCounterVec,
    dispatched: IntCounterVec,
    waiting: IntGaugeVec,
    waiting_seats: IntGaugeVec,
    running: IntGaugeVec,
    running_seats: IntGaugeVec,
    waits: HistogramVec,
    runs: HistogramVec,
    lengths: HistogramVec,
    work: HistogramVec,
    watches: HistogramVec,
    seats: Vec<IntGaugeVec>,
    demands: Vec<GaugeVec>,
    part: Gauge,
}

fn name(end: &str) -> String {
    format!("apiserver_flowcontrol_{end}")
}

fn float_gauges(registry: &Registry, end: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
    let metric = GaugeVec::new(Opts::new(name(end), format!("[ALPHA] {help}")), &["priority_level"])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        use Stability::{Alpha, Beta};
        let gauges =
            |level, end: &str, help: &str, labels: &[&str]| gauge_vec(registry, level, &name(end), help, labels);
        let histograms = |level, end: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            histogram_vec(registry, level, &name(end), help, labels, buckets)
        };
        let level = &["priority_level"];
        Ok(Self {
            rejected: counter_vec(
                registry,
                Beta,
                &name("rejected_requests_total"),
                "Number of requests rejected by API Priority and Fairness subsystem",
                &["priority_level", "flow_schema", "reason"],
            )?,
            dispatched: counter_vec(
                registry,
                Beta,
                &name("dispatched_requests_total"),
                "Number of requests executed by API Priority and Fairness subsystem",
                &BOTH,
            )?,
            waiting: gauges(Beta, "current_inqueue_requests", "Number of requests currently pending in queues", &BOTH)?,
            waiting_seats: gauges(
                Alpha,
                "current_inqueue_seats",
                "Number of seats currently pending in queues",
                &BOTH,
            )?,
            running: gauges(
                Beta,
                "current_executing_requests",
                "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage",
                &BOTH,
            )?,
            running_seats: gauges(
                Beta,
                "current_executing_seats",
                "Concurrency (number of seats) occupied by the currently executing requests",
                &BOTH,
            )?,
            waits: histograms(
                Beta,
                "request_wait_duration_seconds",
                "Length of time a request spent waiting in its queue",
                &["priority_level", "flow_schema", "execute"],
                &WAITS,
            )?,
            runs: histograms(
                Alpha,
                "request_execution_seconds",
                "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution",
                &["priority_level", "flow_schema", "type"],
                &WAITS,
            )?,
            lengths: histograms(
                Alpha,
                "request_queue_length_after_enqueue",
                "Length of queue as seen by each request after it is enqueued",
                &BOTH,
                &LENGTHS,
            )?,
            work: histograms(
                Alpha,
                "work_estimated_seats",
                "Number of estimated seats (maximum of initial and final seats) associated with requests",
                &BOTH,
                &SEATS,
            )?,
            watches: histograms(
                Alpha,
                "watch_count_samples",
                "count of watchers for mutating requests",
                &BOTH,
                &WATCHES,
            )?,
            seats: vec![
                gauges(Beta, "nominal_limit_seats", "Nominal number of execution seats of the level", level)?,
                gauges(Alpha, "lower_limit_seats", "Configured lower bound on number of execution seats", level)?,
                gauges(Alpha, "upper_limit_seats", "Configured upper bound on number of execution seats", level)?,
                gauges(Alpha, "current_limit_seats", "current derived number of execution seats of the level", level)?,
            ],
            demands: vec![
                float_gauges(registry, "demand_seats_high_watermark", "High watermark of demand in the last period")?,
                float_gauges(registry, "demand_seats_average", "Time-weighted average of demand in the last period")?,
                float_gauges(registry, "demand_seats_stdev", "Time-weighted standard deviation of demand")?,
                float_gauges(registry, "demand_seats_smoothed", "Smoothed demand of the level")?,
                float_gauges(registry, "target_seats", "Seat allocation targets")?,
            ],
            part: runtime::metrics::float_gauge(
                registry,
                Alpha,
                &name("seat_fair_frac"),
                "Fair fraction of server's concurrency to allocate to each priority level that can use it",
            )?,
        })
    }

    /// The seats of a level by its configuration, and those it has now.
    pub(super) fn set_seats(&self, level: &str, bounds: &Bounds, current: u32) {
        let values = [bounds.nominal, bounds.least, bounds.most, current];
        for (metric, value) in self.seats.iter().zip(values) {
            metric.with_label_values(&[level]).set(i64::from(value));
        }
    }

    /// What a level wanted in the last period, and what it is taken to want.
    pub(super) fn set_demand(&self, level: &str, stats: &Stats, smoothed: f64, target: f64) {
        let values = [stats.high, stats.average, stats.deviation, smoothed, target];
        for (metric, value) in self.demands.iter().zip(values) {
            metric.with_label_values(&[level]).set(value);
        }
    }

    /// The part of their targets that levels get.
    pub(super) fn set_part(&self, part: f64) {
        self.part.set(part);
    }

    /// The metrics of one schema and its level.
    pub(super) fn of(&self, level: &str, schema: &str) -> SchemaMetrics {
        let both = &[level, schema];
        SchemaMetrics {
            names: [level.to_owned(), schema.to_owned()],
            rejected: self.rejected.clone(),
            dispatched: self.dispatched.with_label_values(both),
            waiting: self.waiting.with_label_values(both),
            waiting_seats: self.waiting_seats.with_label_values(both),
            running: self.running.with_label_values(both),
            running_seats: self.running_seats.with_label_values(both),
            waited: self.waits.with_label_values(&[level, schema, "true"]),
            gave_up: self.waits.clone(),
            runs: self.runs.with_label_values(&[level, schema, "regular"]),
            watches_begin: self.runs.with_label_values(&[level, schema, "watch"]),
            lengths: self.lengths.with_label_values(both),
            work: self.work.with_label_values(both),
            watch_counts: self.watches.with_label_values(both),
        }
    }
}

/// The metrics of one schema, found without a look-up.
pub(super) struct SchemaMetrics {
    names: [String; 2],
    rejected: IntCounterVec,
    gave_up: HistogramVec,
    pub(super) dispatched: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) waiting_seats: IntGauge,
    pub(super) running: IntGauge,
    pub(super) running_seats: IntGauge,
    pub(super) waited: Histogram,
    pub(super) runs: Histogram,
    pub(super) watches_begin: Histogram,
    pub(super) lengths: Histogram,
    pub(super) work: Histogram,
    pub(super) watch_counts: Histogram,
}

impl SchemaMetrics {
    /// Counts a refused request.
    pub(super) fn refused(&self, why: Refusal, waited: f64) {
        let [level, schema] = &self.names;
        self.rejected.with_label_values(&[level.as_str(), schema, why.reason()]).inc();
        self.gave_up.with_label_values(&[level.as_str(), schema, "false"]).observe(waited);
    }
}
