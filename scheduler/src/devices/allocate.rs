//! The search for devices on a node: requests in order, devices in order, back to the last choice when one does not work
//! out.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use machinery::quantity::Quantity;

use super::{
    capacity::{self, Amounts},
    inventory::{CounterName, Inventory, Place, Pool},
    ledger::{Ledger, Usage},
    wanted::{Mode, Want, WantedClaim},
};
use crate::objects::{DeviceId, DeviceView, SliceView};

/// Devices that one claim can have.
const MAX_DEVICES: usize = 32;
/// Looks at devices before a search is given up.
const MAX_STEPS: usize = 500_000;
/// Looks at devices between looks at the clock.
const LOOK_EVERY: usize = 1024;

/// A device for a request.
#[derive(Clone, Debug)]
pub(super) struct Choice<'a> {
    pub(super) want: &'a Want,
    /// How many better alternatives the request has.
    pub(super) rank: usize,
    pub(super) slice: &'a SliceView,
    pub(super) device: &'a Arc<DeviceView>,
    /// What is taken of a device that is shared.
    pub(super) shared: Option<Amounts>,
    pool: usize,
}

/// Why there are no devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There are not enough.
    None,
    /// Something is wrong with what was asked or offered.
    Error(String),
    /// The search took too long.
    TooLong,
}

/// Answers of expressions, which are the same on every node: by where request and device are kept, which is in one place
/// as long as the demand and its inventory live.
#[derive(Debug, Default)]
pub(super) struct Answers(RefCell<HashMap<(usize, usize), Result<bool, String>>>);

impl Answers {
    fn ask(&self, want: &Want, device: &DeviceView) -> Result<bool, String> {
        let key = (std::ptr::from_ref(want).addr(), std::ptr::from_ref(device).addr());
        if let Some(known) = self.0.borrow().get(&key) {
            return known.clone();
        }
        let answer = want.selects(device);
        self.0.borrow_mut().insert(key, answer.clone());
        answer
    }
}

/// A device that a request may get.
struct Candidate<'a> {
    pool: usize,
    slice: &'a SliceView,
    device: &'a Arc<DeviceView>,
}

/// Candidates; an error stands where the search has to stop.
type Candidates<'a> = Rc<Vec<Result<Candidate<'a>, String>>>;

/// What a search looks at.
#[derive(Clone, Copy)]
pub(super) struct Grounds<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) ledger: &'a Ledger,
    pub(super) place: &'a Place<'a>,
    pub(super) answers: &'a Answers,
}

struct Search<'a> {
    claims: &'a [WantedClaim],
    pools: Vec<&'a Pool>,
    place: &'a Place<'a>,
    ledger: &'a Ledger,
    answers: &'a Answers,
    /// When to give up.
    until: Option<Instant>,
    candidates: HashMap<(usize, usize, usize), Candidates<'a>>,
    /// What this search takes.
    taken: HashMap<&'a DeviceId, Usage>,
    chosen: Vec<Vec<Choice<'a>>>,
    /// Counters that are left, by pool.
    counters: HashMap<usize, HashMap<&'a CounterName, Quantity>>,
    steps: usize,
}

/// Finds devices on a node for all claims; the choices of each claim in the order of its requests. A `timeout` of zero
/// means none.
pub(super) fn allocate<'a>(
    claims: &'a [WantedClaim],
    grounds: &Grounds<'a>,
    timeout: Duration,
) -> Result<Vec<Vec<Choice<'a>>>, Failure> {
    let Grounds { inventory, ledger, place, answers } = *grounds;
    let mut search = Search {
        claims,
        pools: inventory.pools_of(place.name),
        place,
        ledger,
        answers,
        until: Some(timeout).filter(|t| !t.is_zero()).and_then(|t| Instant::now().checked_add(t)),
        candidates: HashMap::new(),
        taken: HashMap::new(),
        chosen: claims.iter().map(|_| Vec::new()).collect(),
        counters: HashMap::new(),
        steps: 0,
    };
    if search.request(0, 0)? { Ok(search.chosen) } else { Err(Failure::None) }
}

/// Where the search stands within a request.
#[derive(Clone, Copy)]
struct Slot {
    claim: usize,
    request: usize,
    alternative: usize,
    /// Devices the alternative still needs.
    missing: usize,
    /// The first candidate to look at.
    from: usize,
}

