//! One metric of an autoscaler: fetched, and turned into a proposal or a reason why there is none.

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricSpec, MetricStatus,
        MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
        ResourceMetricStatus,
    },
    apimachinery::pkg::{api::resource::Quantity as Text, apis::meta::v1 as meta},
};
use machinery::{
    quantity::{Format, Quantity},
    selector::LabelSelector,
};

use super::{
    calculator::{Calculated, CalculationError, Scene},
    metrics::{MetricsApi, MetricsError},
};
use crate::children::selector_of;

/// What a metric asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// What the reason of an event calls the metric.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric asks for nothing.
#[derive(Debug)]
pub(super) struct Failure {
    /// Of the event and the condition.
    pub(super) reason: &'static str,
    /// What went wrong.
    pub(super) cause: String,
    /// The same as one line of a report over all metrics.
    pub(super) summary: String,
}

/// Where metrics come from, and for which Pods.
pub(super) struct Target<'a> {
    pub(super) api: &'a MetricsApi,
    pub(super) namespace: &'a str,
    pub(super) selector: &'a LabelSelector,
    pub(super) scene: Scene<'a>,
    /// Replicas the target has.
    pub(super) existing: i32,
}

/// What went wrong below a metric.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("unable to get metrics for resource {0}: {1}")]
    Resource(String, MetricsError),
    #[error("unable to get metric {0}: {1}")]
    Pods(String, MetricsError),
    #[error("unable to get metric {metric}: {source} on {kind} {namespace}/{name}")]
    Object { metric: String, source: Box<MetricsError>, kind: String, namespace: String, name: String },
    #[error("unable to get external metric {namespace}/{metric}/{selector}: {source}")]
    External { namespace: String, metric: String, selector: String, source: Box<MetricsError> },
    #[error(transparent)]
    Calculation(#[from] CalculationError),
    #[error("unable to calculate ready pods: {0}")]
    Ready(CalculationError),
    #[error("{0}")]
    Text(String),
}

/// Which kind of resource metric it is.
struct ResourceKind<'a> {
    resource: &'a str,
    container: Option<&'a str>,
    target: &'a MetricTarget,
}

