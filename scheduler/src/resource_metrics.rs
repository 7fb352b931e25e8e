//! `/metrics/resources`: what each Pod asks for and may use, for capacity planning. Only a leader has something to say.

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use controller::Informer;

use crate::objects::{PodView, Requests, SharedPod};

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ResourceMetrics(Arc<OnceLock<Informer<SharedPod>>>);

impl ResourceMetrics {
    /// Tells of these Pods from now on.
    pub(crate) fn follow(&self, pods: &Informer<SharedPod>) {
        self.0.get_or_init(|| pods.clone());
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().route("/metrics/resources", get(answer)).with_state(self.clone())
    }
}

async fn answer(State(metrics): State<ResourceMetrics>) -> Response {
    let pods: Vec<Arc<PodView>> = match metrics.0.get() {
        None => Vec::new(),
        Some(informer) => informer.list().iter().map(|p| Arc::clone(&p.view.0)).filter(|p| !p.finished).collect(),
    };
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, written(&pods)).into_response()
}

fn written(pods: &[Arc<PodView>]) -> String {
    let mut text = String::new();
    let of_requests = |p: &PodView| p.template.requests.clone();
    let of_limits = |p: &PodView| p.template.limits.clone();
    family(&mut text, "kube_pod_resource_limit", "limit", pods, of_limits);
    family(&mut text, "kube_pod_resource_request", "requested", pods, of_requests);
    text
}

fn family(text: &mut String, name: &str, what: &str, pods: &[Arc<PodView>], of: impl Fn(&PodView) -> Requests) {
    let mut lines = String::new();
    for pod in pods {
        let amounts = of(pod);
        let fixed = [
            ("cpu", "cores", amounts.cpu),
            ("memory", "bytes", amounts.memory),
            ("ephemeral-storage", "bytes", amounts.ephemeral),
        ];
        let scalars = amounts.scalars.iter().map(|(name, amount)| {
            let unit = if name.starts_with("hugepages-") { "bytes" } else { "integer" };
            (&**name, unit, *amount)
        });
        for (resource, unit, amount) in fixed.into_iter().chain(scalars).filter(|(_, _, amount)| *amount > 0) {
            let amount = if resource == "cpu" { thousandths(amount) } else { amount.to_string() };
            // Writing to a string does not fail.
            let _infallible = writeln!(
                lines,
                "{name}{{namespace={:?},node={:?},pod={:?},priority=\"{}\",resource={resource:?},scheduler={:?},unit={unit:?}}} {amount}",
                pod.namespace(),
                pod.node_name,
                pod.name,
                pod.priority(),
                pod.template.scheduler_name,
            )
            .is_ok();
        }
    }
    if !lines.is_empty() {
        text.push_str(&format!(
            "# HELP {name} [STABLE] Resources {what} for workloads on the cluster, broken down by pod. This shows the \
             resource usage the scheduler and kubelet expect per pod for resources along with the unit for the \
             resource if any.\n# TYPE {name} gauge\n{lines}"
        ));
    }
}

/// Thousandths as a decimal fraction without trailing zeros.
fn thousandths(milli: i64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::pod_view;

    #[test]
    fn amounts_have_units() {
        assert_eq!(written(&[]), "");
        let pod = pod_view("p", |p| p.requests("1500m", "1Gi").spec("nodeName", "n".into()).priority(3));
        let text = written(&[pod]);
        let labels = r#"namespace="default",node="n",pod="p",priority="3""#;
        let cpu = format!(
            r#"kube_pod_resource_request{{{labels},resource="cpu",scheduler="default-scheduler",unit="cores"}} 1.5"#
        );
        assert!(text.contains(&cpu), "{text}");
        assert!(text.contains(r#"resource="memory",scheduler="default-scheduler",unit="bytes"} 1073741824"#), "{text}");
        assert!(!text.contains("kube_pod_resource_limit"), "{text}");
    }
}
