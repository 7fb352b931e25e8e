//! One run of a probe: which prober, retries, events, metrics.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Kind, PodState, exec, grpc, http, tcp};
use crate::cri::Cri;
use crate::env::expand;
use crate::events::{EventType, Events};
use crate::metrics::METRICS;
use crate::pods;
use crate::workers::plan::role_of;

const ATTEMPTS: usize = 3;
/// Longest output kept of a probe.
pub(super) const MAX_OUTPUT: usize = 10 * 1024;

/// What a prober saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Good.
    Success,
    /// Good, with something to tell.
    Warning(String),
    /// Bad, with its output.
    Failure(String),
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    Discard,
}

/// Runs probes.
pub struct Runner {
    cri: Cri,
    events: Events,
}

impl Runner {
    /// Commands go through the runtime.
    pub fn new(cri: Cri, events: Events) -> Self {
        Self { cri, events }
    }

    pub(super) async fn run(
        &self,
        kind: Kind,
        state: &PodState,
        container: &Container,
        id: &str,
        probe: &Probe,
    ) -> Outcome {
        let start = Instant::now();
        let mut result = Err("probe was not run".to_owned());
        for _ in 0..ATTEMPTS {
            result = self.once(state, container, id, probe).await;
            if result.is_ok() {
                break;
            }
        }
        let outcome = self.tell(kind, &state.pod, container, &result);
        record(kind, &state.pod, container, &result, start.elapsed());
        outcome
    }

    fn tell(&self, kind: Kind, pod: &Pod, container: &Container, result: &Result<Report, String>) -> Outcome {
        let kind = kind.as_str();
        let about = (container.name.as_str(), role_of(pod, &container.name));
        let warn = |reason: &str, text: String| self.events.container(pod, about, EventType::Warning, reason, text);
        match result {
            Ok(Report::Success) => Outcome::Success,
            Ok(Report::Warning(text)) => {
                warn("ProbeWarning", format!("{kind} probe warning: {text}"));
                Outcome::Success
            }
            Ok(Report::Failure(text)) => {
                warn("Unhealthy", format!("{kind} probe failed: {text}"));
                Outcome::Failure
            }
            Err(text) => {
                warn("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {text}"));
                Outcome::Discard
            }
        }
    }

    async fn once(&self, state: &PodState, container: &Container, id: &str, probe: &Probe) -> Result<Report, String> {
        let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1);
        let timeout = Duration::from_secs(seconds);
        if let Some(action) = &probe.exec {
            let literal = literal_env(container);
            let command = action.command.iter().flatten();
            let command = command.map(|text| expand(text, |name| literal.get(name).cloned())).collect();
            return exec::probe(&self.cri, id, command, timeout).await;
        }
        let pod_ip = || state.ips.first().copied().ok_or_else(|| "the pod has no IP yet".to_owned());
        if let Some(action) = &probe.http_get {
            let fallback = pod_ip();
            let host = action.host.clone().filter(|host| !host.is_empty());
            let host = match host {
                Some(host) => host,
                None => fallback?.to_string(),
            };
            let port = resolve_port(&action.port, container)?;
            let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
            let target = http::Target {
                tls: scheme == "https",
                host,
                port,
                path: action.path.clone().unwrap_or_else(|| "/".to_owned()),
            };
            let headers = http::headers(action.http_headers.as_deref().unwrap_or_default(), "kube-probe/1.36");
            return http::probe(&target, &headers, timeout).await;
        }
        if let Some(action) = &probe.tcp_socket {
            let port = resolve_port(&action.port, container)?;
            let host = match action.host.clone().filter(|host| !host.is_empty()) {
                Some(host) => host,
                None => pod_ip()?.to_string(),
            };
            return Ok(tcp::probe(&host, port, timeout).await);
        }
        if let Some(action) = &probe.grpc {
            let ip: IpAddr = pod_ip()?;
            let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
            return Ok(grpc::probe((ip, port).into(), action.service.as_deref().unwrap_or_default(), timeout).await);
        }
        Err(format!("missing probe handler for {}:{}", pods::describe(&state.pod), container.name))
    }
}

fn record(kind: Kind, pod: &Pod, container: &Container, result: &Result<Report, String>, elapsed: Duration) {
    let label = match result {
        Ok(Report::Success | Report::Warning(_)) => "successful",
        Ok(Report::Failure(_)) => "failed",
        Err(_) => "unknown",
    };
    let (name, namespace, uid) = (pods::name(pod), pods::namespace(pod), pods::uid(pod));
    let labels = [kind.as_str(), label, container.name.as_str(), name, namespace, uid];
    METRICS.probes.with_label_values(&labels).inc();
    let labels = [kind.as_str(), container.name.as_str(), name, namespace];
    METRICS.probe_duration.with_label_values(&labels).observe(elapsed.as_secs_f64());
}

/// Exec probes expand references to literal values only.
fn literal_env(container: &Container) -> BTreeMap<String, String> {
    let literal = container.env.iter().flatten().filter(|env| env.value_from.is_none());
    literal.map(|env| (env.name.clone(), env.value.clone().unwrap_or_default())).collect()
}

/// A number, or the name of a port of the same container.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name.as_str()));
            match named.map(|port| port.container_port).or_else(|| name.parse().ok()) {
                Some(number) => number,
                None => return Err(format!("unable to find port {name:?} in container")),
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
