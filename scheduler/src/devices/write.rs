//! Reserve and PreBind of DynamicResources: claims are told their devices and for whom they are, before the Pod is bound.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use client::ApiErrorExt;
use controller::ObjectKey;
use k8s_openapi::{
    api::{
        core::v1::ContainerExtendedResourceRequest,
        resource::v1::{
            AllocationResult, DeviceClaim, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimSpec,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{Devices, extended::Asked};
use crate::{
    api::{Api, CallError},
    objects::{CLAIM_FINALIZER, EXTENDED_CLAIM, EXTENDED_OF, PodView},
};

/// How often a write is tried that others get in the way of.
const ATTEMPTS: usize = 5;

/// Why the claims of a Pod are not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("claim {0} was replaced or got other devices meanwhile")]
    Changed(ObjectKey),
    #[error("device binding failed: {0}")]
    Failed(String),
    #[error("device binding timeout")]
    Late,
}

impl DeviceError {
    /// Whether the devices cannot be made ready, so that others have to be found.
    pub(crate) fn is_of_devices(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Late)
    }
}

/// A claim that is to be written.
#[derive(Debug)]
pub(super) struct Planned {
    key: ObjectKey,
    uid: Box<str>,
    /// Its devices, if it has none yet.
    allocation: Option<AllocationResult>,
}

/// The claim behind the extended resources of a Pod.
#[derive(Debug)]
pub(super) enum PlannedExtended {
    /// There will be none, but the Pod's status tells of one.
    Stale,
    /// An earlier attempt has made it.
    Known { planned: Planned, mappings: Vec<ContainerExtendedResourceRequest> },
    /// It is to be made.
    Fresh {
        /// Stands for its UID until it has one.
        uid: Box<str>,
        asked: Asked,
        allocation: AllocationResult,
        made: OnceLock<(ObjectKey, Box<str>)>,
    },
}

impl PlannedExtended {
    pub(super) fn fresh(pod: &str, asked: Asked, allocation: AllocationResult) -> Self {
        Self::Fresh { uid: pod.into(), asked, allocation, made: OnceLock::new() }
    }

    pub(super) fn known(key: &ObjectKey, uid: &str, asked: Asked) -> Self {
        let planned = Planned { key: key.clone(), uid: uid.into(), allocation: None };
        Self::Known { planned, mappings: asked.mappings }
    }
}

/// What is to be done for the claims of one Pod.
#[derive(Debug, Default)]
pub(crate) struct DevicePlan {
    claims: Vec<Planned>,
    /// Boxed, for few Pods have one.
    extended: Option<Box<PlannedExtended>>,
}

/// A claim to take devices from, so that they can be had elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Box<str>,
    /// Whether the claim goes too: it was made for extended resources.
    pub(crate) delete: bool,
}

impl DevicePlan {
    pub(super) fn new(
        reserved: Vec<(ObjectKey, Box<str>)>,
        chosen: Vec<(ObjectKey, Box<str>, AllocationResult)>,
        extended: Option<PlannedExtended>,
    ) -> Self {
        let known = reserved.into_iter().map(|(key, uid)| Planned { key, uid, allocation: None });
        let new = chosen.into_iter().map(|(key, uid, a)| Planned { key, uid, allocation: Some(a) });
        Self { claims: known.chain(new).collect(), extended: extended.map(Box::new) }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.extended.is_none()
    }

    /// Whether devices have to be made ready first.
    pub(crate) fn waits(&self) -> bool {
        let devices = self.chosen().filter_map(|(_, allocation)| allocation.devices.as_ref());
        devices.flat_map(|d| d.results.iter().flatten()).any(|result| result.binding_conditions.is_some())
    }

    /// What was chosen, by the UIDs of the claims.
    pub(super) fn chosen(&self) -> impl Iterator<Item = (&str, &AllocationResult)> {
        let extended = match self.extended.as_deref() {
            Some(PlannedExtended::Fresh { uid, allocation, .. }) => Some((&**uid, allocation)),
            _ => None,
        };
        let claims = self.claims.iter().filter_map(|claim| Some((&*claim.uid, claim.allocation.as_ref()?)));
        claims.chain(extended)
    }

