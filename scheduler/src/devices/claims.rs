//! The claims of a Pod: whether they are there, which ones have devices, which ones need some.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use controller::{Cached, ObjectKey};
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClaim};

use super::{
    Devices,
    allocate::{Answers, Choice, Failure, Grounds, allocate},
    extended::{Asked, Backed},
    inventory::{Inventory, Place},
    result,
    wanted::{Sources, WantedClaim},
    write::Release,
};
use crate::objects::{DeviceClaimSource, DeviceClaimView, EXTENDED_OF, NodeSelector, PodView};

/// Those that a claim can be reserved for at once.
const MAX_CONSUMERS: usize = 256;
/// The node has not the devices.
pub(crate) const NOT_ENOUGH: &str = "cannot allocate all claims";
/// The claim's devices cannot be used on the node.
pub(crate) const ELSEWHERE: &str = "resourceclaim not available on the node";
const TOO_LONG: &str = "timed out trying to allocate devices";
const IN_USE: &str = "resourceclaim in use";
/// Stands for the name of a claim that is to be made for extended resources.
const EXTENDED_NAME: &str = "<extended-resources>";
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

/// Claims that are to get devices on a node.
#[derive(Debug, Default)]
struct Wanted {
    claims: Vec<WantedClaim>,
    /// What the last of them is to say, if it is for extended resources and does not exist yet.
    asked: Option<Asked>,
}

/// What is wanted, or what is wrong with it.
type Form = Result<Rc<Wanted>, String>;

/// Extended resources that devices stand for.
struct Extended {
    backed: Backed,
    /// The claim that an earlier attempt has left.
    known: Option<Arc<Cached<DeviceClaimView>>>,
    /// What is wanted, by the resources that a node lacks.
    forms: RefCell<HashMap<Vec<bool>, Form>>,
    pod: Arc<str>,
    namespace: Box<str>,
}

/// Devices that were found for a Pod.
pub(super) struct Allocations {
    /// For each claim that has none.
    pub(super) claims: Vec<(ObjectKey, Box<str>, AllocationResult)>,
    /// For the claim that is to be made for extended resources.
    pub(super) extended: Option<(Asked, AllocationResult)>,
}

/// What a Pod needs of devices.
pub(crate) struct Demand {
    allocated: Vec<Allocated>,
    wanted: Rc<Wanted>,
    extended: Option<Extended>,
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
        Ok(Demand {
            allocated,
            wanted: Rc::new(Wanted { claims: wanted, asked: None }),
            extended: self.extended(pod),
            inventory: self.inventory(),
            answers: Answers::default(),
        })
    }

    fn extended(&self, pod: &PodView) -> Option<Extended> {
        if pod.template.extended.is_empty() {
            return None;
        }
        let backed = Backed::new(&pod.template, &self.meanings())?;
        let mut made = self.claims.by_index(EXTENDED_OF, &pod.uid).into_iter();
        Some(Extended {
            backed,
            known: made.find(|claim| claim.allocation.is_some() && !claim.terminating),
            forms: RefCell::default(),
            pod: Arc::clone(&pod.uid),
            namespace: pod.namespace().into(),
        })
    }
}

