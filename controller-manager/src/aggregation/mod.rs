//! ClusterRoles with an aggregation rule get the rules of all ClusterRoles it selects.

mod plan;

use std::collections::BTreeMap;

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole};
use client::ApiErrorExt;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, Client};
use serde_json::json;

use crate::{StartError, context::Context, table::Started};
use plan::Source;

const CONTROLLER: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 5;

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let roles: Informer<Whole<ClusterRole>> = context.informers.get();
    let queue = context.queue("ClusterRoleAggregator");
    let (keys, all) = (queue.clone(), roles.clone());
    roles.on_change(move |change| {
        // What a role is made of is known from the selectors only, and the old labels count too.
        if let Change::Added { new, initial: true } = change {
            if new.aggregation_rule.is_some() {
                keys.add(new.key.clone());
            }
            return;
        }
        all.list().iter().filter(|r| r.aggregation_rule.is_some()).for_each(|r| keys.add(r.key.clone()));
    });
    let aggregator = Aggregator { client, roles: roles.clone() };
    context.drive(CONTROLLER, queue, WORKERS, aggregator, &[&roles]);
    Ok(Started::Running)
}

struct Aggregator {
    client: Client,
    roles: Informer<Whole<ClusterRole>>,
}

impl Reconcile for Aggregator {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(role) = self.roles.get(key) else { return Ok(Outcome::Done) };
        let Some(aggregation) = &role.aggregation_rule else { return Ok(Outcome::Done) };
        let all = self.roles.list();
        let unlabelled = BTreeMap::new();
        let mut sources: Vec<Source<'_>> = all
            .iter()
            .map(|source| Source {
                name: &source.key.name,
                labels: source.metadata.labels.as_ref().unwrap_or(&unlabelled),
                rules: source.rules.as_deref().unwrap_or_default(),
            })
            .collect();
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        let rules = plan::rules(&key.name, selectors, &mut sources)?;
        if rules == role.rules.as_deref().unwrap_or_default() {
            return Ok(Outcome::Done);
        }
        let wanted = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": key.name, "uid": role.uid},
            "rules": rules,
        });
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        match client::apply(&api, &key.name, CONTROLLER, &wanted).await {
            // Deleted, and perhaps made again, meanwhile: its own event brings it back.
            Err(error) if error.is_conflict() => Ok(Outcome::Backoff),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Outcome::Done),
        }
    }
}
