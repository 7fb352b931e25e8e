//! The text that a kubelet answers with, read for what is of interest.

use std::collections::HashMap;

/// A container: namespace, Pod, name.
pub(crate) type ContainerKey = (String, String, String);

/// What was measured at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    /// Seconds of CPU since the start.
    pub(crate) cpu: f64,
    /// Bytes.
    pub(crate) memory: f64,
    pub(crate) swap: Option<f64>,
    /// Seconds since the epoch; 0 if it is not known.
    pub(crate) started: f64,
}

/// What one kubelet told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) node: Option<Sample>,
    pub(crate) containers: HashMap<ContainerKey, Sample>,
}

/// A sample while its parts come together.
#[derive(Default)]
struct Parts {
    cpu: Option<(f64, i64)>,
    memory: Option<f64>,
    swap: Option<f64>,
    started: f64,
}

impl Parts {
    fn set(&mut self, family: &str, value: f64, at: i64) {
        match family {
            "cpu_usage_seconds_total" => self.cpu = Some((value, at)),
            "memory_working_set_bytes" => self.memory = Some(value),
            "swap_usage_bytes" => self.swap = Some(value),
            "start_time_seconds" => self.started = value,
            _ => {}
        }
    }

    fn sample(&self) -> Option<Sample> {
        let ((cpu, at), memory) = (self.cpu?, self.memory?);
        Some(Sample { at, cpu, memory, swap: self.swap, started: self.started })
    }
}

/// Reads a text; lines that cannot be read are left out. `now` is the time of samples without one.
pub(crate) fn read(text: &str, now: i64) -> Told {
    let mut node = Parts::default();
    let mut containers: HashMap<ContainerKey, Parts> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(rest) = line.strip_prefix("node_") {
            if let Some((family, _, value, at)) = parse(rest) {
                node.set(family, value, at.unwrap_or(now));
            }
        } else if let Some(rest) = line.strip_prefix("container_")
            && let Some((family, labels, value, at)) = parse(rest)
            && let Some(key) = container(&labels)
        {
            containers.entry(key).or_default().set(family, value, at.unwrap_or(now));
        }
    }
    let whole = |(key, parts): (ContainerKey, Parts)| parts.sample().map(|sample| (key, sample));
    Told { node: node.sample(), containers: containers.into_iter().filter_map(whole).collect() }
}

fn container(labels: &[(&str, String)]) -> Option<ContainerKey> {
    let get = |name: &str| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
    Some((get("namespace")?, get("pod")?, get("container")?))
}

type Line<'a> = (&'a str, Vec<(&'a str, String)>, f64, Option<i64>);

/// Name, labels, value and time of a line.
fn parse(line: &str) -> Option<Line<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let mut words = rest.split_ascii_whitespace();
    let value: f64 = words.next()?.parse().ok()?;
    let at = words.next().and_then(|text| text.parse().ok());
    value.is_finite().then_some((name, labels, value, at))
}

/// Reads labels up to the closing brace; what follows it.
fn read_labels<'a>(mut rest: &'a str, labels: &mut Vec<(&'a str, String)>) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name, value));
        rest = quoted.get(end..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_kubelets() {
        let text = "# HELP node_cpu_usage_seconds_total x\n\
            node_cpu_usage_seconds_total 357.35 1700000000000\n\
            node_memory_working_set_bytes 1.5e+08 1700000000000\n\
            container_cpu_usage_seconds_total{container=\"m\",namespace=\"d\",pod=\"p\"} 2.5 1700000001000\n\
            container_memory_working_set_bytes{container=\"m\",namespace=\"d\",pod=\"p\"} 1000 1700000001000\n\
            container_start_time_seconds{container=\"m\",namespace=\"d\",pod=\"p\"} 1.6e9\n\
            container_cpu_usage_seconds_total{container=\"half\",namespace=\"d\",pod=\"p\"} 2.5\n\
            container_cpu_usage_seconds_total{container=\"a\\\"b\",namespace=\"d\"\n\
            container_cpu_usage_seconds_total{ NaN\nnonsense\n\
            pod_cpu_usage_seconds_total{namespace=\"d\",pod=\"p\"} 1\n";
        let told = read(text, 5);
        let node = told.node.expect("a node");
        assert_eq!((node.at, node.cpu, node.memory), (1_700_000_000_000, 357.35, 1.5e8));
        let only: Vec<_> = told.containers.into_iter().collect();
        let expected = Sample { at: 1_700_000_001_000, cpu: 2.5, memory: 1000.0, swap: None, started: 1.6e9 };
        assert_eq!(only, [(("d".to_owned(), "p".to_owned(), "m".to_owned()), expected)]);
        assert_eq!(read("", 5), Told::default());
    }

    #[test]
    fn labels_with_quotes() {
        let (name, labels, value, at) = parse("x{a=\"b\\\"c}\",d=\"\"} 3").expect("a line");
        assert_eq!((name, value, at), ("x", 3.0, None));
        assert_eq!(labels, [("a", "b\"c}".to_owned()), ("d", String::new())]);
        for bad in ["x{a=\"b", "x", "x{} NaN", "x{} +Inf", "x{} a"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
