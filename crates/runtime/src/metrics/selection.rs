//! Which metrics are shown, and which values of their labels: `--disabled-metrics`, `--allow-metric-labels` and the
//! manifest of the same meaning.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

/// What a label says whose value is not allowed.
const UNEXPECTED: &str = "unexpected";

static SELECTION: OnceLock<Selection> = OnceLock::new();

/// Allowed values of one label of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Name of the metric.
    pub metric: String,
    /// Name of the label.
    pub label: String,
    /// The values.
    pub values: BTreeSet<String>,
}

impl Allowed {
    /// Reads `metric,label` and `value,value`.
    pub fn parse(key: &str, values: &str) -> Result<Self, String> {
        let wrong = || {
            "--allow-metric-labels must have a list of kv pair with format `metricName,labelName=labelValue, \
             labelValue,...`"
                .to_owned()
        };
        let (metric, label) = key.trim().split_once(',').ok_or_else(wrong)?;
        let plain = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || more.contains(c))
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || more.contains(c))
        };
        if !plain(metric, ":") || !plain(label, "") {
            return Err(wrong());
        }
        let values = values.trim().trim_matches('\'').split(',').map(|value| value.trim().to_owned()).collect();
        Ok(Self { metric: metric.to_owned(), label: label.to_owned(), values })
    }
}

/// One use of `--allow-metric-labels`: `metric,label='v1,v2'`, or several such pairs, each in double quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedLabels(pub Vec<Allowed>);

impl std::str::FromStr for AllowedLabels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = match text.matches('=').count() {
            1 => vec![text.trim_matches('"').to_owned()],
            _ => crate::flags::comma_separated(text)?,
        };
        let one = |pair: &String| {
            let (key, values) = pair.split_once('=').ok_or("malformed pair, expect string=string")?;
            Allowed::parse(key, values)
        };
        pairs.iter().map(one).collect::<Result<_, _>>().map(Self)
    }
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    disabled: BTreeSet<String>,
    allowed: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Selection {
    /// All but `disabled`, with labels as `allowed` says.
    pub fn new(disabled: &[String], allowed: Vec<Allowed>) -> Self {
        let mut by_metric: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for Allowed { metric, label, values } in allowed {
            by_metric.entry(metric).or_default().insert(label, values);
        }
        Self { disabled: disabled.iter().cloned().collect(), allowed: by_metric }
    }

    /// Makes this the selection of the process; the first one stays.
    pub fn install(self) {
        let disabled = u64::try_from(self.disabled.len()).unwrap_or(u64::MAX);
        match SELECTION.set(self) {
            Ok(()) => super::DISABLED.inc_by(disabled),
            Err(_) => tracing::debug!("which metrics are shown was decided before"),
        }
    }

    /// The selection of the process, if there is one.
    pub(super) fn installed() -> Option<&'static Self> {
        SELECTION.get()
    }

    /// What of the metrics is shown.
    pub(super) fn apply(&self, families: Vec<MetricFamily>) -> Vec<MetricFamily> {
        let shown = families.into_iter().filter(|family| !self.disabled.contains(family.name()));
        shown
            .map(|family| match self.allowed.get(family.name()) {
                None => family,
                Some(allowed) => bounded(family, allowed),
            })
            .collect()
    }
}

/// The family with unexpected values of labels replaced; series that are the same then are added up.
fn bounded(mut family: MetricFamily, allowed: &BTreeMap<String, BTreeSet<String>>) -> MetricFamily {
    let kind = family.get_field_type();
    let mut series: Vec<(Vec<(String, String)>, Metric)> = Vec::new();
    for mut metric in family.take_metric() {
        for pair in metric.mut_label() {
            if allowed.get(pair.name()).is_some_and(|values| !values.contains(pair.value())) {
                pair.set_value(UNEXPECTED.to_owned());
            }
        }
        let labels: Vec<_> = metric.get_label().iter().map(|l| (l.name().to_owned(), l.value().to_owned())).collect();
        match series.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, sum)) => add(kind, sum, &metric),
            None => series.push((labels, metric)),
        }
    }
    family.set_metric(series.into_iter().map(|(_, metric)| metric).collect());
    family
}

fn add(kind: MetricType, sum: &mut Metric, more: &Metric) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.get_gauge().get_value() + more.get_gauge().get_value());
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => {
            let (a, b) = (sum.get_histogram(), more.get_histogram());
            let mut histogram = Histogram::default();
            histogram.set_sample_count(a.get_sample_count() + b.get_sample_count());
            histogram.set_sample_sum(a.get_sample_sum() + b.get_sample_sum());
            let buckets = a.get_bucket().iter().zip(b.get_bucket()).map(|(a, b)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(a.upper_bound());
                bucket.set_cumulative_count(a.cumulative_count() + b.cumulative_count());
                bucket
            });
            histogram.set_bucket(buckets.collect());
            sum.set_histogram(histogram);
        }
        // Nothing here has them.
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn pairs_are_read_as_operators_write_them() {
        for (text, expected) in [
            ("m,l=a,b", Ok(vec![("m", "l", "a b")])),
            ("m,l='a,b'", Ok(vec![("m", "l", "a b")])),
            (r#""m,l=a","n,k=b,c""#, Ok(vec![("m", "l", "a"), ("n", "k", "b c")])),
            ("m=a", Err("metricName,labelName")),
            ("m,l-x=a", Err("metricName,labelName")),
            ("m,l", Err("malformed pair")),
        ] {
            let read = text.parse::<AllowedLabels>();
            match expected {
                Err(why) => assert!(read.as_ref().is_err_and(|error| error.contains(why)), "{text}: {read:?}"),
                Ok(expected) => {
                    let allowed = |(m, l, v): &(&str, &str, &str)| Allowed {
                        metric: (*m).to_owned(),
                        label: (*l).to_owned(),
                        values: v.split(' ').map(str::to_owned).collect(),
                    };
                    assert_eq!(read, Ok(AllowedLabels(expected.iter().map(allowed).collect())), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_allowed_is_added_up() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("asked", "h"), &["who", "what"]).expect("a counter");
        let seconds = HistogramVec::new(HistogramOpts::new("took", "h").buckets(vec![1.0]), &["who"]).expect("one");
        let hidden = prometheus::IntCounter::new("hidden", "h").expect("a counter");
        registry.register(Box::new(counter.clone())).expect("registered");
        registry.register(Box::new(seconds.clone())).expect("registered");
        registry.register(Box::new(hidden)).expect("registered");
        for (who, what) in [("a", "x"), ("b", "x"), ("c", "x"), ("c", "y")] {
            counter.with_label_values(&[who, what]).inc();
            seconds.with_label_values(&[who]).observe(0.5);
        }
        let allowed = |metric: &str| Allowed::parse(&format!("{metric},who"), "a").expect("a pair");
        let selection = Selection::new(&["hidden".to_owned()], vec![allowed("asked"), allowed("took")]);
        let families = selection.apply(registry.gather());
        let text = prometheus::TextEncoder::new().encode_to_string(&families).expect("text");
        for line in [
            "asked{what=\"x\",who=\"a\"} 1",
            "asked{what=\"x\",who=\"unexpected\"} 2",
            "asked{what=\"y\",who=\"unexpected\"} 1",
            "took_bucket{who=\"unexpected\",le=\"1\"} 3",
            "took_count{who=\"unexpected\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!text.contains("hidden") && !text.contains("\"c\""), "{text}");
    }
}
