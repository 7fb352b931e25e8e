//! Metrics, with the names that dashboards of CoreDNS know.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};
use runtime::metrics::{Stability, counter, counter_vec, exponential_buckets, gauge_vec, histogram_vec};

use crate::wire::Transport;

/// All metrics.
pub(crate) struct DnsMetrics {
    server: String,
    requests: IntCounterVec,
    responses: IntCounterVec,
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    cache_hits: IntCounterVec,
    cache_misses: IntCounterVec,
    cache_entries: IntGaugeVec,
    upstream: HistogramVec,
    pub(crate) rejects: IntCounter,
    pub(crate) reload_failed: IntCounter,
}

/// A code as dashboards expect it.
pub(crate) fn rcode(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        other => u16::from(other).to_string(),
    }
}

/// Types that are counted by name; a client could make up any number of others.
fn kind_label(kind: RecordType) -> String {
    match kind {
        RecordType::A
        | RecordType::AAAA
        | RecordType::ANY
        | RecordType::CNAME
        | RecordType::DNSKEY
        | RecordType::DS
        | RecordType::HTTPS
        | RecordType::MX
        | RecordType::NS
        | RecordType::PTR
        | RecordType::SOA
        | RecordType::SRV
        | RecordType::SVCB
        | RecordType::TXT => kind.to_string(),
        _ => "other".into(),
    }
}

fn seconds() -> Vec<f64> {
    exponential_buckets(0.00025, 2.0, 16)
}

const SIZES: &[f64] =
    &[0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16000.0, 32000.0, 48000.0, 64000.0];

impl DnsMetrics {
    /// Registers them. `port` names the server.
    pub(crate) fn new(registry: &Registry, port: u16) -> Result<Self, prometheus::Error> {
        let level = Stability::Alpha;
        let counters = |name, help, labels: &[&str]| counter_vec(registry, level, name, help, labels);
        let histograms =
            |name, help, labels: &[&str], buckets: &[f64]| histogram_vec(registry, level, name, help, labels, buckets);
        let sized = ["server", "zone", "view", "proto"];
        Ok(Self {
            server: format!("dns://:{port}"),
            requests: counters(
                "coredns_dns_requests_total",
                "Counter of DNS requests made per zone, protocol and family.",
                &["server", "zone", "view", "proto", "family", "type"],
            )?,
            responses: counters(
                "coredns_dns_responses_total",
                "Counter of response status codes.",
                &["server", "zone", "view", "rcode", "plugin"],
            )?,
            duration: histograms(
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                &["server", "zone", "view"],
                &seconds(),
            )?,
            request_size: histograms(
                "coredns_dns_request_size_bytes",
                "Size of the request in bytes per zone and protocol.",
                &sized,
                SIZES,
            )?,
            response_size: histograms(
                "coredns_dns_response_size_bytes",
                "Size of the returned response in bytes.",
                &sized,
                SIZES,
            )?,
            cache_hits: counters(
                "coredns_cache_hits_total",
                "The count of cache hits.",
                &["server", "type", "zones", "view"],
            )?,
            cache_misses: counters(
                "coredns_cache_misses_total",
                "The count of cache misses.",
                &["server", "zones", "view"],
            )?,
            cache_entries: gauge_vec(
                registry,
                level,
                "coredns_cache_entries",
                "The number of elements in the cache.",
                &["server", "type", "zones", "view"],
            )?,
            upstream: histograms(
                "coredns_proxy_request_duration_seconds",
                "Histogram of the time each request took.",
                &["proxy_name", "to", "rcode"],
                &seconds(),
            )?,
            rejects: counter(
                registry,
                level,
                "coredns_forward_max_concurrent_rejects_total",
                "Counter of the number of queries rejected because the concurrent queries were at maximum.",
            )?,
            reload_failed: counter(
                registry,
                level,
                "coredns_reload_failed_total",
                "Counter of the number of failed reload attempts.",
            )?,
        })
    }

    /// Counts a question.
    pub(crate) fn request(&self, zone: &str, from: IpAddr, transport: Transport, kind: RecordType, size: usize) {
        let family = if from.to_canonical().is_ipv4() { "1" } else { "2" };
        let kind = kind_label(kind);
        self.requests.with_label_values(&[&self.server, zone, "", transport.name(), family, &kind]).inc();
        #[expect(clippy::cast_precision_loss, reason = "messages have at most 65535 bytes")]
        self.request_size.with_label_values(&[&self.server, zone, "", transport.name()]).observe(size as f64);
    }

    /// Counts an answer.
    pub(crate) fn response(
        &self,
        zone: &str,
        transport: Transport,
        code: ResponseCode,
        plugin: &str,
        size: usize,
        took: Duration,
    ) {
        self.responses.with_label_values(&[&self.server, zone, "", &rcode(code), plugin]).inc();
        self.duration.with_label_values(&[&self.server, zone, ""]).observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "messages have at most 65535 bytes")]
        self.response_size.with_label_values(&[&self.server, zone, "", transport.name()]).observe(size as f64);
    }

    /// Counts a look into the cache.
    pub(crate) fn cached(&self, zone: &str, hit: Option<bool>, entries: usize) {
        match hit {
            Some(positive) => {
                let sort = if positive { "success" } else { "denial" };
                self.cache_hits.with_label_values(&[&self.server, sort, zone, ""]).inc();
            }
            None => self.cache_misses.with_label_values(&[&self.server, zone, ""]).inc(),
        }
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        self.cache_entries.with_label_values(&[self.server.as_str(), "success", zone, ""]).set(entries);
    }

    /// Notes how long an upstream took.
    pub(crate) fn observe_upstream(&self, to: SocketAddr, code: &str, took: Duration) {
        self.upstream.with_label_values(&["forward", &to.to_string(), code]).observe(took.as_secs_f64());
    }
}