impl<'a> Search<'a> {
    /// Goes on with a request; those before it have their devices.
    fn request(&mut self, claim: usize, request: usize) -> Result<bool, Failure> {
        let Some(wanted) = self.claims.get(claim) else { return Ok(true) };
        let Some(alternatives) = wanted.requests.get(request) else { return self.request(claim + 1, 0) };
        for (alternative, want) in alternatives.iter().enumerate() {
            let candidates = self.candidates(claim, request, alternative);
            let missing = match want.mode {
                Mode::Exactly(count) => count,
                Mode::All => candidates.len(),
            };
            let first_error = || candidates.iter().find_map(|c| c.as_ref().err());
            if want.mode == Mode::All {
                if let Some(error) = first_error() {
                    return Err(Failure::Error(error.clone()));
                }
                if missing == 0 {
                    continue;
                }
            }
            if self.chosen[claim].len() + missing > MAX_DEVICES {
                continue;
            }
            if self.slot(Slot { claim, request, alternative, missing, from: 0 })? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the next device of an alternative, then what comes after it.
    fn slot(&mut self, slot: Slot) -> Result<bool, Failure> {
        if slot.missing == 0 {
            return self.request(slot.claim, slot.request + 1);
        }
        let claims = self.claims;
        let Some(want) = claims.get(slot.claim).and_then(|c| c.requests.get(slot.request)?.get(slot.alternative))
        else {
            return Ok(false);
        };
        let candidates = self.candidates(slot.claim, slot.request, slot.alternative);
        for (at, candidate) in candidates.iter().enumerate().skip(slot.from) {
            self.steps += 1;
            if self.steps > MAX_STEPS
                || self.steps.is_multiple_of(LOOK_EVERY) && self.until.is_some_and(|t| Instant::now() > t)
            {
                return Err(Failure::TooLong);
            }
            let candidate = candidate.as_ref().map_err(|text| Failure::Error(text.clone()))?;
            if let Some(choice) = self.choice(slot, want, candidate) {
                // The same device again can only be one that is shared.
                let from = if candidate.device.shareable && want.mode != Mode::All { at } else { at + 1 };
                self.take(slot.claim, choice);
                if self.slot(Slot { missing: slot.missing - 1, from, ..slot })? {
                    return Ok(true);
                }
                self.give_back(slot.claim);
            }
            if want.mode == Mode::All {
                // Each of them is needed.
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Devices on the node that the expressions of a request select, taken or not.
    fn candidates(&mut self, claim: usize, request: usize, alternative: usize) -> Candidates<'a> {
        let key = (claim, request, alternative);
        if let Some(known) = self.candidates.get(&key) {
            return Rc::clone(known);
        }
        let wanted = &self.claims[claim];
        let want = &wanted.requests[request][alternative];
        let mut found = Vec::new();
        for (at, pool) in self.pools.iter().enumerate() {
            if let Some(reason) = &pool.invalid {
                found.push(Err(format!("pool {} is invalid: {reason}", pool.full_name())));
                continue;
            }
            if pool.is_incomplete {
                if want.mode == Mode::All {
                    found.push(Err(format!(
                        "claim {}, request {}: asks for all devices, but resource pool {} is currently being updated",
                        wanted.key,
                        want.name,
                        pool.full_name()
                    )));
                }
                continue;
            }
            for (slice, device) in pool.devices(self.place) {
                match self.answers.ask(want, device) {
                    Ok(true) => found.push(Ok(Candidate { pool: at, slice, device })),
                    Ok(false) => {}
                    Err(text) => found.push(Err(text)),
                }
            }
        }
        let found = Rc::new(found);
        self.candidates.insert(key, Rc::clone(&found));
        found
    }

    /// The choice of a device, if it can be made.
    fn choice(&mut self, slot: Slot, want: &'a Want, candidate: &Candidate<'a>) -> Option<Choice<'a>> {
        let device = candidate.device;
        let amounts = capacity::consumption(device, &want.capacity)?;
        let shared = device.shareable.then_some(amounts);
        let usage = [self.ledger.usage(&device.id), self.taken.get(&device.id)];
        let is_free = want.admin
            || match &shared {
                Some(amounts) => {
                    usage.iter().flatten().all(|u| u.whole == 0) && capacity::fits(device, amounts, &usage)
                }
                None => usage.iter().flatten().all(|u| u.is_free()),
            };
        let own = || self.chosen[slot.claim].iter().any(|c| c.want.admin && c.device.id == device.id);
        if !is_free || want.admin && own() || !want.tolerates(device) {
            return None;
        }
        if !self.is_constrained(slot.claim, want, device) {
            return None;
        }
        if !want.admin && !self.has_counters(candidate) {
            return None;
        }
        Some(Choice { want, rank: slot.alternative, slice: candidate.slice, device, shared, pool: candidate.pool })
    }

    /// Whether a device goes with those that its claim has already.
    fn is_constrained(&self, claim: usize, want: &Want, device: &DeviceView) -> bool {
        let concerns = self.claims[claim].constraints().iter().filter(|c| want.is_among(c.requests.as_ref()));
        for constraint in concerns {
            let others = self.chosen[claim].iter().filter(|c| c.want.is_among(constraint.requests.as_ref()));
            let (name, same) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
                (Some(name), _) => (name, true),
                (None, Some(name)) => (name, false),
                // A kind of constraint from the future.
                (None, None) => return false,
            };
            let Some(value) = device.attribute(name) else { return false };
            let mut values = others.map(|choice| choice.device.attribute(name));
            if !values.all(|other| other.is_some_and(|other| (other == value) == same)) {
                return false;
            }
        }
        true
    }

    /// Counters of a pool that devices in use leave.
    fn counters(&mut self, pool: usize) -> &mut HashMap<&'a CounterName, Quantity> {
        let (pools, ledger) = (&self.pools, self.ledger);
        self.counters.entry(pool).or_insert_with(|| {
            let pool = pools[pool];
            let mut left: HashMap<&CounterName, Quantity> = pool.counters.iter().map(|(n, q)| (n, *q)).collect();
            let in_use = pool.slices.iter().flat_map(|s| &s.devices).filter(|d| ledger.usage(&d.id).is_some());
            in_use.for_each(|device| count(&mut left, pool, device, |left, used| *left -= used));
            left
        })
    }

    /// Whether the counters that a device needs are left; one that is in use has them already.
    fn has_counters(&mut self, candidate: &Candidate<'a>) -> bool {
        let device = candidate.device;
        if device.consumes.is_empty() || self.is_used(&device.id) {
            return true;
        }
        let left = self.counters(candidate.pool);
        device.consumes.iter().all(|set| {
            set.amounts.iter().all(|(name, needed)| {
                let key = (set.set.clone(), name.clone());
                left.get(&key).is_some_and(|left| *needed <= *left)
            })
        })
    }

    fn is_used(&self, device: &DeviceId) -> bool {
        self.ledger.usage(device).is_some() || self.taken.get(device).is_some_and(|usage| !usage.is_free())
    }

    fn take(&mut self, claim: usize, choice: Choice<'a>) {
        if !choice.want.admin {
            let device = choice.device;
            if !device.consumes.is_empty() && !self.is_used(&device.id) {
                let pool = self.pools[choice.pool];
                count(self.counters(choice.pool), pool, device, |left, used| *left -= used);
            }
            self.taken.entry(&device.id).or_default().take(choice.shared.as_deref());
        }
        self.chosen[claim].push(choice);
    }

    fn give_back(&mut self, claim: usize) {
        let Some(choice) = self.chosen[claim].pop() else { return };
        if choice.want.admin {
            return;
        }
        let device = choice.device;
        if let Some(usage) = self.taken.get_mut(&device.id) {
            usage.give(choice.shared.as_deref());
        }
        if !device.consumes.is_empty() && !self.is_used(&device.id) {
            let pool = self.pools[choice.pool];
            count(self.counters(choice.pool), pool, device, |left, used| *left += used);
        }
    }
}

/// Changes the counters of a pool by what a device needs of them.
fn count<'a>(
    left: &mut HashMap<&'a CounterName, Quantity>,
    pool: &'a Pool,
    device: &DeviceView,
    change: impl Fn(&mut Quantity, Quantity),
) {
    for set in &device.consumes {
        for (name, needed) in &set.amounts {
            if let Some((key, _)) = pool.counters.get_key_value(&(set.set.clone(), name.clone()))
                && let Some(amount) = left.get_mut(key)
            {
                change(amount, *needed);
            }
        }
    }
}
