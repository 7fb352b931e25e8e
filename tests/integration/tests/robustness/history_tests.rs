//! The judge is judged: each kind of lie is found, and the truth is not.

use std::time::Duration;

use super::*;

/// A history that is written down by hand, one moment after the other.
struct Script {
    history: History,
    now: Instant,
}

impl Script {
    fn new() -> Self {
        let now = Instant::now();
        let segment = Segment { from: 1, last: 1, items: BTreeMap::new(), events: Vec::new() };
        Self { history: History { records: Vec::new(), segments: vec![segment] }, now }
    }

    fn asked(mut self, operation: Operation, value: u64, outcome: Outcome) -> Self {
        let start = self.now + Duration::from_secs(1);
        let end = start + Duration::from_secs(1);
        self.now = end;
        self.history.records.push(Record { key: "k".into(), operation, value, start, end, outcome });
        self
    }

    fn seen(mut self, change: Change, version: u64, value: u64) -> Self {
        let segment = &mut self.history.segments[0];
        let key = if change == Change::Bookmark { "" } else { "k" };
        segment.events.push(Event { change, key: key.into(), version, value });
        segment.last = version;
        self
    }

    /// A change of another object that ends the story.
    fn seen_later(mut self, version: u64) -> Self {
        let segment = &mut self.history.segments[0];
        segment.events.push(Event { change: Change::Added, key: "last-0".into(), version, value: 0 });
        segment.last = version;
        self
    }

    /// The beginning of all stories: 2 made, 3 updated.
    fn usual() -> Self {
        Self::new()
            .asked(Operation::Create, 20, Outcome::Wrote(2))
            .asked(Operation::Update { expected: 2 }, 30, Outcome::Wrote(3))
            .seen(Change::Added, 2, 20)
            .seen(Change::Modified, 3, 30)
    }

    fn violations(&self) -> Vec<String> {
        self.history.violations()
    }

    #[track_caller]
    fn lies(&self, part: &str) {
        let wrong = self.violations();
        assert!(wrong.iter().any(|text| text.contains(part)), "{wrong:?}");
    }
}

fn items(version: u64, value: u64) -> BTreeMap<String, (u64, u64)> {
    BTreeMap::from([("k".to_owned(), (version, value))])
}

#[test]
fn the_truth_is_believed() {
    let story = Script::usual()
        .asked(Operation::Get, 1, Outcome::Found(Some((3, 30))))
        .asked(Operation::List, 2, Outcome::Listed(3, items(3, 30)))
        .asked(Operation::Update { expected: 2 }, 40, Outcome::Refused)
        .asked(Operation::Delete { expected: 3 }, 3, Outcome::Deleted)
        .seen(Change::Deleted, 4, 30)
        .asked(Operation::Get, 4, Outcome::Found(None))
        .seen(Change::Bookmark, 4, 0)
        .asked(Operation::Create, 50, Outcome::Unknown)
        .seen(Change::Added, 6, 50);
    assert_eq!(story.violations(), Vec::<String>::new());
}

#[test]
fn lies_are_found() {
    Script::usual().asked(Operation::Get, 1, Outcome::Found(Some((2, 20)))).lies("an object that ended at 3");
    Script::usual().asked(Operation::Get, 1, Outcome::Found(None)).lies("an object not found");
    Script::usual().asked(Operation::List, 1, Outcome::Listed(2, items(2, 20))).lies("a list, which");
    Script::usual().asked(Operation::List, 1, Outcome::Listed(3, BTreeMap::new())).lies("a list at 3 shows k as None");
    let lost =
        Script::usual().asked(Operation::Update { expected: 2 }, 40, Outcome::Wrote(4)).seen(Change::Modified, 4, 40);
    lost.lies("4 Known");
    Script::usual()
        .asked(Operation::Update { expected: 3 }, 40, Outcome::Wrote(4))
        .seen(Change::Modified, 5, 50)
        .lies("lacks 4");
    Script::usual()
        .asked(Operation::Update { expected: 3 }, 40, Outcome::Refused)
        .seen(Change::Modified, 4, 40)
        .lies("is of");
    Script::usual().seen(Change::Modified, 4, 77).lies("nobody wrote 4");
    Script::usual().seen(Change::Modified, 3, 30).lies("after revision 3");
    Script::usual().seen(Change::Bookmark, 9, 0).seen(Change::Deleted, 8, 30).lies("after revision 9");
    Script::usual().asked(Operation::Delete { expected: 3 }, 1, Outcome::Deleted).lies("a deletion at None");
    Script::usual()
        .asked(Operation::Create, 40, Outcome::Wrote(4))
        .seen(Change::Added, 4, 40)
        .lies("before which there was Some((3, 30))");
}

/// The watcher lists again at a revision, with what is there.
fn listed_again(mut story: Script, from: u64, items: BTreeMap<String, (u64, u64)>) -> Script {
    story.history.segments.insert(0, Segment { from, last: from, items, events: Vec::new() });
    story
}

#[test]
fn deletions_may_be_where_nobody_looked() {
    let deleted = || Script::usual().asked(Operation::Delete { expected: 3 }, 3, Outcome::Deleted);
    let made_again = |story: Script| {
        let story = story.asked(Operation::Get, 1, Outcome::Found(None));
        story.asked(Operation::Create, 50, Outcome::Wrote(6)).asked(Operation::Get, 2, Outcome::Found(Some((6, 50))))
    };
    let told = listed_again(made_again(deleted()), 7, items(6, 50));
    assert_eq!(told.violations(), Vec::<String>::new());
    let gone = listed_again(deleted(), 7, BTreeMap::new());
    assert_eq!(gone.seen_later(8).violations(), Vec::<String>::new());

    listed_again(made_again(Script::usual()), 7, items(6, 50)).lies("6 Known");
    listed_again(deleted(), 7, items(3, 30)).seen_later(8).lies("a list before a watch at 7");
    let mut all_seen = made_again(deleted());
    all_seen = all_seen.seen(Change::Added, 6, 50);
    all_seen.lies("6 Known");
}
