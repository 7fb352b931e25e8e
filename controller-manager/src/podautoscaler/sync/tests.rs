//! Whole looks against an API server that answers from a table.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use ::controller::events::EventLog;
use http::{Request, Response};
use kube::{Resource, client::Body};
use runtime::clock::FakeClock;
use serde_json::{Value, json};

use super::*;
use ::controller::Viewed;

/// Answers by path without query; what is written is kept.
#[derive(Default)]
struct Server {
    answers: BTreeMap<String, Value>,
    written: Vec<(String, Value)>,
}

type Shared = Arc<Mutex<Server>>;

fn client_of(server: &Shared) -> Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let (parts, body) = request.into_parts();
            let sent = body.collect_bytes().await?;
            let path = parts.uri.path().to_owned();
            let mut server = server.lock();
            let (code, value) = match parts.method.as_str() {
                "GET" => match server.answers.get(&path) {
                    Some(Value::Null) => (503, Value::Null),
                    Some(value) => (200, value.clone()),
                    None => (404, Value::Null),
                },
                _ => {
                    let value: Value = serde_json::from_slice(&sent)?;
                    server.written.push((path, value.clone()));
                    (200, value)
                }
            };
            let text = match code {
                404 => "404 page not found\n".to_owned(),
                503 => "service unavailable\n".to_owned(),
                _ => value.to_string(),
            };
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(Body::from(text.into_bytes()))?)
        }
    });
    Client::new(service, "default")
}

struct World {
    server: Shared,
    reconciler: Arc<Reconciler>,
    events: EventLog,
    key: ObjectKey,
}

const SCALE: &str = "/apis/apps/v1/namespaces/default/deployments/web/scale";
const STATUS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web/status";
const CPU: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

fn cached<V: Viewed>(value: Value) -> Cached<V> {
    let object: V::Object = serde_json::from_value(value).unwrap();
    let meta = object.meta().clone();
    Cached {
        key: ObjectKey::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
        uid: meta.uid.unwrap_or_default(),
        resource_version: "1".into(),
        view: V::project(object),
    }
}

fn autoscaler(name: &str, metrics: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
        },
    })
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"phase": "Running", "startTime": "2020-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]},
    })
}

fn usage(values: &[(&str, &str)]) -> Value {
    let items: Vec<Value> = values
        .iter()
        .map(|(name, cpu)| {
            json!({"metadata": {"name": name}, "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
                "containers": [{"name": "main", "usage": {"cpu": cpu, "memory": "1Mi"}}]})
        })
        .collect();
    json!({"items": items})
}

fn discovered(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    json!({"metadata": {"name": group}, "versions": [{"version": version, "freshness": "Current", "resources": [{
        "resource": plural, "scope": "Namespaced", "verbs": ["get"], "singularResource": "",
        "responseKind": {"group": group, "version": version, "kind": kind},
        "subresources": [{"subresource": "scale", "verbs": ["get", "update"]}],
    }]}]})
}

fn world(metrics: Value, replicas: i32) -> World {
    let server = Shared::default();
    {
        let mut server = server.lock();
        let list = |items: Vec<Value>| json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items});
        server.answers.insert("/api".into(), list(vec![discovered("", "v1", "Pod", "pods")]));
        let groups = vec![
            discovered("apps", "v1", "Deployment", "deployments"),
            discovered("networking.k8s.io", "v1", "Ingress", "ingresses"),
        ];
        server.answers.insert("/apis".into(), list(groups));
        server.answers.insert(
            SCALE.into(),
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": replicas},
                "status": {"replicas": replicas, "selector": "app=web"}}),
        );
    }
    let client = client_of(&server);
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_605));
    let (recorder, events) = EventRecorder::to_channel(clock.clone());
    let discovery = Arc::new(Discovery::new(client.clone()));
    let (autoscalers, pods) = (Informer::new(&[]), Informer::new(PodView::INDICES));
    autoscalers.apply(cached(autoscaler("web", metrics)));
    for name in ["a", "b"] {
        pods.apply(cached(pod(name)));
    }
    let reconciler = Arc::new(Reconciler {
        metrics: MetricsApi::new(client.clone(), Arc::clone(&discovery)),
        client,
        discovery,
        recorder,
        autoscalers,
        pods,
        clock,
        options: AutoscalerOptions {
            concurrent_horizontal_pod_autoscaler_syncs: 5,
            horizontal_pod_autoscaler_sync_period: Duration::from_secs(15),
            horizontal_pod_autoscaler_downscale_stabilization: Duration::from_secs(300),
            horizontal_pod_autoscaler_tolerance: 0.1,
            horizontal_pod_autoscaler_cpu_initialization_period: Duration::from_secs(300),
            horizontal_pod_autoscaler_initial_readiness_delay: Duration::from_secs(30),
        },
        memory: Mutex::default(),
        report: Report::new(&prometheus::Registry::new()).unwrap(),
    });
    World { server, reconciler, events, key: ObjectKey::new("default", "web") }
}

