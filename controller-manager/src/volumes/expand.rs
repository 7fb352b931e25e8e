//! Claims that ask for more than their volume has. Drivers make volumes larger themselves; that they are asked to is told.

use ::controller::{
    Change, EventRecorder, EventType, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, events::reference_to,
};
use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::api::resource};
use machinery::quantity::Quantity;

use super::is_bound;
use crate::{StartError, context::Context, table::Started, views::ClaimView};

const CONTROLLER: &str = "persistentvolume-expander-controller";
/// Name under which events are recorded.
const SOURCE: &str = "volume_expand";
const WAITING: &str = "waiting for an external controller to expand this PVC";

fn storage(quantity: Option<&resource::Quantity>) -> Option<Quantity> {
    Quantity::parse(&quantity?.0).ok()
}

/// What a claim asks for.
fn wanted(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    storage(requests.get("storage"))
}

/// Whether a bound claim asks for more than it has.
fn wants_more(claim: &PersistentVolumeClaim) -> bool {
    let has = claim.status.as_ref().and_then(|s| storage(s.capacity.as_ref()?.get("storage")));
    is_bound(claim) && wanted(claim).zip(has).is_some_and(|(wanted, has)| wanted > has)
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let claims: Informer<ClaimView> = context.informers.get();
    let queue = context.queue("volume_expand");
    let to = queue.clone();
    claims.on_change(move |change| {
        let grows = match change {
            Change::Added { .. } => true,
            Change::Updated { old, new } => wanted(new) > wanted(old),
            Change::Deleted { .. } => false,
        };
        if grows {
            to.add(change.object().key.clone());
        }
    });
    let expander = Expander { recorder: context.recorder(&client, SOURCE), claims: claims.clone() };
    context.drive(CONTROLLER, queue, 1, expander, &[&claims]);
    Ok(Started::Running)
}

struct Expander {
    recorder: EventRecorder,
    claims: Informer<ClaimView>,
}

impl Reconcile for Expander {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        if let Some(claim) = self.claims.get(key).filter(|claim| wants_more(claim)) {
            self.recorder.event(&reference_to(&claim.view.0), EventType::Normal, "ExternalExpanding", WAITING);
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bound_claims_may_want_more() {
        let claim = |phase: &str, wanted: &str, has: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "spec": {"resources": {"requests": {"storage": wanted}}},
                "status": {"phase": phase, "capacity": {"storage": has}},
            }))
            .unwrap()
        };
        assert!(wants_more(&claim("Bound", "2Gi", "1Gi")));
        assert!(!wants_more(&claim("Bound", "1Gi", "1024Mi")));
        assert!(!wants_more(&claim("Pending", "2Gi", "1Gi")));
        assert!(!wants_more(&PersistentVolumeClaim::default()));
    }
}
