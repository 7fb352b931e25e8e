//! Fair queuing of the requests of one priority level: seats, queues, and whose turn it is.
//!
//! Time is virtual: it moves by the seats that each busy queue gets, so that a queue that asks for more than its part
//! falls behind the others. Real time is an argument.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::oneshot;

use super::{
    demand::{Integrator, Stats},
    details::Details,
    estimate::Work,
};

/// How long a request is taken to run until it has run, seconds.
pub(super) const GUESS: f64 = 0.003;
/// Queues that are kept at most, whatever the configuration says.
const MOST_QUEUES: usize = 1 << 16;
/// Queues in a hand at most: hands of more than that use up the hash.
const MOST_CARDS: usize = 64;

/// How requests wait that find no seat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queuing {
    /// Number of queues; 0 if requests do not wait.
    pub(super) queues: usize,
    /// Queues that one flow is spread over.
    pub(super) hand: usize,
    /// Requests that wait in one queue at most.
    pub(super) length: usize,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// There is no seat, and the level has no queues.
    NoSeat,
    /// It has waited too long.
    TimeOut,
}

impl Refusal {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::NoSeat => "concurrency-limit",
            Self::TimeOut => "time-out",
        }
    }
}

/// What becomes of a request that arrives. The number names the request from then on.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It may run.
    Runs(usize),
    /// It waits until the receiver is told.
    Waits(usize, oneshot::Receiver<()>),
    /// It is refused.
    Refused(Refusal),
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The entry is not in use.
    Free,
    /// It waits in its queue.
    Waits,
    /// It runs.
    Runs,
    /// It has run, and holds seats for what follows from it.
    Lingers,
}

/// A request of the level. Entries are used again, with the memory of their texts.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    pub(super) queue: Option<usize>,
    pub(super) work: Work,
    pub(super) arrived: Duration,
    pub(super) started: Duration,
    arrived_virtual: f64,
    wake: Option<oneshot::Sender<()>>,
    pub(super) details: Details,
}

/// Requests of some flows, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<usize>,
    pub(super) running: usize,
    pub(super) seats: u32,
    /// Virtual time at which its next request begins.
    pub(super) next: f64,
}

/// The requests of a level.
#[derive(Debug)]
pub(super) struct Queues {
    /// Seats there are; `None` if there is no bound.
    limit: Option<u32>,
    queuing: Queuing,
    pub(super) queues: Vec<Queue>,
    pub(super) entries: Vec<Entry>,
    free: Vec<usize>,
    /// Virtual time, seat seconds.
    time: f64,
    updated: Duration,
    last_served: usize,
    busy: usize,
    pub(super) waiting: usize,
    pub(super) running: usize,
    /// Seats that are taken.
    pub(super) seats: u32,
    waiting_seats: u32,
    demand: Integrator,
    pub(super) totals: Totals,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
}

/// What a request leaves behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Finished {
    /// How long it ran.
    pub(super) ran: Duration,
    /// How long seats stay taken; [`Queues::release`] gives them back.
    pub(super) lingers: Option<Duration>,
}

/// Deals a hand of queues to a flow: the same hand to the same hash, and different hands to most others.
pub(super) fn deal(mut hash: u64, queues: usize, hand: usize, mut card: impl FnMut(usize)) {
    let mut dealt = [0_usize; MOST_CARDS];
    let hand = hand.min(queues).min(MOST_CARDS);
    for at in 0..hand {
        let left = (queues - at) as u64;
        let mut queue = (hash % left) as usize;
        hash /= left;
        // `dealt` is in rising order: each card at or below moves this one up.
        let mut place = 0;
        while place < at && dealt[place] <= queue {
            queue += 1;
            place += 1;
        }
        dealt.copy_within(place..at, place + 1);
        dealt[place] = queue;
        card(queue);
    }
}

impl Queues {
    pub(super) fn new(now: Duration, limit: Option<u32>, queuing: Queuing) -> Self {
        let mut queues = Self {
            limit,
            queuing: Queuing::default(),
            queues: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            time: 0.0,
            updated: now,
            last_served: 0,
            busy: 0,
            waiting: 0,
            running: 0,
            seats: 0,
            waiting_seats: 0,
            demand: Integrator::new(now),
            totals: Totals::default(),
        };
        queues.set_queuing(queuing);
        queues
    }

    /// Another shape. Queues that are too many go when they are empty.
    pub(super) fn set_queuing(&mut self, queuing: Queuing) {
        let queues = queuing.queues.min(MOST_QUEUES);
        self.queuing = Queuing { queues, hand: queuing.hand.clamp(1, MOST_CARDS), ..queuing };
        if self.queues.len() < queues {
            self.queues.resize_with(queues, Queue::default);
        }
        self.drop_queues();
    }

