//! What clients and watchers were told, and whether one order of events explains all of it.
//!
//! Every change has a revision, so the order is known as soon as the changes are. What remains is to check that it was
//! real: that each answer agrees with the state at some revision between what was over when the request began and what
//! began when the answer was there.

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Included},
    time::Instant,
};

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update { expected: u64 },
    Delete { expected: u64 },
    Get,
    List,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A create or update was acknowledged with this revision.
    Wrote(u64),
    /// A delete was acknowledged.
    Deleted,
    /// Nothing was changed.
    Refused,
    /// Revision and value, or nothing there.
    Found(Option<(u64, u64)>),
    /// Revision of the list, and its objects.
    Listed(u64, BTreeMap<String, (u64, u64)>),
    /// No answer: it has happened, or will, or not.
    Unknown,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) operation: Operation,
    /// What it wanted to write; no other request wants the same.
    pub(super) value: u64,
    pub(super) start: Instant,
    pub(super) end: Instant,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) change: Change,
    pub(super) key: String,
    pub(super) version: u64,
    pub(super) value: u64,
}

/// A list, and what a watcher saw from there on without listing again.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) from: u64,
    pub(super) last: u64,
    pub(super) items: BTreeMap<String, (u64, u64)>,
    pub(super) events: Vec<Event>,
}

/// Everything that was told.
#[derive(Default)]
pub(super) struct History {
    pub(super) records: Vec<Record>,
    pub(super) segments: Vec<Segment>,
}

/// A change as far as somebody was told of it. Deletions have the value that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    key: String,
    value: u64,
    is_deletion: bool,
}

/// A deletion that nobody was shown: every watcher listed again after it. It has one of the revisions from `low` to
/// `high`, if there was one.
struct Hidden {
    low: u64,
    high: u64,
    /// It was acknowledged, or the object was made anew.
    is_certain: bool,
}

/// All known changes, by revision and by key.
#[derive(Default)]
struct Order {
    changes: BTreeMap<u64, Known>,
    by_key: HashMap<String, BTreeMap<u64, (u64, bool)>>,
    /// By the revision of the object that was deleted.
    hidden: HashMap<u64, Hidden>,
}

impl Order {
    fn add(&mut self, version: u64, known: Known, wrong: &mut Vec<String>) {
        self.by_key.entry(known.key.clone()).or_default().insert(version, (known.value, known.is_deletion));
        if let Some(other) = self.changes.insert(version, known.clone())
            && other != known
        {
            wrong.push(format!("revision {version} is told as {other:?} and as {known:?}"));
        }
    }

    /// The next change of a key.
    fn after(&self, key: &str, version: u64) -> Option<(u64, bool)> {
        let (at, (_, is_deletion)) = self.by_key.get(key)?.range(version + 1..).next()?;
        Some((*at, *is_deletion))
    }

    /// The next change of a key, if it is a deletion: its first and last possible revision.
    fn deletion_after(&self, key: &str, version: u64) -> Option<(u64, u64)> {
        match self.hidden.get(&version) {
            Some(Hidden { low, high, .. }) => Some((*low, *high)),
            None => self.after(key, version).filter(|(_, is_deletion)| *is_deletion).map(|(at, _)| (at, at)),
        }
    }

    /// The last revision at which a key can still have had the object of a revision.
    fn end_of(&self, key: &str, version: u64) -> u64 {
        let hidden = self.hidden.get(&version).filter(|hidden| hidden.is_certain).map(|hidden| hidden.high);
        hidden.or(self.after(key, version).map(|(at, _)| at)).unwrap_or(u64::MAX)
    }

    /// Whether a key can have had this object, or none, at a revision.
    fn fits(&self, key: &str, version: u64, told: Option<(u64, u64)>) -> bool {
        let there = self.at(key, version);
        match there.and_then(|(at, _)| self.hidden.get(&at)) {
            Some(hidden) if version >= hidden.high && hidden.is_certain => told.is_none(),
            Some(hidden) if version >= hidden.low => told.is_none() || told == there,
            _ => told == there,
        }
    }