impl Target<'_> {
    /// Evaluates one metric.
    pub(super) async fn evaluate(&self, spec: &MetricSpec) -> Result<Proposal, Failure> {
        match (spec.type_.as_str(), &spec.object, &spec.pods, &spec.resource, &spec.container_resource, &spec.external)
        {
            ("Object", Some(source), ..) => {
                let fail = |cause| failure("FailedGetObjectMetric", cause, "failed to get object metric value");
                self.object(source).await.map_err(fail)
            }
            ("Pods", _, Some(source), ..) => {
                let fail = |cause| failure("FailedGetPodsMetric", cause, "failed to get pods metric value");
                self.pods(source).await.map_err(fail)
            }
            ("Resource", _, _, Some(source), ..) => {
                let text = format!("failed to get {} resource metric value", source.name);
                let kind = ResourceKind { resource: &source.name, container: None, target: &source.target };
                let (calculated, name) =
                    self.resource(kind).await.map_err(|cause| failure("FailedGetResourceMetric", cause, &text))?;
                let resource = ResourceMetricStatus { name: source.name.clone(), current: of_resource(calculated) };
                let status = MetricStatus { type_: spec.type_.clone(), resource: Some(resource), ..Default::default() };
                Ok(Proposal { replicas: calculated.replicas, name, status })
            }
            ("ContainerResource", _, _, _, Some(source), _) => {
                let text = format!("failed to get {} container metric value", source.name);
                let container = Some(source.container.as_str());
                let kind = ResourceKind { resource: &source.name, container, target: &source.target };
                let fail = |cause| failure("FailedGetContainerResourceMetric", cause, &text);
                let (calculated, name) = self.resource(kind).await.map_err(fail)?;
                let resource = ContainerResourceMetricStatus {
                    name: source.name.clone(),
                    container: source.container.clone(),
                    current: of_resource(calculated),
                };
                let container_resource = Some(resource);
                let status = MetricStatus { type_: spec.type_.clone(), container_resource, ..Default::default() };
                Ok(Proposal { replicas: calculated.replicas, name, status })
            }
            ("External", .., Some(source)) => {
                let text = format!("failed to get {} external metric value", source.metric.name);
                self.external(source).await.map_err(|cause| failure("FailedGetExternalMetric", cause, &text))
            }
            (other, ..) => {
                let cause = format!("unknown metric source type {other:?}");
                Err(Failure { reason: "InvalidMetricSourceType", summary: cause.clone(), cause })
            }
        }
    }

    async fn object(&self, source: &ObjectMetricSource) -> Result<Proposal, Cause> {
        let (object, metric) = (&source.described_object, &source.metric);
        let fetch = async || {
            let selector = metric_selector(metric.selector.as_ref())?;
            let fetched = self.api.of_object(self.namespace, object, &metric.name, &selector).await;
            fetched.map_err(|source| Cause::Object {
                metric: metric.name.clone(),
                source: source.into(),
                kind: object.kind.clone(),
                namespace: self.namespace.to_owned(),
                name: object.name.clone(),
            })
        };
        let (calculated, name, current) = match aim(&source.target) {
            Aim::Value(target) => {
                let calculated = self.scene.by_value(fetch().await?, target).map_err(Cause::Ready)?;
                (calculated, format!("{} metric {}", object.kind, metric.name), whole(calculated.usage))
            }
            Aim::Average(target) => {
                let calculated = self.scene.by_share(fetch().await?, target, self.existing);
                (calculated, external_name(&metric.name, metric.selector.as_ref()), averaged(calculated.usage))
            }
            Aim::Nothing => {
                let text = "invalid object metric source: neither a value target nor an average value target was set";
                return Err(Cause::Text(text.into()));
            }
        };
        let status = ObjectMetricStatus { current, described_object: object.clone(), metric: metric.clone() };
        let status = MetricStatus { type_: "Object".into(), object: Some(status), ..Default::default() };
        Ok(Proposal { replicas: calculated.replicas, name, status })
    }

    async fn pods(&self, source: &PodsMetricSource) -> Result<Proposal, Cause> {
        let metric = &source.metric;
        let selector = metric_selector(metric.selector.as_ref())?;
        let fetched = self.api.of_pods(self.namespace, self.selector, &metric.name, &selector).await;
        let samples = fetched.map_err(|error| Cause::Pods(metric.name.clone(), error))?;
        let target = milli(source.target.average_value.as_ref()).unwrap_or(0);
        let calculated = self.scene.by_average(samples, "", target)?;
        let status = PodsMetricStatus { current: averaged(calculated.usage), metric: metric.clone() };
        let status = MetricStatus { type_: "Pods".into(), pods: Some(status), ..Default::default() };
        Ok(Proposal { replicas: calculated.replicas, name: format!("pods metric {}", metric.name), status })
    }

    async fn resource(&self, kind: ResourceKind<'_>) -> Result<(Calculated, String), Cause> {
        let ResourceKind { resource, container, target } = kind;
        let fetch = async || {
            let fetched = self.api.resource(self.namespace, self.selector, resource, container).await;
            fetched.map_err(|error| Cause::Resource(resource.to_owned(), error))
        };
        if let Some(target) = milli(target.average_value.as_ref()) {
            let wrap = |error: Cause| Cause::Text(format!("failed to get {resource} usage: {error}"));
            let calculated = self.scene.by_average(fetch().await.map_err(wrap)?, resource, target);
            return Ok((calculated.map_err(|e| wrap(e.into()))?, format!("{resource} resource")));
        }
        let Some(percent) = target.average_utilization else {
            let text = "invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set";
            return Err(Cause::Text(text.into()));
        };
        let wrap = |error: Cause| Cause::Text(format!("failed to get {resource} utilization: {error}"));
        let samples = fetch().await.map_err(wrap)?;
        let calculated = self.scene.by_utilization(samples, resource, container, percent);
        let name = format!("{resource} resource utilization (percentage of request)");
        Ok((calculated.map_err(|e| wrap(e.into()))?, name))
    }

    async fn external(&self, source: &ExternalMetricSource) -> Result<Proposal, Cause> {
        let metric = &source.metric;
        let fetch = async || {
            let selector = metric_selector(metric.selector.as_ref())?;
            let fetched = self.api.external(self.namespace, &metric.name, &selector).await;
            let values = fetched.map_err(|source| Cause::External {
                namespace: self.namespace.to_owned(),
                metric: metric.name.clone(),
                selector: shown(metric.selector.as_ref()),
                source: source.into(),
            })?;
            Ok(values.into_iter().fold(0, i64::saturating_add))
        };
        let wrap = |error: Cause| Cause::Text(format!("failed to get {} external metric: {error}", metric.name));
        let (calculated, current) = match aim(&source.target) {
            Aim::Average(target) => {
                let calculated = self.scene.by_share(fetch().await.map_err(wrap)?, target, self.existing);
                (calculated, averaged(calculated.usage))
            }
            Aim::Value(target) => {
                let usage = fetch().await.map_err(wrap)?;
                let calculated = self.scene.by_value(usage, target).map_err(|error| wrap(Cause::Ready(error)))?;
                (calculated, whole(calculated.usage))
            }
            Aim::Nothing => {
                let text = "invalid external metric source: neither a value target nor an average value target was set";
                return Err(Cause::Text(text.into()));
            }
        };
        let name = external_name(&metric.name, metric.selector.as_ref());
        let status = ExternalMetricStatus { current, metric: metric.clone() };
        let status = MetricStatus { type_: "External".into(), external: Some(status), ..Default::default() };
        Ok(Proposal { replicas: calculated.replicas, name, status })
    }
}

