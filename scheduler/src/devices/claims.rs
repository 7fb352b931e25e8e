//! The claims of a Pod: whether they are there, which ones have devices, which ones need some.

use std::{sync::Arc, time::Duration};

use controller::{Cached, ObjectKey};
use k8s_openapi::api::resource::v1::AllocationResult;

use super::{
    Devices,
    allocate::{Answers, Choice, Failure, Grounds, allocate},
    inventory::{Inventory, Place},
    result,
    wanted::{Sources, WantedClaim},
};
use crate::objects::{DeviceClaimSource, DeviceClaimView, NodeSelector, PodView};

/// Those that a claim can be reserved for at once.
const MAX_CONSUMERS: usize = 256;
/// The node has not the devices.
pub(crate) const NOT_ENOUGH: &str = "cannot allocate all claims";
/// The claim's devices cannot be used on the node.
pub(crate) const ELSEWHERE: &str = "resourceclaim not available on the node";
const TOO_LONG: &str = "timed out trying to allocate devices";
const IN_USE: &str = "resourceclaim in use";
const PENDING: &str = "resource claim is in the process of being allocated";

/// A claim that has its devices.
struct Allocated {
    key: ObjectKey,
    uid: Box<str>,
    /// Nodes where they can be used.
    nodes: Option<Arc<NodeSelector>>,
    /// Whether nobody, or only this Pod, uses it.
    is_idle: bool,
}

/// What a Pod needs of devices.
pub(crate) struct Demand {
    allocated: Vec<Allocated>,
    wanted: Vec<WantedClaim>,
    inventory: Arc<Inventory>,
    answers: Answers,
}

/// What a node has for a Pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Everything.
    Fits,
    /// Not enough, for a reason that is told.
    Lacks(&'static str),
    /// Something is wrong.
    Broken(String),
}

impl Devices {
    /// The claims of a Pod; the error tells what it waits for.
    pub(crate) fn claims_of(&self, pod: &PodView) -> Result<Vec<Arc<Cached<DeviceClaimView>>>, String> {
        let mut claims = Vec::new();
        for wanted in &pod.template.device_claims {
            let (name, is_own) = match &wanted.source {
                DeviceClaimSource::Named(name) => (name.clone(), false),
                DeviceClaimSource::Made => match pod.claim_made_for(&wanted.name) {
                    None => return Err(format!("pod {:?}: ResourceClaim not created yet", pod.full_name())),
                    Some(None) => continue,
                    Some(Some(name)) => (name.into(), true),
                },
                DeviceClaimSource::Unknown => {
                    let text = "none of the supported fields are set";
                    return Err(format!("pod {:?}, spec.resourceClaim {:?}: {text}", pod.full_name(), wanted.name));
                }
            };
            let key = ObjectKey::new(pod.namespace(), &*name);
            let missing = || format!("resourceclaim.resource.k8s.io {name:?} not found");
            let claim = self.claims.get(&key).ok_or_else(missing)?;
            if claim.terminating {
                return Err(format!("resourceclaim {name:?} is being deleted"));
            }
            if is_own && claim.owner.as_deref() != Some(&*pod.uid) {
                let pod = pod.full_name();
                return Err(format!("ResourceClaim {key} was not created for Pod {pod} (Pod is not owner)"));
            }
            claims.push(claim);
        }
        Ok(claims)
    }

    /// What a Pod needs; the error holds for all nodes.
    pub(crate) fn demand(&self, pod: &PodView) -> Result<Demand, String> {
        let mut allocated = Vec::new();
        let mut wanted: Vec<WantedClaim> = Vec::new();
        let class = |name: &str| self.classes.get(&ObjectKey::cluster(name));
        let sources = Sources { class: &class, selectors: &self.selectors };
        for claim in self.claims_of(pod)? {
            let is_mine = claim.reserved_for.iter().any(|uid| **uid == *pod.uid);
            if claim.allocation.is_none() {
                if self.ledger.lock().is_pending(&claim.uid) {
                    return Err(PENDING.to_owned());
                }
                // A Pod may name a claim twice.
                if !wanted.iter().any(|w| w.key == claim.key) {
                    wanted.push(WantedClaim::new(claim.key.clone(), &claim.uid, &claim.spec, &sources)?);
                }
                continue;
            }
            if !is_mine && claim.reserved_for.len() >= MAX_CONSUMERS {
                return Err(IN_USE.to_owned());
            }
            allocated.push(Allocated {
                key: claim.key.clone(),
                uid: claim.uid.as_str().into(),
                nodes: claim.nodes.clone(),
                is_idle: claim.reserved_for.len() == usize::from(is_mine),
            });
        }
        Ok(Demand { allocated, wanted, inventory: self.inventory(), answers: Answers::default() })
    }
}

