//! What the log says of work that took too long: its steps, those that took more than their share.

use std::{
    fmt::Write,
    time::{Duration, Instant, SystemTime},
};

use time::OffsetDateTime;

use crate::span::{Attribute, Attributes, Item, Node};

/// Verbosity from which on every step is told.
const ALL: i32 = 4;

/// The whole text about a piece of work that has ended.
pub(crate) fn text(node: &Node, threshold: Duration) -> String {
    let number = rand::random::<u32>() >> 1;
    let took = node.ended().saturating_duration_since(node.start);
    let course = node.course.lock();
    let mut out = format!(
        "Trace[{number}]: {:?} {}({}) (total time: {}ms):",
        node.name,
        fields(&course.attributes),
        date(node.began),
        took.as_millis()
    );
    let share = share(threshold, course.items.len());
    items(&mut out, node, &course.items, &format!("\nTrace[{number}]: "), share);
    let shown = runtime::flags::format_duration(took);
    // Writing to a string does not fail.
    write!(out, "\nTrace[{number}]: [{shown}] [{shown}] END").unwrap_or_default();
    out
}

/// Time from which on a step is worth telling.
fn share(threshold: Duration, items: usize) -> Duration {
    threshold / u32::try_from(items + 1).unwrap_or(u32::MAX)
}

fn items(out: &mut String, node: &Node, all: &[Item], lead: &str, share: Duration) {
    let mut last = node.start;
    for item in all {
        match item {
            Item::Step { at, text, attributes } => {
                let took = at.saturating_duration_since(last);
                if took >= share || runtime::logging::verbosity() >= ALL {
                    write!(out, "{lead}---{}", summary(text, attributes, took, node.wall(*at))).unwrap_or_default();
                }
                last = *at;
            }
            Item::Child(child) => {
                last = child_text(out, child, lead, share);
            }
        }
    }
}

fn child_text(out: &mut String, child: &Node, lead: &str, share: Duration) -> Instant {
    let ended = child.ended();
    let took = ended.saturating_duration_since(child.start);
    let course = child.course.lock();
    let inner = format!("{lead} ");
    write!(out, "{lead}[{}", summary(&child.name, &course.attributes, took, child.began)).unwrap_or_default();
    items(out, child, &course.items, &inner, share);
    out.push(']');
    ended
}

fn summary(name: &str, attributes: &Attributes, took: Duration, at_time: SystemTime) -> String {
    format!("{name:?} {}{}ms ({})", fields(attributes), took.as_millis(), clock(at_time))
}

fn fields(attributes: &Attributes) -> String {
    let mut out = String::new();
    for (name, value) in attributes {
        let comma = if out.is_empty() { "" } else { "," };
        match value {
            Attribute::Text(text) => write!(out, "{comma}{name}:{text}"),
            Attribute::Number(number) => write!(out, "{comma}{name}:{number}"),
            Attribute::Truth(truth) => write!(out, "{comma}{name}:{truth}"),
        }
        .unwrap_or_default();
    }
    if !out.is_empty() {
        out.push(' ');
    }
    out
}

fn date(time: SystemTime) -> String {
    let moment = OffsetDateTime::from(time);
    let month = moment.month().to_string();
    format!("{:02}-{}-{} {}", moment.day(), month.get(..3).unwrap_or(&month), moment.year(), clock(time))
}

fn clock(time: SystemTime) -> String {
    let moment = OffsetDateTime::from(time);
    let (hour, minute, second) = (moment.hour(), moment.minute(), moment.second());
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", moment.millisecond())
}
