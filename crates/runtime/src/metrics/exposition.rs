//! The forms in which metrics are written: Prometheus' text, OpenMetrics' text, and delimited protobuf messages.

use http::{HeaderMap, header};
use prometheus::{
    TextEncoder,
    proto::{LabelPair, Metric, MetricFamily, MetricType},
};
use prost::Message;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    OpenMetrics,
    Protobuf,
}

/// One element of an `Accept` header.
struct Wish {
    kind: String,
    parameters: Vec<(String, String)>,
    weight: f32,
}

impl Wish {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_lowercase();
        let pair = |part: &str| {
            let (key, value) = part.split_once('=')?;
            Some((key.trim().to_lowercase(), value.trim().trim_matches('"').to_owned()))
        };
        let mut parameters: Vec<_> = parts.filter_map(pair).collect();
        let at = parameters.iter().position(|(key, _)| key == "q");
        let weight = at.map(|at| parameters.remove(at).1).and_then(|q| q.parse().ok()).unwrap_or(1.0);
        Self { kind, parameters, weight }
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }

    fn form(&self) -> Option<Form> {
        match (self.kind.as_str(), self.parameter("version")) {
            ("text/plain", "" | "0.0.4") => Some(Form::Text),
            ("application/openmetrics-text", "" | "0.0.1" | "1.0.0") => Some(Form::OpenMetrics),
            ("application/vnd.google.protobuf", _)
                if self.parameter("proto") == "io.prometheus.client.MetricFamily"
                    && self.parameter("encoding") == "delimited" =>
            {
                Some(Form::Protobuf)
            }
            _ => None,
        }
    }
}

impl Form {
    /// The form that a client likes best.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut wishes: Vec<Wish> = accepts.flat_map(|value| value.split(',')).map(Wish::parse).collect();
        wishes.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        wishes.iter().find_map(Wish::form).unwrap_or(Self::Text)
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    pub(super) fn encode(self, families: &[MetricFamily]) -> Vec<u8> {
        match self {
            Self::Text => text(families).into_bytes(),
            Self::OpenMetrics => open_metrics(families).into_bytes(),
            Self::Protobuf => families.iter().flat_map(|f| message(f).encode_length_delimited_to_vec()).collect(),
        }
    }
}

/// Prometheus' text.
pub(super) fn text(families: &[MetricFamily]) -> String {
    let text = TextEncoder::new().encode_to_string(families).unwrap_or_else(|error| {
        tracing::error!(%error, "metrics cannot be written");
        String::new()
    });
    // The encoder writes infinity as Rust does; labels cannot end a line.
    if text.contains("inf\n") { text.replace(" inf\n", " +Inf\n").replace(" -inf\n", " -Inf\n") } else { text }
}

fn open_metrics(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        let kind = family.get_field_type();
        // Counters are called by what is before "_total"; others that count are of no type that has a name.
        let (name, label) = match (kind, family.name().strip_suffix("_total")) {
            (MetricType::COUNTER, Some(short)) => (short, "counter"),
            (MetricType::COUNTER, None) | (MetricType::UNTYPED, _) => (family.name(), "unknown"),
            (MetricType::GAUGE, _) => (family.name(), "gauge"),
            (MetricType::HISTOGRAM, _) => (family.name(), "histogram"),
            (MetricType::SUMMARY, _) => (family.name(), "summary"),
        };
        out.push_str(&format!("# HELP {name} {}\n# TYPE {name} {label}\n", escaped(family.help())));
        for metric in family.get_metric() {
            samples(&mut out, family.name(), kind, metric);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn samples(out: &mut String, name: &str, kind: MetricType, metric: &Metric) {
    let labels = metric.get_label();
    match kind {
        MetricType::COUNTER => sample(out, name, labels, None, number(metric.get_counter().get_value())),
        MetricType::GAUGE => sample(out, name, labels, None, number(metric.get_gauge().get_value())),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let bucket = format!("{name}_bucket");
            let bounds = histogram.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count()));
            for (bound, count) in bounds.filter(|(bound, _)| bound.is_finite()) {
                sample(out, &bucket, labels, Some(&number(bound)), count.to_string());
            }
            sample(out, &bucket, labels, Some("+Inf"), histogram.get_sample_count().to_string());
            sample(out, &format!("{name}_sum"), labels, None, number(histogram.get_sample_sum()));
            sample(out, &format!("{name}_count"), labels, None, histogram.get_sample_count().to_string());
        }
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            sample(out, &format!("{name}_sum"), labels, None, number(summary.sample_sum()));
            sample(out, &format!("{name}_count"), labels, None, summary.sample_count().to_string());
        }
        // Nothing here has them.
        MetricType::UNTYPED => {}
    }
}

fn sample(out: &mut String, name: &str, labels: &[LabelPair], bound: Option<&str>, value: String) {
    let mut pairs: Vec<String> = labels.iter().map(|l| format!("{}=\"{}\"", l.name(), escaped(l.value()))).collect();
    pairs.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    out.push_str(name);
    if !pairs.is_empty() {
        out.push_str(&format!("{{{}}}", pairs.join(",")));
    }
    out.push_str(&format!(" {value}\n"));
}