impl Demand {
    /// Whether it asks for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.allocated.is_empty() && self.wanted.is_empty()
    }

    /// Whether nodes may differ in how good the devices are that they have.
    pub(crate) fn has_alternatives(&self) -> bool {
        self.wanted.iter().flat_map(|c| &c.requests).any(|alternatives| alternatives.len() > 1)
    }

    /// Looks at a node.
    pub(crate) fn check(&self, devices: &Devices, place: &Place<'_>, timeout: Duration) -> State {
        if !self.allocated.iter().all(|claim| claim.nodes.as_ref().is_none_or(|nodes| place.is_among(nodes))) {
            return State::Lacks(ELSEWHERE);
        }
        if self.wanted.is_empty() {
            return State::Fits;
        }
        match self.search(devices, place, timeout, |_| ()) {
            Ok(()) => State::Fits,
            Err(Failure::None) => State::Lacks(NOT_ENOUGH),
            Err(Failure::TooLong) => State::Lacks(TOO_LONG),
            Err(Failure::Error(text)) => State::Broken(text),
        }
    }

    fn search<T>(
        &self,
        devices: &Devices,
        place: &Place<'_>,
        timeout: Duration,
        then: impl FnOnce(&[Vec<Choice<'_>>]) -> T,
    ) -> Result<T, Failure> {
        let ledger = devices.ledger.lock();
        let grounds = Grounds { inventory: &self.inventory, ledger: &ledger, place, answers: &self.answers };
        allocate(&self.wanted, &grounds, timeout).map(|choices| then(&choices))
    }

    /// How good the devices of a node are: more for alternatives that are named earlier.
    pub(crate) fn score(&self, devices: &Devices, place: &Place<'_>) -> i64 {
        const BEST: usize = 8;
        let sum = |choices: &[Vec<Choice<'_>>]| {
            let mut score = 0;
            for (claim, choices) in self.wanted.iter().zip(choices) {
                for alternatives in claim.requests.iter().filter(|a| a.len() > 1) {
                    let name = alternatives.first().map(|want| &*want.request);
                    let rank = choices.iter().find(|c| Some(&*c.want.request) == name).map_or(BEST, |c| c.rank);
                    score += BEST.saturating_sub(rank);
                }
            }
            i64::try_from(score).unwrap_or(i64::MAX)
        };
        self.search(devices, place, Duration::ZERO, sum).unwrap_or(0)
    }

    /// Devices for each claim that has none.
    pub(super) fn allocations(
        &self,
        devices: &Devices,
        place: &Place<'_>,
    ) -> Result<Vec<(ObjectKey, Box<str>, AllocationResult)>, Failure> {
        let share = || uuid::Uuid::new_v4().to_string();
        self.search(devices, place, Duration::ZERO, |choices| {
            let each = self.wanted.iter().zip(choices);
            each.map(|(claim, choices)| {
                (claim.key.clone(), claim.uid.clone(), result::allocation(claim, choices, place, share))
            })
            .collect()
        })
    }

    /// Claims that have devices, which the Pod is to be noted in.
    pub(super) fn reserved(&self) -> Vec<(ObjectKey, Box<str>)> {
        self.allocated.iter().map(|claim| (claim.key.clone(), claim.uid.clone())).collect()
    }

    /// A claim that nobody else uses and whose devices tie the Pod to other nodes.
    pub(crate) fn idle(&self) -> Option<(&ObjectKey, &str)> {
        let found = self.allocated.iter().find(|claim| claim.is_idle && claim.nodes.is_some());
        found.map(|claim| (&claim.key, &*claim.uid))
    }
}
