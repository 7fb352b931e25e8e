//! Reserve and PreBind of DynamicResources: claims are told their devices and for whom they are, before the Pod is bound.

use std::time::{Duration, SystemTime};

use client::ApiErrorExt;
use controller::ObjectKey;
use k8s_openapi::{
    api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::PostParams;

use super::Devices;
use crate::{
    api::{Api, CallError},
    objects::{CLAIM_FINALIZER, PodView},
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
struct Planned {
    key: ObjectKey,
    uid: Box<str>,
    /// Its devices, if it has none yet.
    allocation: Option<AllocationResult>,
}

/// What is to be done for the claims of one Pod.
#[derive(Debug, Default)]
pub(crate) struct DevicePlan {
    claims: Vec<Planned>,
}

/// A claim to take devices from, so that they can be had elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Box<str>,
}

impl DevicePlan {
    pub(super) fn new(
        reserved: Vec<(ObjectKey, Box<str>)>,
        chosen: Vec<(ObjectKey, Box<str>, AllocationResult)>,
    ) -> Self {
        let known = reserved.into_iter().map(|(key, uid)| Planned { key, uid, allocation: None });
        let new = chosen.into_iter().map(|(key, uid, a)| Planned { key, uid, allocation: Some(a) });
        Self { claims: known.chain(new).collect() }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether devices have to be made ready first.
    pub(crate) fn waits(&self) -> bool {
        let allocations = self.claims.iter().filter_map(|claim| claim.allocation.as_ref()?.devices.as_ref());
        allocations.flat_map(|d| d.results.iter().flatten()).any(|result| result.binding_conditions.is_some())
    }

    /// UIDs of the claims for which devices were chosen.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &str> {
        self.claims.iter().filter(|claim| claim.allocation.is_some()).map(|claim| &*claim.uid)
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

    /// Whether all devices that have to be made ready are.
    fn are_ready(&self, plan: &DevicePlan) -> Result<bool, DeviceError> {
        for planned in &plan.claims {
            let Some(allocation) = &planned.allocation else { continue };
            let needed = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
            for result in needed.filter(|result| result.binding_conditions.is_some()) {
                let known = self.claims.get(&planned.key).filter(|claim| claim.uid == *planned.uid);
                let claim = known.ok_or_else(|| DeviceError::Changed(planned.key.clone()))?;
                let told = claim
                    .devices
                    .iter()
                    .find(|d| (&d.driver, &d.pool, &d.device) == (&result.driver, &result.pool, &result.device));
                let is_true = |kind: &String| {
                    let mut conditions = told.iter().flat_map(|d| d.conditions.iter().flatten());
                    conditions.any(|c| c.type_ == *kind && c.status == "True")
                };
                if let Some(failed) = result.binding_failure_conditions.iter().flatten().find(|c| is_true(c)) {
                    return Err(DeviceError::Failed(format!("claim {}: {failed}", planned.key)));
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
    }
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