/// What a target of an object or external metric says.
enum Aim {
    Value(i64),
    Average(i64),
    Nothing,
}

fn aim(target: &MetricTarget) -> Aim {
    match (milli(target.value.as_ref()), milli(target.average_value.as_ref())) {
        (_, Some(average)) if target.type_ == "AverageValue" => Aim::Average(average),
        (Some(value), _) => Aim::Value(value),
        (None, Some(average)) => Aim::Average(average),
        (None, None) => Aim::Nothing,
    }
}

fn failure(reason: &'static str, cause: Cause, summary: &str) -> Failure {
    let cause = cause.to_string();
    Failure { reason, summary: format!("{summary}: {cause}"), cause }
}

fn metric_selector(selector: Option<&meta::LabelSelector>) -> Result<LabelSelector, Cause> {
    match selector {
        None => Ok(LabelSelector::default()),
        Some(selector) => selector_of(selector).map_err(|error| Cause::Text(error.to_string())),
    }
}

fn external_name(metric: &str, selector: Option<&meta::LabelSelector>) -> String {
    format!("external metric {metric}({})", shown(selector))
}

/// A selector as messages have it.
fn shown(selector: Option<&meta::LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions = selector.match_expressions.iter().flatten();
    let expressions: String = expressions
        .map(|e| {
            let values = e.values.as_deref().unwrap_or_default().join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

fn milli(quantity: Option<&Text>) -> Option<i64> {
    Quantity::parse(&quantity?.0).ok().map(|quantity| quantity.milli_value())
}

fn text(milli: i64) -> Option<Text> {
    Some(Text(Quantity::from_milli(milli, Format::DecimalSi).to_string()))
}

fn whole(value: i64) -> MetricValueStatus {
    MetricValueStatus { value: text(value), ..Default::default() }
}

fn averaged(value: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: text(value), ..Default::default() }
}

fn of_resource(calculated: Calculated) -> MetricValueStatus {
    MetricValueStatus { average_utilization: calculated.utilization, ..averaged(calculated.usage) }
}