impl World {
    fn answer(&self, path: &str, value: Value) {
        self.server.lock().answers.insert(path.into(), value);
    }

    /// Looks once: events, the last write of the scale, the last status.
    async fn look(&mut self) -> (Vec<String>, Option<i64>, Value) {
        let shell = Shell(Arc::clone(&self.reconciler));
        assert_eq!(shell.reconcile(&self.key).await.unwrap(), Outcome::After(Duration::from_secs(15)));
        let written = std::mem::take(&mut self.server.lock().written);
        let last = |path: &str| written.iter().rev().find(|(p, _)| p == path).map(|(_, value)| value.clone());
        let scale = last(SCALE).and_then(|scale| scale["spec"]["replicas"].as_i64());
        (self.events.drain(), scale, last(STATUS).map_or(Value::Null, |value| value["status"].clone()))
    }
}

fn condition(status: &Value, kind: &str) -> String {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null);
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text("status"), text("reason"), text("message"))
}

fn cpu(percent: i32) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

#[tokio::test]
async fn scales_up_by_usage() {
    let mut world = world(cpu(50), 2);
    world.answer(CPU, usage(&[("a", "80m"), ("b", "120m")]));
    let (events, scale, status) = world.look().await;
    let reason = "cpu resource utilization (percentage of request)";
    assert_eq!(events, [format!("Normal SuccessfulRescale New size: 4; reason: {reason} above target")]);
    assert_eq!(scale, Some(4));
    assert_eq!((status["currentReplicas"].as_i64(), status["desiredReplicas"].as_i64()), (Some(2), Some(4)));
    assert_eq!(
        status["currentMetrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 100, "averageValue": "100m"}}}])
    );
    assert_eq!(status["lastScaleTime"], "2026-01-01T00:00:05Z");
    assert_eq!(
        condition(&status, ABLE),
        "True SucceededRescale the HPA controller was able to update the target scale to 4"
    );
    assert_eq!(
        condition(&status, ACTIVE),
        format!("True ValidMetricFound the HPA was able to successfully calculate a replica count from {reason}")
    );
    assert_eq!(
        condition(&status, LIMITED),
        "False DesiredWithinRange the desired count is within the acceptable range"
    );
}

#[tokio::test]
async fn holds_for_a_while_before_scaling_down() {
    let mut world = world(cpu(50), 2);
    world.answer(CPU, usage(&[("a", "1m"), ("b", "1m")]));
    let (events, scale, status) = world.look().await;
    assert_eq!((events.len(), scale), (0, None));
    assert!(condition(&status, ABLE).starts_with("True ScaleDownStabilized"));
}

#[tokio::test]
async fn missing_metrics_are_told() {
    let mut world = world(cpu(50), 2);
    let (events, scale, status) = world.look().await;
    let cause = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from \
                 resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    let expected = [
        format!("Warning FailedGetResourceMetric {cause}"),
        format!(
            "Warning FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get \
             cpu resource metric value: {cause}"
        ),
    ];
    assert_eq!((events.as_slice(), scale), (expected.as_slice(), None));
    assert_eq!(
        condition(&status, ACTIVE),
        format!("False FailedGetResourceMetric the HPA was unable to compute the replica count: {cause}")
    );
    assert_eq!(
        condition(&status, ABLE),
        "True SucceededGetScale the HPA controller was able to get the target's current scale"
    );
    assert_eq!(status["currentReplicas"], 2);
}

#[tokio::test]
async fn an_unavailable_server_is_told() {
    let mut world = world(cpu(50), 2);
    world.answer(CPU, Value::Null);
    let (events, scale, _) = world.look().await;
    let text = "the server is currently unable to handle the request (get pods.metrics.k8s.io)";
    assert!(events[0].ends_with(text), "{events:?}");
    assert_eq!(scale, None);
}

#[tokio::test]
async fn every_kind_of_metric() {
    let item = |name: &str, value: &str| json!({"describedObject": {"name": name}, "metric": {"name": "m"}, "timestamp": "2026-01-01T00:00:00Z", "value": value});
    let custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "front"});
    let cases = [
        (
            json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "10"}}}),
            format!("{custom}/pods/%2A/m"),
            json!({"items": [item("a", "20"), item("b", "20")]}),
            "pods metric m",
        ),
        (
            json!({"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": ingress, "target": {"type": "Value", "value": "10"}}}),
            format!("{custom}/ingresses.networking.k8s.io/front/m"),
            json!({"items": [item("front", "20")]}),
            "Ingress metric m",
        ),
        (
            json!({"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": ingress, "target": {"type": "AverageValue", "averageValue": "10"}}}),
            format!("{custom}/ingresses.networking.k8s.io/front/m"),
            json!({"items": [item("front", "40")]}),
            "external metric m(nil)",
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}}),
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/q".to_owned(),
            json!({"items": [{"metricName": "q", "value": "15"}, {"metricName": "q", "value": "25"}]}),
            "external metric q(&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{},})",
        ),
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "main", "target": {"type": "AverageValue", "averageValue": "50m"}}}),
            CPU.to_owned(),
            usage(&[("a", "100m"), ("b", "100m")]),
            "cpu resource",
        ),
    ];
    for (metric, path, answer, name) in cases {
        let mut world = world(json!([metric]), 2);
        world.answer(&path, answer);
        let (events, scale, status) = world.look().await;
        assert_eq!(events, [format!("Normal SuccessfulRescale New size: 4; reason: {name} above target")]);
        assert_eq!(scale, Some(4), "{metric}");
        assert_eq!(status["currentMetrics"][0]["type"], metric["type"]);
    }
}

