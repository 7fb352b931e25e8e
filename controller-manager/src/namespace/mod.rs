//! Deletion of namespaces: empties them, tells what is left, then lets them go.

mod plan;

use std::{sync::Arc, time::Duration};

use ::controller::{Change, Informer, ObjectKey, Outcome, RateLimiting, Reconcile, ReconcileError, Whole};
use client::{ApiErrorExt, DiscoveredResource, Discovery, Snapshot};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use machinery::GroupVersionResource;
use runtime::clock::Clock;

use self::plan::Report;
use crate::{StartError, context, context::Context, table::Started};

const CONTROLLER: &str = "namespace-controller";
/// Finalizer of namespaces that is taken away here.
const FINALIZER: &str = "kubernetes";
/// Time in which other API servers learn that the namespace takes nothing new.
const GRACE: Duration = Duration::from_secs(5);
const LIMITING: RateLimiting = RateLimiting::per_key(Duration::from_millis(5), Duration::from_secs(60));
/// Objects in a page of a list.
const PAGE: u32 = 500;

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let namespaces: Informer<Whole<Namespace>> = context.informers.get();
    let queue = context.queue_with("namespace", LIMITING);
    let of_namespaces = queue.clone();
    namespaces.on_change(move |change| {
        let object = change.object();
        if object.metadata.deletion_timestamp.is_some() && !matches!(change, Change::Deleted { .. }) {
            of_namespaces.add_after(object.key.clone(), GRACE);
        }
    });
    let workers = &context.options.workers;
    let reconciler = Reconciler {
        discovery: Discovery::new(client.clone()),
        client,
        namespaces: namespaces.clone(),
        clock: Arc::clone(&context.clock),
        period: workers.namespace_sync_period,
    };
    context.drive(CONTROLLER, queue, workers.concurrent_namespace_syncs, reconciler, &[&namespaces]);
    Ok(Started::Running)
}

struct Reconciler {
    client: Client,
    discovery: Discovery,
    namespaces: Informer<Whole<Namespace>>,
    clock: Arc<dyn Clock>,
    /// Time after which a namespace is looked at again in any case.
    period: Duration,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        if self.namespaces.get(key).is_none_or(|n| n.metadata.deletion_timestamp.is_none()) {
            return Ok(Outcome::Done);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut namespace = match api.get(&key.name).await {
            Err(error) if error.is_not_found() => return Ok(Outcome::Done),
            namespace => namespace?,
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Outcome::Done);
        }
        if namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".into());
            namespace = api.replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        if finalizers(&namespace).is_empty() {
            return Ok(Outcome::Done);
        }
        let report = self.empty(&key.name).await?;
        self.tell(&api, &key.name, &report).await?;
        if report.estimate > 0 {
            let wait = u64::try_from(report.estimate / 2 + 1).unwrap_or(1);
            return Ok(Outcome::After(Duration::from_secs(wait).min(self.period)));
        }
        if !report.is_empty() {
            return Err(format!("namespace {} is not empty: {}", key.name, report.errors.join(", ")).into());
        }
        self.finalize(&api, &key.name).await?;
        Ok(Outcome::Done)
    }
}

fn finalizers(namespace: &Namespace) -> Vec<String> {
    namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default()
}

impl Reconciler {
    /// Deletes everything that can be deleted now.
    async fn empty(&self, namespace: &str) -> Result<Report, ReconcileError> {
        let mut report = Report::default();
        // What is not known of cannot be deleted: an old answer will not do.
        let snapshot: Arc<Snapshot> = match self.discovery.refresh().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                report.undiscovered.push(error.text());
                return Ok(report);
            }
        };
        report.undiscovered.clone_from(&snapshot.failed);
        let deletable: Vec<&DiscoveredResource> =
            snapshot.preferred().into_iter().filter(|r| r.namespaced && r.has_verb("delete")).collect();
        let (pods, others): (Vec<_>, Vec<_>) =
            deletable.into_iter().partition(|r| r.gvr.group.is_empty() && r.gvr.resource == "pods");
        // Pods go first: what they use stays as long as they run.
        for resource in &pods {
            self.empty_of(namespace, resource, &mut report).await;
        }
        if !report.remaining.is_empty() || !report.errors.is_empty() {
            return Ok(report);
        }
        for resource in &others {
            self.empty_of(namespace, resource, &mut report).await;
        }
        Ok(report)
    }

    async fn empty_of(&self, namespace: &str, resource: &DiscoveredResource, report: &mut Report) {
        let gvr = &resource.gvr;
        if let Err(error) = self.try_empty(namespace, resource, report).await
            && !(error.is_not_found() || error.has_reason("MethodNotAllowed"))
        {
            report.errors.push(format!("{}: {}", describe(gvr), error.text()));
        }
    }

    async fn try_empty(
        &self,
        namespace: &str,
        resource: &DiscoveredResource,
        report: &mut Report,
    ) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource.api_resource());
        let is_pods = resource.gvr.group.is_empty() && resource.gvr.resource == "pods";
        let grace = if is_pods { self.longest_grace(namespace).await? } else { 0 };
        let params = DeleteParams::background();
        let mut at_once = resource.has_verb("deletecollection");
        if at_once && let Err(error) = api.delete_collection(&params, &ListParams::default()).await {
            if !(error.is_not_found() || error.has_reason("MethodNotAllowed")) {
                return Err(error);
            }
            at_once = false;
        }
        if !resource.has_verb("list") {
            return Ok(());
        }
        if !at_once {
            for (name, _) in self.list(&api).await? {
                match api.delete(&name, &params).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        let left: Vec<Vec<String>> = self.list(&api).await?.into_iter().map(|(_, finalizers)| finalizers).collect();
        report.left(&resource.gvr, &left, grace, namespace);
        Ok(())
    }

    /// Names and finalizers of all objects.
    async fn list(&self, api: &Api<DynamicObject>) -> Result<Vec<(String, Vec<String>)>, kube::Error> {
        let mut found = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await?;
            found.extend(page.items.iter().map(|o| (o.name_any(), o.finalizers().to_vec())));
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    /// The longest time that a Pod has to end.
    async fn longest_grace(&self, namespace: &str) -> Result<i64, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default()).await?;
        let running = pods.items.iter().filter(|p| {
            let phase = p.status.as_ref().and_then(|s| s.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        });
        let grace = running.filter_map(|p| p.spec.as_ref().and_then(|s| s.termination_grace_period_seconds));
        Ok(grace.max().unwrap_or(0))
    }

    async fn tell(&self, api: &Api<Namespace>, name: &str, report: &Report) -> Result<(), client::CallError> {
        let now = context::now(self.clock.as_ref());
        let written = client::modify_status(api, name, |namespace| {
            let present = namespace.status.clone().unwrap_or_default();
            let next = report.status(&present, &now);
            let differs = next != present;
            namespace.status = Some(next);
            differs
        });
        match written.await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes our finalizer away.
    async fn finalize(&self, api: &Api<Namespace>, name: &str) -> Result<(), ReconcileError> {
        let attempt = || async {
            let mut namespace = api.get(name).await?;
            if let Some(list) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
                list.retain(|f| f != FINALIZER);
            }
            api.replace_subresource("finalize", name, &PostParams::default(), &namespace).await.map(drop)
        };
        match client::retry_on_conflict(attempt).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn describe(gvr: &GroupVersionResource) -> String {
    format!("{}/{}, Resource={}", gvr.group, gvr.version, gvr.resource)
}
