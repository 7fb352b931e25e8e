//! ServiceCIDRs: ready when they are taken note of, and kept while addresses are in use that no other one has.

mod plan;

use std::{sync::Arc, time::Duration};

use ::controller::{Cached, Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Viewed, Whole};
use client::{modify, modify_status};
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::Timestamp,
};
use kube::{Api, Client};
use runtime::clock::Clock;

use crate::{
    StartError,
    context::{Context, now},
    table::Started,
};
use plan::Step;

const CONTROLLER: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const WORKERS: usize = 5;
const READY: &str = "Ready";

/// An address that is in use; its name says it all.
struct AddressView;

impl Viewed for AddressView {
    type Object = IPAddress;

    fn project(_address: IPAddress) -> Self {
        Self
    }
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let (ranges, addresses): (Informer<Whole<ServiceCIDR>>, Informer<AddressView>) =
        (context.informers.get(), context.informers.get());
    let queue = context.queue("ipaddresses");
    let (keys, all) = (queue.clone(), ranges.clone());
    ranges.on_change(move |change| {
        keys.add(change.object().key.clone());
        // What one gives up or takes over may decide about another.
        leaving(&all).for_each(|key| keys.add(key));
    });
    let (keys, all) = (queue.clone(), ranges.clone());
    addresses.on_change(move |change| {
        if matches!(change, Change::Deleted { .. }) {
            leaving(&all).for_each(|key| keys.add(key));
        }
    });
    let clock = Arc::clone(&context.clock);
    let reconciler = Reconciler { client, ranges: ranges.clone(), addresses: addresses.clone(), clock };
    context.drive(CONTROLLER, queue, WORKERS, reconciler, &[&ranges, &addresses]);
    Ok(Started::Running)
}

/// Those that are being deleted.
fn leaving(ranges: &Informer<Whole<ServiceCIDR>>) -> impl Iterator<Item = ObjectKey> {
    let deleted = |range: &Arc<Cached<Whole<ServiceCIDR>>>| range.metadata.deletion_timestamp.is_some();
    ranges.list().into_iter().filter(move |range| deleted(range)).map(|range| range.key.clone())
}

struct Reconciler {
    client: Client,
    ranges: Informer<Whole<ServiceCIDR>>,
    addresses: Informer<AddressView>,
    clock: Arc<dyn Clock>,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(range) = self.ranges.get(key) else { return Ok(Outcome::Done) };
        let all = self.ranges.list();
        let others = all.iter().filter(|other| other.key != *key).map(|other| &other.view.0);
        let addresses = self.addresses.list();
        let names = addresses.iter().map(|address| address.key.name.as_str());
        let time = Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let api: Api<ServiceCIDR> = Api::all(self.client.clone());
        match plan::step(&range.view.0, others, names, time) {
            Step::Nothing => {}
            Step::Wait(seconds) => return Ok(Outcome::After(Duration::from_secs(seconds))),
            Step::Adopt => {
                modify(&api, &key.name, |range| set_finalizer(range, true)).await?;
                self.mark(&api, key, &plan::ready()).await?;
            }
            Step::Mark(condition) => self.mark(&api, key, &condition).await?,
            Step::Release => {
                let released = modify(&api, &key.name, |range| set_finalizer(range, false)).await;
                match released {
                    Err(error) if client::ApiErrorExt::is_not_found(error.api()) => {}
                    other => {
                        other?;
                    }
                }
            }
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    async fn mark(&self, api: &Api<ServiceCIDR>, key: &ObjectKey, wanted: &Condition) -> Result<(), ReconcileError> {
        let time = now(&*self.clock);
        modify_status(api, &key.name, |range| {
            let conditions = range.status.get_or_insert_default().conditions.get_or_insert_default();
            let same = |c: &Condition| (c.status.as_str(), c.reason.as_str()) == (&wanted.status, &wanted.reason);
            let at = conditions.iter().position(|condition| condition.type_ == READY);
            if at.is_some_and(|at| same(&conditions[at])) {
                return false;
            }
            let condition = Condition { last_transition_time: time.clone(), ..wanted.clone() };
            match at {
                Some(at) => conditions[at] = condition,
                None => conditions.push(condition),
            }
            true
        })
        .await?;
        Ok(())
    }
}

/// Whether anything changed.
fn set_finalizer(range: &mut ServiceCIDR, wanted: bool) -> bool {
    let finalizers = range.metadata.finalizers.get_or_insert_default();
    let before = finalizers.len();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    finalizers.len() != before
}
