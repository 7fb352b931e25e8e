//! The end of a definition: its objects go first.

use std::{sync::Arc, time::Duration};

use generic::{
    resource::{Resource, decode_cached},
    verbs::delete::delete_stored,
};
use machinery::{ApiResult, meta};
use serde_json::json;
use storage::cache::Freshness;

use crate::{
    definition::{CLEANUP_FINALIZER, Condition},
    status,
};

/// Between two looks at objects whose finalizers hold them.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

fn terminating(status: &str, reason: &str, message: &str) -> Condition {
    Condition { kind: "Terminating".into(), status: status.into(), reason: reason.into(), message: message.into() }
}

/// Deletes all objects of a definition that is being deleted, waits until they are gone, and lets it go. `resource` is
/// absent if nothing was ever served.
pub(crate) async fn clean(
    definitions: &Resource,
    name: &str,
    uid: &str,
    resource: Option<Arc<Resource>>,
) -> ApiResult<()> {
    if let Some(resource) = resource {
        let begun = terminating("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
        status::modify(definitions, name, uid, |object, now| status::set_condition(object, &begun, now)).await?;
        delete_all(&resource).await?;
    }
    let done = terminating("False", "InstanceDeletionCompleted", "removed all instances");
    status::modify(definitions, name, uid, |object, now| {
        status::set_condition(object, &done, now);
        let left: Vec<String> =
            meta::finalizers(object).iter().filter(|f| **f != CLEANUP_FINALIZER).map(|f| (*f).to_owned()).collect();
        let metadata = meta::metadata_mut(object);
        match left.is_empty() {
            true => metadata.remove("finalizers"),
            false => metadata.insert("finalizers".into(), json!(left)),
        };
        true
    })
    .await
}

async fn delete_all(resource: &Resource) -> ApiResult<()> {
    let prefix = resource.key_prefix("")?;
    let mut pause = FIRST_PAUSE;
    loop {
        let listed = resource.cache().list(&prefix, Freshness::Latest).await.map_err(|e| resource.store_error(e))?;
        let mut left = 0_usize;
        for (_, object) in listed.range(None) {
            left += 1;
            // Whoever was first: the next look tells.
            let _is_first = delete_stored(resource, &decode_cached(object)?).await?;
        }
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