    /// The object of a key at a revision.
    fn at(&self, key: &str, version: u64) -> Option<(u64, u64)> {
        let (at, (value, is_deletion)) = self.by_key.get(key)?.range(..=version).next_back()?;
        (!is_deletion).then_some((*at, *value))
    }

    /// Whether a key has no object at some revision from `low` to `high`.
    fn is_absent_between(&self, key: &str, low: u64, high: u64) -> bool {
        let Some(changes) = self.by_key.get(key).filter(|_| low <= high) else { return low <= high };
        let ends = |at: &u64| self.hidden.get(at).is_some_and(|hidden| hidden.low <= high);
        self.at(key, low).is_none_or(|(at, _)| ends(&at))
            || changes.range(low..=high).any(|(at, (_, is_deletion))| *is_deletion || ends(at))
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        self.by_key.keys()
    }
}

/// The revisions that time leaves for a request.
struct Window {
    /// Somebody was told of this one before the request began.
    low: u64,
    /// This one was not asked for when the answer was there.
    high: u64,
}

impl History {
    /// Everything that no order of events explains.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut order = self.order(&mut wrong);
        self.find_hidden(&mut order);
        self.check_segments(&order, &mut wrong);
        self.check_origins(&order, &mut wrong);
        let times = Times::new(self, &order);
        for record in &self.records {
            self.check_record(record, &order, &times.window(record), &mut wrong);
        }
        wrong
    }

    /// All changes that somebody was told of.
    fn order(&self, wrong: &mut Vec<String>) -> Order {
        let mut order = Order::default();
        let object = |key: &str, value| Known { key: key.to_owned(), value, is_deletion: false };
        for record in &self.records {
            match &record.outcome {
                Outcome::Wrote(version) => order.add(*version, object(&record.key, record.value), wrong),
                Outcome::Found(Some((version, value))) => order.add(*version, object(&record.key, *value), wrong),
                Outcome::Listed(_, items) => {
                    items.iter().for_each(|(key, (version, value))| order.add(*version, object(key, *value), wrong));
                }
                _ => {}
            }
        }
        for segment in &self.segments {
            segment.items.iter().for_each(|(key, (version, value))| order.add(*version, object(key, *value), wrong));
            for event in segment.events.iter().filter(|event| event.change != Change::Bookmark) {
                let is_deletion = event.change == Change::Deleted;
                order.add(event.version, Known { is_deletion, ..object(&event.key, event.value) }, wrong);
            }
        }
        order
    }

    /// Finds the deletions that fit between what was shown: of objects that somebody wanted to delete, at revisions that
    /// no watcher has covered.
    fn find_hidden(&self, order: &mut Order) {
        let made_by: HashMap<u64, Operation> = self.records.iter().map(|r| (r.value, r.operation)).collect();
        let most = order.changes.keys().next_back().copied().unwrap_or(0);
        for record in &self.records {
            let Operation::Delete { expected } = record.operation else { continue };
            if record.outcome == Outcome::Refused || !order.changes.contains_key(&expected) {
                continue;
            }
            let next = order.by_key[&record.key].range(expected + 1..).next();
            if next.is_some_and(|(_, (_, is_deletion))| *is_deletion) {
                continue;
            }
            let is_remade = next.is_some_and(|(_, (value, _))| made_by.get(value) == Some(&Operation::Create));
            let end = next.map_or(most + 1, |(at, _)| *at);
            let covered = |at: &u64| self.segments.iter().any(|s| s.from < *at && *at <= s.last);
            let mut free = (expected + 1..end).filter(|at| !order.changes.contains_key(at) && !covered(at));
            if let Some(low) = free.next().filter(|_| is_remade || next.is_none()) {
                let high = free.next_back().unwrap_or(low);
                let is_certain = is_remade || record.outcome == Outcome::Deleted;
                let hidden = order.hidden.entry(expected).or_insert(Hidden { low, high, is_certain });
                hidden.is_certain |= is_certain;
            }
        }
    }

    /// Watches: ordered, unique, complete, and true to what was there before.
    fn check_segments(&self, order: &Order, wrong: &mut Vec<String>) {
        for segment in &self.segments {
            check_state(order, segment.from, &segment.items, "a list before a watch", wrong);
            let mut seen = segment.from;
            for event in &segment.events {
                let is_late =
                    if event.change == Change::Bookmark { event.version < seen } else { event.version <= seen };
                if is_late {
                    wrong.push(format!("a watch shows {event:?} after revision {seen}"));
                }
                seen = event.version;
                let before = event.version.saturating_sub(1);
                let there = order.at(&event.key, before);
                let fits = match event.change {
                    Change::Bookmark => true,
                    Change::Added => order.fits(&event.key, before, None),
                    Change::Modified | Change::Deleted => there.is_some() && order.fits(&event.key, before, there),
                };
                if !fits {
                    wrong.push(format!("a watch shows {event:?}, before which there was {there:?}"));
                }
            }
            let changes = segment.events.iter().filter(|event| event.change != Change::Bookmark);
            let told: HashMap<u64, &Event> = changes.map(|event| (event.version, event)).collect();
            for (version, known) in
                order.changes.range((Excluded(segment.from), Included(segment.last.max(segment.from))))
            {
                if told.get(version).is_none_or(|event| event.key != known.key) {
                    let after = segment.events.partition_point(|event| event.version < *version);
                    let around = segment.events.get(after.saturating_sub(1)..).unwrap_or_default();
                    let around = around.get(..2).unwrap_or(around);
                    let Segment { from, last, .. } = segment;
                    wrong.push(format!("a watch from {from} to {last} lacks {version} {known:?} in {around:?}"));
                }
            }
        }
    }

    /// Every change was asked for, by one request that was not refused, and replaced what that request knew.
    fn check_origins(&self, order: &Order, wrong: &mut Vec<String>) {
        let by_value: HashMap<u64, &Record> = self.records.iter().map(|record| (record.value, record)).collect();
        let mut before: HashMap<&str, (u64, bool)> = HashMap::new();
        for (version, known) in &order.changes {
            let previous = before.insert(&known.key, (*version, known.is_deletion));
            if known.is_deletion || known.key.starts_with("last-") {
                continue;
            }
            let Some(origin) = by_value.get(&known.value) else {
                wrong.push(format!("nobody wrote {version} {known:?}"));
                continue;
            };
            let expected = match origin.operation {
                Operation::Create => previous.is_none_or(|(at, gone)| gone || order.hidden.contains_key(&at)),
                Operation::Update { expected } => previous == Some((expected, false)),
                _ => false,
            };
            let told = match origin.outcome {
                Outcome::Wrote(told) => told == *version,
                Outcome::Unknown => true,
                _ => false,
            };
            if !expected || !told {
                wrong.push(format!("{version} {known:?} after {previous:?} is of {origin:?}"));
            }
        }
    }

    fn check_record(&self, record: &Record, order: &Order, window: &Window, wrong: &mut Vec<String>) {
        let Window { low, high } = *window;
        let mut check = |fits: bool, what: &str| {
            if !fits {
                wrong.push(format!("{what}, which only revisions from {low} to below {high} can explain: {record:?}"));
            }
        };
        match &record.outcome {
            Outcome::Wrote(version) => check(*version > low && *version < high, "a write"),
            Outcome::Deleted => {
                let Operation::Delete { expected } = record.operation else { return };
                let deletion = order.deletion_after(&record.key, expected);
                let fits = deletion.is_some_and(|(first, last)| first.max(low + 1) <= last.min(high - 1));
                check(fits, &format!("a deletion at {deletion:?}"));
            }
            Outcome::Found(Some((version, _))) => {
                let over = order.end_of(&record.key, *version);
                check(over > low && *version < high, &format!("an object that ended at {over}"));
            }
            Outcome::Found(None) => {
                check(order.is_absent_between(&record.key, low, high.saturating_sub(1)), "an object not found");
            }
            Outcome::Listed(version, items) => {
                check(*version >= low && *version < high, "a list");
                check_state(order, *version, items, "a list", wrong);
            }
            Outcome::Refused | Outcome::Unknown => {}
        }
    }

    /// Whether enough has happened to say something.
    pub(super) fn is_telling(&self) -> bool {
        let count = |test: fn(&Outcome) -> bool| self.records.iter().filter(|record| test(&record.outcome)).count();
        count(|outcome| matches!(outcome, Outcome::Wrote(_))) > 20
            && count(|outcome| *outcome == Outcome::Deleted) > 3
            && count(|outcome| matches!(outcome, Outcome::Found(_) | Outcome::Listed(..))) > 20
    }

    /// What has happened, in numbers.
    pub(super) fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &self.records {
            let name = match record.outcome {
                Outcome::Wrote(_) => "writes",
                Outcome::Deleted => "deletions",
                Outcome::Refused => "refusals",
                Outcome::Found(_) => "reads",
                Outcome::Listed(..) => "lists",
                Outcome::Unknown => "unanswered",
            };
            *counts.entry(name).or_default() += 1;
        }
        let events: usize = self.segments.iter().map(|segment| segment.events.len()).sum();
        let mut text = format!("{} segments, {events} events", self.segments.len());
        text.extend(counts.into_iter().map(|(name, count)| format!(", {count} {name}")));
        text
    }
}