/// A number that cannot be taken for a whole one.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        value => {
            let text = value.to_string();
            if text.contains(['.', 'e', 'N']) { text } else { format!("{text}.0") }
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// `io.prometheus.client.MetricFamily`, as far as it is used here.
#[derive(Clone, PartialEq, Message)]
struct FamilyMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metrics: Vec<MetricMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMessage {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelMessage>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<ValueMessage>,
    #[prost(message, optional, tag = "3")]
    counter: Option<ValueMessage>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueMessage {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramMessage {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<BucketMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketMessage {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    bound: Option<f64>,
}

fn message(family: &MetricFamily) -> FamilyMessage {
    let kind = family.get_field_type();
    let number = match kind {
        MetricType::COUNTER => 0,
        MetricType::GAUGE => 1,
        MetricType::SUMMARY => 2,
        MetricType::UNTYPED => 3,
        MetricType::HISTOGRAM => 4,
    };
    let metric = |metric: &Metric| {
        let label = |l: &LabelPair| LabelMessage { name: l.name().to_owned(), value: l.value().to_owned() };
        let value = |value: f64| Some(ValueMessage { value: Some(value) });
        let mut message =
            MetricMessage { labels: metric.get_label().iter().map(label).collect(), ..MetricMessage::default() };
        match kind {
            MetricType::COUNTER => message.counter = value(metric.get_counter().get_value()),
            MetricType::GAUGE => message.gauge = value(metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => message.histogram = Some(histogram(metric.get_histogram())),
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
        message
    };
    FamilyMessage {
        name: family.name().to_owned(),
        help: family.help().to_owned(),
        kind: Some(number),
        metrics: family.get_metric().iter().map(metric).collect(),
    }
}

fn histogram(histogram: &prometheus::proto::Histogram) -> HistogramMessage {
    let bucket = |b: &prometheus::proto::Bucket| BucketMessage {
        count: Some(b.cumulative_count()),
        bound: Some(b.upper_bound()),
    };
    HistogramMessage {
        count: Some(histogram.get_sample_count()),
        sum: Some(histogram.get_sample_sum()),
        buckets: histogram.get_bucket().iter().map(bucket).collect(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

    use super::*;

    #[test]
    fn clients_get_the_form_they_like_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                      q=0.6,text/plain;q=0.5";
        for (accept, form) in [
            ("", Form::Text),
            ("*/*", Form::Text),
            (prometheus, Form::OpenMetrics),
            (native, Form::Protobuf),
            ("text/plain;version=0.0.4", Form::Text),
            ("application/openmetrics-text;version=9", Form::Text),
            ("application/vnd.google.protobuf", Form::Text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(accept));
            assert_eq!(Form::wanted(&headers), form, "{accept}");
        }
    }

    fn families() -> Vec<MetricFamily> {
        let registry = Registry::new();
        let counter = IntCounter::new("asked_total", "Says \"how\" often").expect("a counter");
        let odd = IntCounter::new("odd", "h").expect("a counter");
        let gauge = IntGauge::new("level", "h").expect("a gauge");
        let took = Histogram::with_opts(HistogramOpts::new("took", "h").buckets(vec![0.5, 1.0])).expect("a histogram");
        for metric in [&counter as &dyn prometheus::core::Collector, &odd, &gauge, &took] {
            assert!(!metric.desc().is_empty());
        }
        counter.inc_by(3);
        took.observe(0.75);
        registry.register(Box::new(counter)).expect("registered");
        registry.register(Box::new(odd)).expect("registered");
        registry.register(Box::new(gauge)).expect("registered");
        registry.register(Box::new(took)).expect("registered");
        registry.gather()
    }

    #[test]
    fn open_metrics_are_written_by_the_book() {
        let expected = "# HELP asked Says \\\"how\\\" often\n# TYPE asked counter\nasked_total 3.0\n\
                        # HELP level h\n# TYPE level gauge\nlevel 0.0\n\
                        # HELP odd h\n# TYPE odd unknown\nodd 0.0\n\
                        # HELP took h\n# TYPE took histogram\ntook_bucket{le=\"0.5\"} 0\ntook_bucket{le=\"1.0\"} 1\n\
                        took_bucket{le=\"+Inf\"} 1\ntook_sum 0.75\ntook_count 1\n# EOF\n";
        assert_eq!(open_metrics(&families()), expected);
    }

    #[test]
    fn infinity_is_written_as_readers_know_it() {
        let registry = prometheus::Registry::new();
        for (name, value) in [("a", f64::INFINITY), ("b", f64::NEG_INFINITY)] {
            let gauge = prometheus::Gauge::new(name, "ends in inf").unwrap();
            gauge.set(value);
            registry.register(Box::new(gauge)).unwrap();
        }
        let text = text(&registry.gather());
        assert!(text.contains("\na +Inf\n") && text.contains("\nb -Inf\n"), "{text}");
    }

    #[test]
    fn messages_are_delimited() {
        let bytes = Form::Protobuf.encode(&families());
        let mut rest = bytes.as_slice();
        let mut names = Vec::new();
        while !rest.is_empty() {
            names.push(FamilyMessage::decode_length_delimited(&mut rest).expect("a message").name);
        }
        assert_eq!(names, ["asked_total", "level", "odd", "took"]);
    }
}