    /// Names of all devices that were chosen.
    #[cfg(test)]
    pub(crate) fn chosen_devices(&self) -> Vec<String> {
        let all = self.chosen().filter_map(|(_, allocation)| allocation.devices.as_ref());
        all.flat_map(|d| d.results.iter().flatten()).map(|result| result.device.clone()).collect()
    }

    /// Claims that were given devices, as far as they exist.
    fn allocated(&self) -> impl Iterator<Item = (&ObjectKey, &str, &AllocationResult)> {
        let extended = match self.extended.as_deref() {
            Some(PlannedExtended::Fresh { made, allocation, .. }) => {
                made.get().map(|(key, uid)| (key, &**uid, allocation))
            }
            _ => None,
        };
        let claims = self.claims.iter().filter_map(|c| Some((&c.key, &*c.uid, c.allocation.as_ref()?)));
        claims.chain(extended)
    }
}

impl Devices {
    /// Writes devices and reservations, and waits for devices that have to be made ready, for `deadline` at most.
    pub(crate) async fn bind(
        &self,
        plan: &DevicePlan,
        pod: &PodView,
        api: &Api,
        now: SystemTime,
        deadline: Duration,
    ) -> Result<(), DeviceError> {
        for claim in &plan.claims {
            self.bind_claim(claim, pod, api, now).await?;
        }
        if let Some(extended) = &plan.extended {
            self.bind_extended(extended, pod, api, now).await?;
        }
        let mut changes = self.changes.subscribe();
        let ready = async {
            loop {
                changes.borrow_and_update();
                if self.are_ready(plan)? {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err(DeviceError::Late);
                }
            }
        };
        tokio::time::timeout(deadline, ready).await.unwrap_or(Err(DeviceError::Late))
    }

    async fn bind_claim(
        &self,
        planned: &Planned,
        pod: &PodView,
        api: &Api,
        now: SystemTime,
    ) -> Result<(), DeviceError> {
        if self.claims.get(&planned.key).is_some_and(|known| {
            known.uid == *planned.uid
                && known.allocation.is_some()
                && known.reserved_for.iter().any(|uid| **uid == *pod.uid)
        }) {
            return Ok(());
        }
        let (claims, name) = (api.claims(&planned.key.namespace), &planned.key.name);
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let attempt = async {
                let mut claim = claims.get(name).await?;
                let Ok(kind) = change(&mut claim, planned, pod, now) else { return Ok(Err(())) };
                if kind == Changed::Nothing {
                    return Ok(Ok(kind));
                }
                if kind == Changed::Allocated && !is_kept(&claim) {
                    claim.metadata.finalizers.get_or_insert_default().push(CLAIM_FINALIZER.to_owned());
                    let kept = claims.replace(name, &PostParams::default(), &claim).await?;
                    claim.metadata = kept.metadata;
                }
                claims.replace_status(name, &PostParams::default(), &claim).await?;
                Ok(Ok(kind))
            };
            match api.within(attempt).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(())) => return Err(DeviceError::Changed(planned.key.clone())),
                Err(CallError::Api(error)) if left > 0 && error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the claim behind extended resources made, and the Pod told of it.
    async fn bind_extended(
        &self,
        plan: &PlannedExtended,
        pod: &PodView,
        api: &Api,
        now: SystemTime,
    ) -> Result<(), DeviceError> {
        let status = match plan {
            PlannedExtended::Stale => Value::Null,
            PlannedExtended::Known { planned, mappings } => {
                self.bind_claim(planned, pod, api, now).await?;
                json!({"resourceClaimName": planned.key.name, "requestMappings": mappings})
            }
            PlannedExtended::Fresh { uid: stand_in, asked, allocation, made } => {
                // One that an earlier attempt has left without devices.
                for left in self.claims.by_index(EXTENDED_OF, &pod.uid).iter().filter(|c| !c.terminating) {
                    match delete(api, &left.key, &left.uid).await {
                        Err(error) if !error.is_not_found() => return Err(error.into()),
                        _ => {}
                    }
                }
                let wanted = claim_for(pod, asked);
                let created = api.within(api.claims(pod.namespace()).create(&PostParams::default(), &wanted)).await?;
                let key = ObjectKey::new(pod.namespace(), created.name_any());
                let uid: Box<str> = created.metadata.uid.unwrap_or_default().into();
                let (key, uid) = made.get_or_init(|| (key, uid));
                let planned = Planned { key: key.clone(), uid: uid.clone(), allocation: Some(allocation.clone()) };
                self.bind_claim(&planned, pod, api, now).await?;
                let mut ledger = self.ledger.lock();
                ledger.drop_choice(stand_in);
                if !ledger.knows(uid) {
                    ledger.choose(uid, allocation);
                }
                drop(ledger);
                json!({"resourceClaimName": key.name, "requestMappings": asked.mappings})
            }
        };
        api.patch_status(pod, &json!({"extendedResourceClaimStatus": status})).await?;
        Ok(())
    }