    fn drop_queues(&mut self) {
        while self.queues.len() > self.queuing.queues
            && self.queues.last().is_some_and(|queue| queue.waiting.is_empty() && queue.running == 0)
        {
            self.queues.pop();
        }
    }

    /// Another number of seats.
    pub(super) fn set_limit(&mut self, now: Duration, limit: Option<u32>) {
        self.advance(now);
        self.limit = limit;
        self.dispatch(now);
    }

    pub(super) fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// What was wanted since the last call.
    pub(super) fn take_demand(&mut self, now: Duration) -> Stats {
        self.demand.take(now)
    }

    /// Whether nothing waits, runs or lingers.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0 && self.seats == 0
    }

    /// Moves virtual time: each busy queue gets the same part of the seats in use.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.updated).as_secs_f64();
        self.updated = self.updated.max(now);
        if self.busy == 0 {
            self.time = 0.0;
            return;
        }
        let wanted = self.seats + self.waiting_seats;
        let used = self.limit.map_or(wanted, |limit| wanted.min(limit));
        self.time += passed * f64::from(used) / self.busy as f64;
    }

    fn has_seats(&self, seats: u32) -> bool {
        match self.limit {
            None => true,
            // What needs more than there is runs alone.
            Some(limit) if seats > limit => self.seats == 0 && limit > 0,
            Some(limit) => self.seats + seats <= limit,
        }
    }

    fn count_demand(&mut self, now: Duration) {
        self.demand.set(now, f64::from(self.seats + self.waiting_seats));
    }

    /// A request arrives. `hash` is that of its flow, `fill` writes down what it is.
    pub(super) fn arrive(&mut self, now: Duration, work: Work, hash: u64, fill: impl FnOnce(&mut Details)) -> Arrival {
        self.advance(now);
        let fits = self.waiting == 0 && self.has_seats(work.most_seats());
        if self.limit.is_none() || self.queuing.queues == 0 {
            if !fits {
                self.totals.rejected += 1;
                return Arrival::Refused(Refusal::NoSeat);
            }
            let slot = self.enter(now, work, None, fill);
            self.begin(slot, now);
            return Arrival::Runs(slot);
        }
        let queue = self.choose(hash);
        if !fits && self.queues[queue].waiting.len() >= self.queuing.length {
            self.totals.rejected += 1;
            return Arrival::Refused(Refusal::QueueFull);
        }
        let slot = self.enter(now, work, Some(queue), fill);
        if fits {
            self.begin(slot, now);
            return Arrival::Runs(slot);
        }
        let (wake, woken) = oneshot::channel();
        self.entries[slot].wake = Some(wake);
        self.queues[queue].waiting.push_back(slot);
        self.waiting += 1;
        self.waiting_seats += work.most_seats();
        self.count_demand(now);
        self.dispatch(now);
        Arrival::Waits(slot, woken)
    }

    /// The queue of the hand with the least to do.
    fn choose(&self, hash: u64) -> usize {
        let (mut best, mut least) = (0, f64::INFINITY);
        deal(hash, self.queuing.queues, self.queuing.hand, |index| {
            let queue = &self.queues[index];
            let waiting: f64 = queue.waiting.iter().map(|slot| self.entries[*slot].work.total(GUESS)).sum();
            let load = waiting + f64::from(queue.seats) * GUESS;
            if load < least {
                (best, least) = (index, load);
            }
        });
        best
    }

    fn enter(&mut self, now: Duration, work: Work, queue: Option<usize>, fill: impl FnOnce(&mut Details)) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                phase: Phase::Free,
                queue: None,
                work,
                arrived: now,
                started: now,
                arrived_virtual: 0.0,
                wake: None,
                details: Details::default(),
            });
            self.entries.len() - 1
        });
        let time = self.time;
        if let Some(index) = queue {
            let queue = &mut self.queues[index];
            if queue.waiting.is_empty() && queue.running == 0 {
                queue.next = time;
                self.busy += 1;
            }
        }
        let entry = &mut self.entries[slot];
        (entry.phase, entry.queue, entry.work) = (Phase::Waits, queue, work);
        (entry.arrived, entry.arrived_virtual) = (now, time);
        fill(&mut entry.details);
        slot
    }

    /// Gives a request its seats. It is in no queue any more.
    fn begin(&mut self, slot: usize, now: Duration) {
        let entry = &mut self.entries[slot];
        (entry.phase, entry.started) = (Phase::Runs, now);
        let (work, queue) = (entry.work, entry.queue);
        self.seats += work.most_seats();
        self.running += 1;
        self.totals.dispatched += 1;
        if let Some(queue) = queue.and_then(|index| self.queues.get_mut(index)) {
            queue.running += 1;
            queue.seats += work.most_seats();
            queue.next += work.total(GUESS);
        }
        self.count_demand(now);
    }

    /// Lets requests run that wait, as far as there are seats.
    fn dispatch(&mut self, now: Duration) {
        while self.waiting > 0 {
            let Some(index) = self.next_queue() else { return };
            let Some(&slot) = self.queues[index].waiting.front() else { return };
            let seats = self.entries[slot].work.most_seats();
            // Nobody overtakes a request that needs many seats: it would wait for ever.
            if !self.has_seats(seats) {
                return;
            }
            self.queues[index].waiting.pop_front();
            self.last_served = index;
            self.waiting -= 1;
            self.waiting_seats -= seats;
            self.begin(slot, now);
            self.bound(index);
            if let Some(wake) = self.entries[slot].wake.take() {
                // If its client is gone its ticket gives the seats back.
                let _gone = wake.send(()).is_err();
            }
        }
    }

    /// The queue whose first request would end first; those that were not served for the longest time win ties.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let (mut best, mut least) = (None, f64::INFINITY);
        for offset in 1..=count {
            let index = (self.last_served + offset) % count;
            let queue = &self.queues[index];
            let Some(&slot) = queue.waiting.front() else { continue };
            let ends = queue.next + self.entries[slot].work.initial(GUESS);
            if ends < least {
                (best, least) = (Some(index), ends);
            }
        }
        best
    }

    /// A request does not begin before it came, in virtual time too: a queue that does not use its part saves nothing.
    fn bound(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if let Some(&slot) = queue.waiting.front() {
            queue.next = queue.next.max(self.entries[slot].arrived_virtual);
        }
    }

    /// A request has run.
    pub(super) fn finish(&mut self, slot: usize, now: Duration) -> Finished {
        self.advance(now);
        let entry = &mut self.entries[slot];
        let (work, queue) = (entry.work, entry.queue);
        let ran = now.saturating_sub(entry.started);
        let lingers = work.lingers();
        entry.phase = if lingers.is_some() { Phase::Lingers } else { Phase::Free };
        let kept = if lingers.is_some() { work.final_seats } else { 0 };
        let freed = work.most_seats() - kept;
        self.seats -= freed;
        self.running -= 1;
        if let Some(index) = queue {
            let queue = &mut self.queues[index];
            queue.seats -= freed;
            queue.next -= (GUESS - ran.as_secs_f64()) * f64::from(work.initial_seats);
            self.bound(index);
        }
        if lingers.is_none() {
            self.leave(slot);
        }
        self.count_demand(now);
        self.dispatch(now);
        Finished { ran, lingers }
    }

    /// What followed from a request that had run is over.
    pub(super) fn release(&mut self, slot: usize, now: Duration) {
        self.advance(now);
        let (work, queue) = (self.entries[slot].work, self.entries[slot].queue);
        self.seats -= work.final_seats;
        if let Some(index) = queue {
            self.queues[index].seats -= work.final_seats;
        }
        self.leave(slot);
        self.count_demand(now);
        self.dispatch(now);
    }

    /// A request that had seats is forgotten.
    fn leave(&mut self, slot: usize) {
        if let Some(index) = self.entries[slot].queue {
            self.queues[index].running -= 1;
        }
        self.forget(slot);
    }

    fn forget(&mut self, slot: usize) {
        let entry = &mut self.entries[slot];
        entry.phase = Phase::Free;
        let queue = entry.queue.take();
        self.free.push(slot);
        if let Some(queue) = queue.and_then(|index| self.queues.get(index))
            && queue.waiting.is_empty()
            && queue.running == 0
        {
            self.busy -= 1;
            self.drop_queues();
        }
    }

    /// A request stops waiting, because of `why` or because its client is gone. False if it runs already.
    pub(super) fn withdraw(&mut self, slot: usize, now: Duration, why: Option<Refusal>) -> bool {
        if self.entries[slot].phase != Phase::Waits {
            return false;
        }
        self.advance(now);
        match why {
            Some(_) => self.totals.timed_out += 1,
            None => self.totals.cancelled += 1,
        }
        if let Some(index) = self.entries[slot].queue {
            self.queues[index].waiting.retain(|other| *other != slot);
        }
        self.waiting -= 1;
        self.waiting_seats -= self.entries[slot].work.most_seats();
        self.entries[slot].wake = None;
        self.forget(slot);
        self.count_demand(now);
        self.dispatch(now);
        true
    }

    /// Requests that wait in a queue.
    pub(super) fn length(&self, slot: usize) -> usize {
        self.entries[slot].queue.and_then(|index| self.queues.get(index)).map_or(0, |queue| queue.waiting.len())
    }
}
