//! Labels, annotations and events, as every description shows them.

use serde_json::Value;

use super::{
    page::{Page, put},
    read::{list, number, scalar, sorted, text},
};

/// Longest annotation, key included, that stands on one line.
const ONE_LINE: usize = 140;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `k=v` lines behind a title.
pub(crate) fn labels(page: &mut Page, level: usize, title: &str, map: &Value) {
    let rows: Vec<String> = sorted(map).iter().map(|(k, v)| format!("{k}={}", scalar(v))).collect();
    lines(page, level, title, &rows);
}

/// A title and one row a line, `<none>` when there are none.
pub(crate) fn lines(page: &mut Page, level: usize, title: &str, rows: &[String]) {
    let Some((first, rest)) = rows.split_first() else {
        put!(page, level, "{title}:\t<none>");
        return;
    };
    put!(page, level, "{title}:\t{first}");
    for row in rest {
        put!(page, 0, "\t{row}");
    }
}

/// `k: v` lines, long values below their key and cut.
pub(crate) fn annotations(page: &mut Page, level: usize, map: &Value) {
    let shown: Vec<(&str, String)> =
        sorted(map).iter().filter(|(key, _)| **key != LAST_APPLIED).map(|(k, v)| (*k, scalar(v))).collect();
    if shown.is_empty() {
        put!(page, level, "Annotations:\t<none>");
        return;
    }
    for (at, (key, value)) in shown.iter().enumerate() {
        let title = if at == 0 { "Annotations:" } else { "" };
        if value.len() + key.len() + 2 <= ONE_LINE && !value.contains('\n') {
            put!(page, level, "{title}\t{key}: {value}");
            continue;
        }
        put!(page, level, "{title}\t{key}:");
        for line in value.split('\n') {
            put!(page, level, "\t  {}", shorten(line, ONE_LINE - 2));
        }
    }
}

fn shorten(line: &str, longest: usize) -> String {
    if line.len() <= longest {
        return line.to_owned();
    }
    format!("{}...", &line[..line.floor_char_boundary(longest)])
}

/// Labels and annotations of an object.
pub(crate) fn metadata(page: &mut Page, object: &Value) {
    labels(page, 0, "Labels", &object["metadata"]["labels"]);
    annotations(page, 0, &object["metadata"]["annotations"]);
}

/// The events of an object; no section at all when they were not asked for.
pub(crate) fn events(page: &mut Page, events: Option<&[Value]>) {
    let Some(events) = events else { return };
    if events.is_empty() {
        put!(page, 0, "Events:\t<none>");
        return;
    }
    let mut sorted: Vec<&Value> = events.iter().collect();
    sorted.sort_by_key(|event| text(&event["lastTimestamp"]));
    put!(page, 0, "Events:");
    put!(page, 1, "Type\tReason\tAge\tFrom\tMessage");
    put!(page, 1, "----\t------\t----\t----\t-------");
    for event in sorted {
        let interval = interval(page, event);
        let component = text(&event["source"]["component"]);
        let from = if component.is_empty() { text(&event["reportingComponent"]) } else { component };
        let path = text(&event["involvedObject"]["fieldPath"]);
        let prefix = if path.is_empty() { String::new() } else { format!("{path}: ") };
        put!(
            page,
            1,
            "{}\t{}\t{interval}\t{from}\t{prefix}{}",
            text(&event["type"]),
            text(&event["reason"]),
            text(&event["message"]).trim(),
        );
    }
}

fn interval(page: &Page, event: &Value) -> String {
    let clock = &page.clock;
    let at = text(&event["eventTime"]);
    let first = clock.since(if at.is_empty() { text(&event["firstTimestamp"]) } else { at });
    let series = &event["series"];
    if !series.is_null() {
        let last = clock.since(text(&series["lastObservedTime"]));
        return format!("{last} (x{} over {first})", number(&series["count"]));
    }
    match number(&event["count"]) {
        count if count > 1 => format!("{} (x{count} over {first})", clock.since(text(&event["lastTimestamp"]))),
        _ => first,
    }
}

/// A table of conditions: columns by title and field, times among them; a blank behind each cell but the last when
/// `spaced`.
pub(crate) fn conditions(page: &mut Page, title: &str, columns: &[(&str, &str)], rows: &Value, spaced: bool) {
    let rows = list(rows);
    if rows.is_empty() {
        return;
    }
    put!(page, 0, "{title}:");
    let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    put!(page, 1, "{}", heads.join("\t"));
    let dashes: Vec<String> = heads.iter().map(|head| dashes(head)).collect();
    put!(page, 1, "{}", dashes.join("\t"));
    for row in rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, field)| match field.ends_with("Time") {
                true => page.clock.time(text(&row[*field])),
                false => scalar(&row[*field]),
            })
            .collect();
        put!(page, 1, "{}", cells.join(if spaced { " \t" } else { "\t" }));
    }
}

/// Dashes below a heading; those of the probe column are as long as those of the heartbeat.
fn dashes(head: &str) -> String {
    "-".repeat(if head == "LastProbeTime" { "LastHeartbeatTime".len() } else { head.len() })
}
