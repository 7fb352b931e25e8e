//! Keeps the FlowSchemas and PriorityLevelConfigurations that every cluster has, and condition `Dangling`.

use std::{sync::Arc, time::Duration};

use generic::{
    flowcontrol::{Dangling, FlowControl},
    resource::{Resource, Stored, decode_cached},
    verbs::context::Moment,
};
use machinery::{ApiResult, meta};
use rules::bootstrap::flow::{AUTOUPDATE, mandatory, suggested};
use serde_json::{Value, json};
use storage::cache::Freshness;
use tokio_util::sync::CancellationToken;

use crate::{StartError, bootstrap::ensure, resources::Resources};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// How often the objects are looked after if nothing changes.
const ROUND: Duration = Duration::from_secs(60);
/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The stored objects.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) schemas: Arc<Resource>,
    pub(crate) levels: Arc<Resource>,
}

impl Keeper {
    pub(crate) fn new(resources: &Resources) -> Result<Self, StartError> {
        Ok(Self {
            schemas: resources.get(GROUP, "flowschemas")?,
            levels: resources.get(GROUP, "prioritylevelconfigurations")?,
        })
    }

    /// Makes what is missing, and makes right what the server keeps.
    pub(crate) async fn bootstrap(&self) -> ApiResult<()> {
        let (mandatory, suggested) = (mandatory(), suggested());
        for object in &mandatory {
            self.keep(object, true).await?;
        }
        for object in &suggested {
            self.keep(object, false).await?;
        }
        let known = |object: &Value| {
            let same = |other: &&Value| other["kind"] == object["kind"] && meta::name(other) == meta::name(object);
            mandatory.iter().chain(&suggested).any(|other| same(&other))
        };
        for resource in [&self.schemas, &self.levels] {
            for stored in all(resource).await? {
                if !known(&stored.object) && autoupdate(&stored.object) == Some(true) {
                    // Another server may have been faster.
                    let _removed = resource.remove("", meta::name(&stored.object), stored.revision).await?.is_ok();
                }
            }
        }
        Ok(())
    }

    async fn keep(&self, wanted: &Value, is_mandatory: bool) -> ApiResult<()> {
        let resource = if wanted["kind"] == "FlowSchema" { &self.schemas } else { &self.levels };
        let name = meta::name(wanted);
        let present = match resource.starting_point("", name).await? {
            Some(stored) => Some(stored),
            None => ensure(resource, wanted.clone()).await?,
        };
        resource.amend(present, |stored| updated(stored, wanted, is_mandatory, resource)).await
    }

    /// Writes condition `Dangling` where it is not right.
    async fn conditions(&self) -> ApiResult<()> {
        let schemas: Vec<Value> = all(&self.schemas).await?.into_iter().map(|stored| stored.object).collect();
        let levels = all(&self.levels).await?;
        let names: Vec<String> = levels.iter().map(|stored| meta::name(&stored.object).to_owned()).collect();
        for condition in FlowControl::dangling(&schemas, &names) {
            let present = self.schemas.starting_point("", &condition.schema).await?;
            self.schemas.amend(present, |stored| Some(with_condition(stored, &condition))).await?;
        }
        Ok(())
    }

    /// Looks after the objects until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let changes = |resource: &Arc<Resource>| {
            generic::projection::Projection::<serde::de::IgnoredAny>::follow(resource, &stop).changes()
        };
        let (mut schemas, mut levels) = (changes(&self.schemas), changes(&self.levels));
        loop {
            let round = async {
                self.bootstrap().await?;
                self.conditions().await
            };
            let pause = match round.await {
                Ok(()) => ROUND,
                Err(error) => {
                    tracing::warn!(%error, "flow control objects are not up to date");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = schemas.changed() => {}
                Ok(()) = levels.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

async fn all(resource: &Resource) -> ApiResult<Vec<Stored>> {
    let prefix = resource.key_prefix("")?;
    let snapshot = resource.cache().list(&prefix, Freshness::Any).await.map_err(|e| resource.store_error(e))?;
    snapshot.range(None).map(|(_, cached)| decode_cached(cached)).collect()
}

fn autoupdate(object: &Value) -> Option<bool> {
    meta::text_map(object, "annotations").find(|(key, _)| *key == AUTOUPDATE).and_then(|(_, value)| value.parse().ok())
}

/// The object as the server wants it; `None` if it is so.
fn updated(stored: &Value, wanted: &Value, is_mandatory: bool, resource: &Resource) -> Option<Value> {
    // Objects without the annotation are the server's as long as nobody has changed them.
    let generation = stored.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
    let kept = is_mandatory || autoupdate(stored).unwrap_or(generation == 1);
    let mut new = stored.clone();
    let metadata = meta::metadata_mut(&mut new);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    annotations[AUTOUPDATE] = json!(kept.to_string());
    if kept {
        let mut wanted = wanted.clone();
        resource.strategy.defaults(&mut wanted);
        let mut spec = wanted["spec"].clone();
        if let (Some(_), Some(own)) = (spec.get("exempt"), stored.pointer("/spec/exempt")) {
            spec["exempt"] = own.clone();
        }
        if new.get("spec") != Some(&spec) {
            meta::metadata_mut(&mut new).insert("generation".into(), json!(generation + 1));
            new["spec"] = spec;
        }
    }
    (new != *stored).then_some(new)
}

fn with_condition(stored: &Value, condition: &Dangling) -> Value {
    let mut new = stored.clone();
    let list = stored.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_own = |condition: &Value| condition["type"] == "Dangling";
    let same_status = list
        .iter()
        .find(|c| is_own(c))
        .filter(|c| c["status"] == condition.status)
        .map(|c| c["lastTransitionTime"].clone());
    let mut list: Vec<Value> = list.into_iter().filter(|c| !is_own(c)).collect();
    list.push(json!({
        "type": "Dangling", "status": condition.status, "reason": condition.reason, "message": condition.message,
        "lastTransitionTime": same_status.filter(Value::is_string).unwrap_or_else(|| json!(Moment::now().text)),
    }));
    new["status"] = json!({"conditions": list});
    new
}
