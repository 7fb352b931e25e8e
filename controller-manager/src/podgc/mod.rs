//! Removes Pods that nobody else will: surplus finished ones, those of nodes that are gone, terminating ones that no
//! kubelet ends.

mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{Cached, Informer};
use client::{ApiErrorExt, CallError, Scope};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use prometheus::IntCounterVec;
use runtime::clock::Clock;
use serde_json::json;

use crate::{
    StartError,
    context::{Context, now},
    table::Started,
    views::{NodeView, PodView},
};
use plan::{Doomed, Reason};

const CONTROLLER: &str = "pod-garbage-collector-controller";
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be missing.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let (pods, nodes) = (context.informers.get(), context.informers.get());
    let collector = Collector {
        client: context.client("pod-garbage-collector").await?,
        pods,
        nodes,
        clock: Arc::clone(&context.clock),
        threshold: usize::try_from(context.options.nodes.terminated_pod_gc_threshold).unwrap_or(0),
        missing: HashMap::new(),
        collected: context.metrics.collected_pods.clone(),
    };
    let (tasks, stop) = (context.tasks.clone(), context.tasks.token().clone());
    let (pods, nodes) = (collector.pods.clone(), collector.nodes.clone());
    context.after_sync(CONTROLLER, &[&pods, &nodes], move || {
        let mut collector = collector;
        tasks.spawn(CONTROLLER, async move {
            loop {
                collector.collect().await;
                if stop.run_until_cancelled(collector.clock.sleep(PERIOD)).await.is_none() {
                    return;
                }
            }
        });
    });
    Ok(Started::Running)
}

struct Collector {
    client: Client,
    pods: Informer<PodView>,
    nodes: Informer<NodeView>,
    clock: Arc<dyn Clock>,
    threshold: usize,
    /// Nodes that Pods name and that are not there, and since when.
    missing: HashMap<String, Duration>,
    collected: IntCounterVec,
}

impl Collector {
    async fn collect(&mut self) {
        let pods = self.pods.list();
        let nodes = self.nodes.list();
        let gone = self.gone_nodes(&pods, &nodes).await;
        for doomed in plan::doomed(&pods, &nodes, &gone, self.threshold) {
            if let Err(error) = self.remove(&doomed).await {
                tracing::warn!(%error, pod = %doomed.pod.key, "Failed to delete pod");
            }
        }
    }

    /// Nodes that have been missing for long enough and that the server does not have either.
    async fn gone_nodes(&mut self, pods: &[Arc<Cached<PodView>>], nodes: &[Arc<Cached<NodeView>>]) -> Vec<String> {
        let missing = plan::missing_nodes(pods, nodes);
        let elapsed = self.clock.elapsed();
        self.missing.retain(|name, _| missing.contains(name));
        let mut gone = Vec::new();
        for name in missing {
            let since = *self.missing.entry(name.clone()).or_insert(elapsed);
            if elapsed.saturating_sub(since) < QUARANTINE {
                continue;
            }
            let api: Api<Node> = Api::all(self.client.clone());
            match api.get_opt(&name).await {
                Ok(None) => gone.push(name),
                Ok(Some(_)) => drop(self.missing.remove(&name)),
                Err(error) => tracing::warn!(%error, node = name, "cannot look for a node"),
            }
        }
        gone
    }

    async fn remove(&self, doomed: &Doomed) -> Result<(), CallError> {
        let key = &doomed.pod.key;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let failed = self.mark_failed(&api, doomed).await;
        match failed {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        }
        tracing::info!(pod = %key, reason = ?doomed.reason, "PodGC is force deleting Pod");
        let preconditions = Preconditions { uid: Some(doomed.pod.uid.clone()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &params).await {
            Err(error) if !error.is_not_found() => Err(CallError::new(format!("delete {key}"), error)),
            _ => {
                let labels = [key.namespace.as_str(), doomed.reason.label()];
                self.collected.with_label_values(&labels).inc();
                Ok(())
            }
        }
    }

    /// A Pod that has not ended is told to have failed before it goes, so that nobody waits for it.
    async fn mark_failed(&self, api: &Api<Pod>, doomed: &Doomed) -> Result<(), CallError> {
        if doomed.pod.phase.is_terminal() {
            return Ok(());
        }
        let mut status = json!({"phase": "Failed"});
        if doomed.reason == Reason::NodeGone {
            status["conditions"] = json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": now(&*self.clock),
            }]);
        }
        let patch = json!({"metadata": {"uid": doomed.pod.uid}, "status": status});
        client::strategic_patch(api, &doomed.pod.key.name, Scope::Status, &patch).await.map(drop)
    }
}