    /// Whether all devices that have to be made ready are.
    fn are_ready(&self, plan: &DevicePlan) -> Result<bool, DeviceError> {
        for (key, uid, allocation) in plan.allocated() {
            let needed = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
            for result in needed.filter(|result| result.binding_conditions.is_some()) {
                // The cache may not have one that was just made.
                let Some(claim) = self.claims.get(key).filter(|claim| claim.uid == *uid) else { return Ok(false) };
                let told = claim
                    .devices
                    .iter()
                    .find(|d| (&d.driver, &d.pool, &d.device) == (&result.driver, &result.pool, &result.device));
                let is_true = |kind: &String| {
                    let mut conditions = told.iter().flat_map(|d| d.conditions.iter().flatten());
                    conditions.any(|c| c.type_ == *kind && c.status == "True")
                };
                if let Some(failed) = result.binding_failure_conditions.iter().flatten().find(|c| is_true(c)) {
                    return Err(DeviceError::Failed(format!("claim {key}: {failed}")));
                }
                if !result.binding_conditions.iter().flatten().all(is_true) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The Pod is not bound after all: it is taken out of its claims. Devices stay allocated for the next attempt, unless
    /// `failed` says that they cannot be used.
    pub(crate) async fn unreserve(&self, plan: &DevicePlan, pod: &PodView, api: &Api, failed: bool) {
        self.release(plan);
        if let Some(PlannedExtended::Fresh { made, .. }) = plan.extended.as_deref()
            && let Some((key, uid)) = made.get()
        {
            self.deallocate(&Release { key: key.clone(), uid: uid.clone(), delete: true }, pod, api).await;
        }
        for planned in &plan.claims {
            let (claims, name) = (api.claims(&planned.key.namespace), &planned.key.name);
            let change = |claim: &mut ResourceClaim| {
                if claim.metadata.uid.as_deref() != Some(&*planned.uid) {
                    return false;
                }
                let Some(status) = claim.status.as_mut() else { return false };
                let users = status.reserved_for.get_or_insert_default();
                let before = users.len();
                users.retain(|user| user.uid != *pod.uid);
                let changed = users.len() != before;
                if failed && users.is_empty() && planned.allocation.is_some() {
                    status.allocation = None;
                }
                changed
            };
            if let Err(error) = client::modify_status(&claims, name, change).await
                && !error.is_not_found()
            {
                tracing::error!(claim = %planned.key, %error, "unreserve");
            }
        }
    }

    /// Takes devices from a claim that nobody else uses.
    pub(crate) async fn deallocate(&self, release: &Release, pod: &PodView, api: &Api) {
        let claims = api.claims(&release.key.namespace);
        let change = |claim: &mut ResourceClaim| {
            let same = claim.metadata.uid.as_deref() == Some(&*release.uid);
            let Some(status) = claim.status.as_mut().filter(|_| same) else { return false };
            let mut users = status.reserved_for.iter().flatten();
            if status.allocation.is_none() || users.any(|user| user.uid != *pod.uid) {
                return false;
            }
            status.allocation = None;
            status.reserved_for = None;
            true
        };
        if let Err(error) = client::modify_status(&claims, &release.key.name, change).await
            && !error.is_not_found()
        {
            tracing::error!(claim = %release.key, %error, "Cannot deallocate a ResourceClaim");
        }
        if release.delete
            && let Err(error) = delete(api, &release.key, &release.uid).await
            && !error.is_not_found()
        {
            tracing::error!(claim = %release.key, %error, "Cannot delete a ResourceClaim");
        }
    }
}

/// The claim for extended resources of a Pod.
fn claim_for(pod: &PodView, asked: &Asked) -> ResourceClaim {
    let devices = DeviceClaim { requests: Some(asked.requests.clone()), ..DeviceClaim::default() };
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-extended-resources-", pod.name)),
            namespace: Some(pod.namespace().to_owned()),
            annotations: Some([(EXTENDED_CLAIM.to_owned(), "true".to_owned())].into()),
            finalizers: Some(vec![CLAIM_FINALIZER.to_owned()]),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.name.to_string(),
                uid: pod.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec { devices: Some(devices) },
        status: None,
    }
}

/// Deletes a claim, if it still is the same one.
async fn delete(api: &Api, key: &ObjectKey, uid: &str) -> Result<(), CallError> {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    api.within(api.claims(&key.namespace).delete(&key.name, &params)).await.map(drop)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Nothing,
    Reserved,
    Allocated,
}

fn is_kept(claim: &ResourceClaim) -> bool {
    claim.metadata.finalizers.iter().flatten().any(|f| f == CLAIM_FINALIZER)
}

/// Writes devices and the Pod into a claim; an error if it is not what it was.
fn change(claim: &mut ResourceClaim, planned: &Planned, pod: &PodView, now: SystemTime) -> Result<Changed, ()> {
    if claim.metadata.uid.as_deref() != Some(&*planned.uid) || claim.metadata.deletion_timestamp.is_some() {
        return Err(());
    }
    let status = claim.status.get_or_insert_default();
    let mut kind = Changed::Nothing;
    match (&planned.allocation, &status.allocation) {
        (None, None) => return Err(()),
        (None, Some(_)) => {}
        (Some(chosen), None) => {
            let at = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
            let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
            status.allocation = Some(AllocationResult { allocation_timestamp: Some(Time(at)), ..chosen.clone() });
            kind = Changed::Allocated;
        }
        // Written before, by this very plan, or by somebody else.
        (Some(chosen), Some(there)) if chosen.devices == there.devices => {}
        (Some(_), Some(_)) => return Err(()),
    }
    let users = status.reserved_for.get_or_insert_default();
    if !users.iter().any(|user| user.uid == *pod.uid) {
        users.push(ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: pod.name.to_string(),
            uid: pod.uid.to_string(),
        });
        if kind == Changed::Nothing {
            kind = Changed::Reserved;
        }
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::pod_view;

    #[test]
    fn claims_are_written_once_and_only_if_they_are_the_same() {
        let pod = pod_view("p", |p| p);
        let chosen: AllocationResult = serde_json::from_value(json!({"devices": {"results": [
            {"request": "r", "driver": "d", "pool": "p", "device": "x"}]}}))
        .unwrap();
        let planned = Planned { key: ObjectKey::new("ns", "c"), uid: "1".into(), allocation: Some(chosen.clone()) };
        let fresh = || -> ResourceClaim {
            serde_json::from_value(json!({"metadata": {"name": "c", "uid": "1"}, "spec": {}})).unwrap()
        };
        let mut claim = fresh();
        assert_eq!(change(&mut claim, &planned, &pod, SystemTime::UNIX_EPOCH), Ok(Changed::Allocated));
        let status = claim.status.clone().unwrap();
        assert_eq!(status.allocation.unwrap().devices, chosen.devices);
        assert_eq!(status.reserved_for.unwrap()[0].uid, "uid-p");
        assert_eq!(change(&mut claim, &planned, &pod, SystemTime::UNIX_EPOCH), Ok(Changed::Nothing));
        let other = pod_view("q", |p| p);
        let reserve = Planned { allocation: None, ..planned };
        assert_eq!(change(&mut claim, &reserve, &other, SystemTime::UNIX_EPOCH), Ok(Changed::Reserved));
        let mut another = fresh();
        another.metadata.uid = Some("2".into());
        assert!(change(&mut another, &reserve, &pod, SystemTime::UNIX_EPOCH).is_err());
        assert!(change(&mut fresh(), &reserve, &pod, SystemTime::UNIX_EPOCH).is_err(), "deallocated meanwhile");
    }
}