#[tokio::test]
async fn one_failing_metric_does_not_take_replicas_away() {
    let both = json!([cpu(50)[0], {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}}]);
    let mut world = world(both.clone(), 2);
    world.answer(CPU, usage(&[("a", "10m"), ("b", "10m")]));
    let (events, scale, status) = world.look().await;
    assert_eq!(scale, None);
    assert!(events[1].starts_with("Warning FailedComputeMetricsReplicas invalid metrics (1 invalid out of 2)"));
    assert!(condition(&status, ACTIVE).starts_with("False FailedGetExternalMetric"));
    world.answer(CPU, usage(&[("a", "100m"), ("b", "100m")]));
    assert_eq!(world.look().await.1, Some(4));
}

#[tokio::test]
async fn bounds_and_zero_need_no_metrics() {
    let (_, scale, status) = world(cpu(50), 12).look().await;
    assert_eq!((scale, status["desiredReplicas"].as_i64()), (Some(10), Some(10)));
    let (events, scale, status) = world(cpu(50), 0).look().await;
    assert_eq!((events.len(), scale), (0, None));
    assert_eq!(
        condition(&status, ACTIVE),
        "False ScalingDisabled scaling is disabled since the replica count of the target is zero"
    );
}

#[tokio::test]
async fn targets_that_are_not_there() {
    let mut world = world(cpu(50), 2);
    world.server.lock().answers.remove(SCALE);
    let (events, _, status) = world.look().await;
    assert!(events[0].starts_with("Warning FailedGetScale "), "{events:?}");
    let text = "False FailedGetScale the HPA controller was unable to get the target's current scale: ";
    assert!(condition(&status, ABLE).starts_with(text));
}

#[tokio::test]
async fn pods_of_two_autoscalers() {
    let mut world = world(cpu(50), 2);
    world.answer(CPU, usage(&[("a", "100m"), ("b", "100m")]));
    world.reconciler.autoscalers.apply(cached(autoscaler("web2", cpu(50))));
    world.look().await;
    world.key = ObjectKey::new("default", "web2");
    let (events, scale, _) = world.look().await;
    let text = "pods by selector app=web are controlled by multiple HPAs: [default/web default/web2]";
    assert_eq!(events[0], format!("Warning AmbiguousSelector {text}"));
    assert_eq!(scale, None);
}