impl Demand {
    /// Whether it asks for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.allocated.is_empty() && self.wanted.claims.is_empty() && self.extended.is_none()
    }

    /// Whether nodes may differ in how good the devices are that they have.
    pub(crate) fn has_alternatives(&self) -> bool {
        self.wanted.claims.iter().flat_map(|c| &c.requests).any(|alternatives| alternatives.len() > 1)
    }

    /// Looks at a node.
    pub(crate) fn check(&self, devices: &Devices, place: &Place<'_>, timeout: Duration) -> State {
        if !self.allocated.iter().all(|claim| claim.nodes.as_ref().is_none_or(|nodes| place.is_among(nodes))) {
            return State::Lacks(ELSEWHERE);
        }
        let wanted = match self.wanted_on(devices, place) {
            Ok(wanted) => wanted,
            Err(state) => return state,
        };
        if wanted.claims.is_empty() {
            return State::Fits;
        }
        match self.search(&wanted.claims, devices, place, timeout, |_| ()) {
            Ok(()) => State::Fits,
            Err(Failure::None) => State::Lacks(NOT_ENOUGH),
            Err(Failure::TooLong) => State::Lacks(TOO_LONG),
            Err(Failure::Error(text)) => State::Broken(text),
        }
    }

    /// The claims that are to get devices on a node: it may offer some of the extended resources itself.
    fn wanted_on(&self, devices: &Devices, place: &Place<'_>) -> Result<Rc<Wanted>, State> {
        let Some(extended) = &self.extended else { return Ok(Rc::clone(&self.wanted)) };
        let missing = extended.backed.missing(place);
        if let Some(known) = &extended.known {
            // It suits where the Pod would ask for the same again.
            let same = known.spec.requests.as_deref().unwrap_or_default() == extended.backed.asked(&missing).requests;
            let near = known.nodes.as_ref().is_none_or(|nodes| place.is_among(nodes));
            return if same && near { Ok(Rc::clone(&self.wanted)) } else { Err(State::Lacks(ELSEWHERE)) };
        }
        if !missing.contains(&true) {
            return Ok(Rc::clone(&self.wanted));
        }
        let mut forms = extended.forms.borrow_mut();
        let form = forms.entry(missing).or_insert_with_key(|missing| {
            let asked = extended.backed.asked(missing);
            let spec = DeviceClaim { requests: Some(asked.requests.clone()), ..DeviceClaim::default() };
            let class = |name: &str| devices.classes.get(&ObjectKey::cluster(name));
            let sources = Sources { class: &class, selectors: &devices.selectors };
            let key = ObjectKey::new(&*extended.namespace, EXTENDED_NAME);
            let mut claims = self.wanted.claims.clone();
            claims.push(WantedClaim::new(key, &extended.pod, &Arc::new(spec), &sources)?);
            Ok(Rc::new(Wanted { claims, asked: Some(asked) }))
        });
        form.clone().map_err(State::Broken)
    }

    fn search<T>(
        &self,
        wanted: &[WantedClaim],
        devices: &Devices,
        place: &Place<'_>,
        timeout: Duration,
        then: impl FnOnce(&[Vec<Choice<'_>>]) -> T,
    ) -> Result<T, Failure> {
        let ledger = devices.ledger.lock();
        let grounds = Grounds { inventory: &self.inventory, ledger: &ledger, place, answers: &self.answers };
        allocate(wanted, &grounds, timeout).map(|choices| then(&choices))
    }

    /// How good the devices of a node are: more for alternatives that are named earlier.
    pub(crate) fn score(&self, devices: &Devices, place: &Place<'_>) -> i64 {
        const BEST: usize = 8;
        let Ok(wanted) = self.wanted_on(devices, place) else { return 0 };
        let sum = |choices: &[Vec<Choice<'_>>]| {
            let mut score = 0;
            for (claim, choices) in wanted.claims.iter().zip(choices) {
                for alternatives in claim.requests.iter().filter(|a| a.len() > 1) {
                    let name = alternatives.first().map(|want| &*want.request);
                    let rank = choices.iter().find(|c| Some(&*c.want.request) == name).map_or(BEST, |c| c.rank);
                    score += BEST.saturating_sub(rank);
                }
            }
            i64::try_from(score).unwrap_or(i64::MAX)
        };
        self.search(&wanted.claims, devices, place, Duration::ZERO, sum).unwrap_or(0)
    }

    /// Devices for each claim that has none.
    pub(super) fn allocations(&self, devices: &Devices, place: &Place<'_>) -> Option<Allocations> {
        let share = || uuid::Uuid::new_v4().to_string();
        let wanted = self.wanted_on(devices, place).ok()?;
        let found = self.search(&wanted.claims, devices, place, Duration::ZERO, |choices| {
            let each = wanted.claims.iter().zip(choices);
            each.map(|(claim, choices)| {
                (claim.key.clone(), claim.uid.clone(), result::allocation(claim, choices, place, share))
            })
            .collect()
        });
        let mut claims: Vec<_> = found.ok()?;
        let extended = match &wanted.asked {
            None => None,
            Some(asked) => claims.pop().map(|(_, _, allocation)| (asked.clone(), allocation)),
        };
        Some(Allocations { claims, extended })
    }

    /// The claim for extended resources that exists already, with what it was made to say on this node.
    pub(super) fn known_extended(&self, place: &Place<'_>) -> Option<(&Cached<DeviceClaimView>, Asked)> {
        let extended = self.extended.as_ref()?;
        let known = extended.known.as_deref()?;
        Some((known, extended.backed.asked(&extended.backed.missing(place))))
    }

    /// Claims that have devices, which the Pod is to be noted in.
    pub(super) fn reserved(&self) -> Vec<(ObjectKey, Box<str>)> {
        self.allocated.iter().map(|claim| (claim.key.clone(), claim.uid.clone())).collect()
    }

    /// A claim that nobody else uses and whose devices tie the Pod to other nodes.
    pub(super) fn idle(&self) -> Option<Release> {
        if let Some(known) = self.extended.as_ref().and_then(|extended| extended.known.as_ref()) {
            return Some(Release { key: known.key.clone(), uid: known.uid.as_str().into(), delete: true });
        }
        let found = self.allocated.iter().find(|claim| claim.is_idle && claim.nodes.is_some())?;
        Some(Release { key: found.key.clone(), uid: found.uid.clone(), delete: false })
    }
}
