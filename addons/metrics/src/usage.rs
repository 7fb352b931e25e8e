//! What nodes and containers use: rates between the last two samples of each.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::exposition::{ContainerKey, Sample, Told};

/// Youngest container whose start counts as a sample.
const FRESH: Duration = Duration::from_secs(10);

/// Usage over a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// End of the time, milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) window: Duration,
    /// Billionths of a core.
    pub(crate) cpu: u64,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) swap: Option<u64>,
}

/// The last sample, and one before it.
#[derive(Clone, Copy, Debug)]
struct Pair {
    last: Sample,
    /// Time and CPU.
    before: Option<(i64, f64)>,
}

impl Pair {
    /// A first sample. The start of a container that is young is as good as a sample.
    fn first(sample: Sample, resolution: Duration) -> Self {
        Self { last: sample, before: start(&sample, millis(resolution) * 2) }
    }

    fn next(self, sample: Sample, resolution: Duration) -> Self {
        if sample.at <= self.last.at {
            return self;
        }
        if sample.cpu < self.last.cpu || sample.started * 1000.0 > self.last.at as f64 {
            // It began anew.
            return Self::first(sample, resolution);
        }
        Self { last: sample, before: Some((self.last.at, self.last.cpu)) }
    }

    fn usage(&self) -> Option<Usage> {
        let (at, cpu) = self.before?;
        let window = Duration::from_millis(u64::try_from(self.last.at - at).ok().filter(|ms| *ms > 0)?);
        let cores = (self.last.cpu - cpu).max(0.0) / window.as_secs_f64();
        Some(Usage {
            at: self.last.at,
            window,
            cpu: whole(cores * 1e9),
            memory: whole(self.last.memory),
            swap: self.last.swap.map(whole),
        })
    }
}

/// The start of what was sampled, if it is between [`FRESH`] and `oldest` milliseconds ago.
fn start(sample: &Sample, oldest: i64) -> Option<(i64, f64)> {
    let started = (sample.started * 1000.0) as i64;
    let age = sample.at - started;
    (started > 0 && age >= millis(FRESH) && age <= oldest).then_some((started, 0.0))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

fn whole(number: f64) -> u64 {
    // A conversion of floats saturates.
    number as u64
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Record {
    node: Option<Pair>,
    containers: HashMap<ContainerKey, Pair>,
}

/// A Pod's containers by name.
pub(crate) type Containers = BTreeMap<String, Usage>;

/// What is known of all nodes.
#[derive(Debug)]
pub(crate) struct Book {
    resolution: Duration,
    records: HashMap<String, Record>,
}

impl Book {
    pub(crate) fn new(resolution: Duration) -> Self {
        Self { resolution, records: HashMap::new() }
    }

    /// Takes in what a kubelet told.
    pub(crate) fn take(&mut self, node: &str, told: Told) {
        let (record, resolution) = (self.records.entry(node.to_owned()).or_default(), self.resolution);
        let merged = |old: Option<Pair>, sample| match old {
            Some(pair) => pair.next(sample, resolution),
            None => Pair::first(sample, resolution),
        };
        record.node = told.node.map(|sample| merged(record.node, sample));
        let mut before = std::mem::take(&mut record.containers);
        let containers = told.containers.into_iter().map(|(key, sample)| {
            let old = before.remove(&key);
            (key, merged(old, sample))
        });
        record.containers = containers.collect();
    }

    /// Forgets the nodes that `known` does not know.
    pub(crate) fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.records.retain(|node, _| known(node));
    }

    /// Forgets what a kubelet told: it does not answer.
    pub(crate) fn forget(&mut self, node: &str) {
        self.records.remove(node);
    }

    /// Usage of a node.
    pub(crate) fn node(&self, name: &str) -> Option<Usage> {
        self.records.get(name)?.node?.usage()
    }

    /// Pods of a namespace, or of all if it is `None`, of which all containers are known.
    pub(crate) fn pods(&self, namespace: Option<&str>) -> BTreeMap<(String, String), Containers> {
        let mut pods: BTreeMap<(String, String), Option<Containers>> = BTreeMap::new();
        for (key, pair) in self.records.values().flat_map(|record| &record.containers) {
            let (of, pod, container) = key;
            if namespace.is_some_and(|wanted| wanted != of) {
                continue;
            }
            let entry = pods.entry((of.clone(), pod.clone())).or_insert_with(|| Some(Containers::new()));
            match (pair.usage(), entry.as_mut()) {
                (Some(usage), Some(all)) => {
                    all.insert(container.clone(), usage);
                }
                _ => *entry = None,
            }
        }
        pods.into_iter().filter_map(|(key, containers)| Some((key, containers?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: i64, cpu: f64, started: f64) -> Told {
        let sample = Sample { at, cpu, memory: 100.0, swap: None, started };
        Told { node: Some(sample), containers: [(("d".into(), "p".into(), "c".into()), sample)].into() }
    }

    fn cores(book: &Book) -> Option<f64> {
        let pods = book.pods(Some("d"));
        let usage = pods.get(&("d".to_owned(), "p".to_owned()))?.get("c")?;
        Some(usage.cpu as f64 / 1e9)
    }

    #[test]
    fn rates_of_two_samples() {
        let mut book = Book::new(Duration::from_secs(15));
        book.take("n", told(100_000, 10.0, 1.0));
        assert_eq!((cores(&book), book.node("n")), (None, None));
        book.take("n", told(115_000, 17.5, 1.0));
        assert_eq!(cores(&book), Some(0.5));
        let node = book.node("n").expect("usage");
        assert_eq!((node.at, node.window, node.memory), (115_000, Duration::from_secs(15), 100));
        book.take("n", told(115_000, 17.5, 1.0));
        assert_eq!(cores(&book), Some(0.5), "a sample that was seen");
        assert!(book.pods(Some("other")).is_empty());
        assert_eq!(book.pods(None).len(), 1);
        book.forget("n");
        assert_eq!(cores(&book), None);
    }

    #[test]
    fn young_containers_and_new_beginnings() {
        let mut book = Book::new(Duration::from_secs(15));
        book.take("n", told(120_000, 5.0, 100.0));
        assert_eq!(cores(&book), Some(0.25), "20 s old");
        book.take("n", told(135_000, 1.0, 134.0));
        assert_eq!(cores(&book), None, "too young");
        book.take("n", told(150_000, 16.0, 134.0));
        assert_eq!(cores(&book), Some(1.0));
    }

    #[test]
    fn pods_with_an_unknown_container_are_left_out() {
        let mut book = Book::new(Duration::from_secs(15));
        book.take("n", told(100_000, 10.0, 1.0));
        let mut more = told(115_000, 17.5, 1.0);
        let sample = Sample { at: 115_000, ..Sample::default() };
        more.containers.insert(("d".into(), "p".into(), "late".into()), sample);
        book.take("n", more);
        assert!(book.pods(None).is_empty());
    }
}