/// A list shows exactly what was there at its revision.
fn check_state(order: &Order, version: u64, items: &BTreeMap<String, (u64, u64)>, what: &str, wrong: &mut Vec<String>) {
    for key in order.keys() {
        let told = items.get(key).copied();
        if !order.fits(key, version, told) {
            let there = order.at(key, version);
            wrong.push(format!("{what} at {version} shows {key} as {told:?}, not as {there:?}"));
        }
    }
}

/// Who knew which revision when.
struct Times {
    /// Revisions that answers told of, growing with time.
    told: Vec<(Instant, u64)>,
    /// Revisions of writes by the time they were asked for, each the least of all later ones.
    asked: Vec<(Instant, u64)>,
}

impl Times {
    fn new(history: &History, order: &Order) -> Self {
        let applied: HashMap<u64, u64> = order
            .changes
            .iter()
            .filter(|(_, known)| !known.is_deletion)
            .map(|(at, known)| (known.value, *at))
            .collect();
        let (mut told, mut asked) = (Vec::new(), Vec::new());
        for record in &history.records {
            let written = match (&record.outcome, record.operation) {
                (Outcome::Deleted, Operation::Delete { expected }) => {
                    // Of one that nobody was shown, the revision is not known.
                    order.deletion_after(&record.key, expected).filter(|(low, high)| low == high).map(|(at, _)| at)
                }
                _ => applied.get(&record.value).copied(),
            };
            asked.extend(written.map(|version| (record.start, version)));
            let known = match &record.outcome {
                Outcome::Wrote(version) | Outcome::Found(Some((version, _))) | Outcome::Listed(version, _) => {
                    Some(*version)
                }
                Outcome::Deleted => written,
                _ => None,
            };
            told.extend(known.map(|version| (record.end, version)));
        }
        told.sort();
        asked.sort();
        let mut most = 0;
        for (_, version) in &mut told {
            most = most.max(*version);
            *version = most;
        }
        let mut least = u64::MAX;
        for (_, version) in asked.iter_mut().rev() {
            least = least.min(*version);
            *version = least;
        }
        Self { told, asked }
    }

    fn window(&self, record: &Record) -> Window {
        let over = self.told.partition_point(|(end, _)| *end < record.start);
        let begun = self.asked.partition_point(|(start, _)| *start <= record.end);
        Window {
            low: over.checked_sub(1).and_then(|at| self.told.get(at)).map_or(0, |(_, version)| *version),
            high: self.asked.get(begun).map_or(u64::MAX, |(_, version)| *version),
        }
    }
}
