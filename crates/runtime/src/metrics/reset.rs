//! `DELETE /metrics`: what has been counted so far is counted no more.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::proto::{Bucket, Counter, Histogram, Metric, MetricFamily, MetricType};

/// Labels of a series.
type Labels = Vec<(String, String)>;

/// What there was when the metrics were reset. Only series with labels are: those without stay. A gauge is gone until it
/// says something else; who knows no promise for a metric (Go's own) keeps it.
#[derive(Clone, Default)]
pub(super) struct Baseline(Arc<Mutex<HashMap<String, HashMap<Labels, Metric>>>>);

impl Baseline {
    /// Counts from here on.
    pub(super) fn set(&self, families: Vec<MetricFamily>) {
        let counted = families.into_iter().filter(is_reset).map(|mut family| {
            let series = family.take_metric().into_iter().filter(|m| !m.get_label().is_empty());
            (family.name().to_owned(), series.map(|metric| (labels(&metric), metric)).collect())
        });
        *self.0.lock() = counted.collect();
    }

    /// What has been counted since.
    pub(super) fn since(&self, mut families: Vec<MetricFamily>) -> Vec<MetricFamily> {
        let mut baseline = self.0.lock();
        if baseline.is_empty() {
            return families;
        }
        for family in &mut families {
            let Some(before) = baseline.get_mut(family.name()) else { continue };
            let kind = family.get_field_type();
            let series = family.take_metric().into_iter().filter_map(|metric| {
                let labels = labels(&metric);
                let known = before.get(&labels);
                if kind == MetricType::GAUGE {
                    let is_same = known.is_some_and(|known| known.get_gauge() == metric.get_gauge());
                    if !is_same {
                        before.remove(&labels);
                    }
                    return (!is_same).then_some(metric);
                }
                match known {
                    None => Some(metric),
                    Some(known) => less(kind, metric, known),
                }
            });
            family.set_metric(series.collect());
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

fn is_reset(family: &MetricFamily) -> bool {
    match family.get_field_type() {
        MetricType::COUNTER | MetricType::HISTOGRAM => true,
        MetricType::GAUGE => family.help().starts_with('['),
        MetricType::SUMMARY | MetricType::UNTYPED => false,
    }
}

fn labels(metric: &Metric) -> Labels {
    metric.get_label().iter().map(|l| (l.name().to_owned(), l.value().to_owned())).collect()
}

/// The series without what it had before; nothing if that is all.
fn less(kind: MetricType, mut metric: Metric, before: &Metric) -> Option<Metric> {
    if kind == MetricType::COUNTER {
        let value = metric.get_counter().get_value() - before.get_counter().get_value();
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        return (value > 0.0).then_some(metric);
    }
    let (now, old) = (metric.get_histogram(), before.get_histogram());
    let count = now.get_sample_count().saturating_sub(old.get_sample_count());
    let mut histogram = Histogram::default();
    histogram.set_sample_count(count);
    histogram.set_sample_sum(now.get_sample_sum() - old.get_sample_sum());
    let buckets = now.get_bucket().iter().zip(old.get_bucket()).map(|(now, old)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(now.upper_bound());
        bucket.set_cumulative_count(now.cumulative_count().saturating_sub(old.cumulative_count()));
        bucket
    });
    histogram.set_bucket(buckets.collect());
    metric.set_histogram(histogram);
    (count > 0).then_some(metric)
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

    use super::*;

    #[test]
    fn counting_begins_anew() {
        let registry = Registry::new();
        let plain = IntCounter::new("plain", "h").unwrap();
        let asked = IntCounterVec::new(Opts::new("asked", "h"), &["who"]).unwrap();
        let took = HistogramVec::new(HistogramOpts::new("took", "h").buckets(vec![1.0]), &["who"]).unwrap();
        registry.register(Box::new(plain.clone())).unwrap();
        registry.register(Box::new(asked.clone())).unwrap();
        registry.register(Box::new(took.clone())).unwrap();
        let count = |who: &str| {
            plain.inc();
            asked.with_label_values(&[who]).inc();
            took.with_label_values(&[who]).observe(0.5);
        };
        count("a");
        let baseline = Baseline::default();
        baseline.set(registry.gather());
        let text = || {
            let families = baseline.since(registry.gather());
            prometheus::TextEncoder::new().encode_to_string(&families).unwrap()
        };
        assert!(text().contains("plain 1\n") && !text().contains("asked") && !text().contains("took"), "{}", text());
        count("a");
        count("a");
        count("b");
        for line in ["plain 4", "asked{who=\"a\"} 2", "asked{who=\"b\"} 1", "took_bucket{who=\"a\",le=\"1\"} 2"] {
            assert!(text().lines().any(|l| l == line), "{line} in {}", text());
        }
    }
    #[test]
    fn gauges_are_gone_until_they_change() {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["queue"]).unwrap();
            registry.register(Box::new(gauge.clone())).unwrap();
            gauge.with_label_values(&["a"]).set(3);
            gauge
        };
        let (pending, _foreign) = (gauge("pending", "[STABLE] h"), gauge("go_info", "h"));
        let baseline = Baseline::default();
        baseline.set(registry.gather());
        let told = |name: &str| {
            let families = baseline.since(registry.gather());
            let family = families.into_iter().find(|f| f.name() == name);
            family.and_then(|f| f.get_metric().first().map(|m| m.get_gauge().get_value()))
        };
        assert_eq!((told("pending"), told("go_info")), (None, Some(3.0)));
        for value in [4, 3] {
            pending.with_label_values(&["a"]).set(value);
            assert_eq!(told("pending"), Some(f64::from(i32::try_from(value).unwrap())));
        }
    }
}
