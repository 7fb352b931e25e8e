//! `/debug/api_priority_and_fairness/*`: levels, queues and requests, as text.

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use axum::{Router, extract::RawQuery, response::IntoResponse, routing::get};
use http::header;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    FlowControl,
    level::Level,
    queues::{Entry, GUESS, Phase},
};
use crate::request::Query;

/// Routes of the dumps.
pub fn router(flow: &Arc<FlowControl>) -> Router {
    let page = |text: fn(&FlowControl, &Query) -> String| {
        let flow = Arc::clone(flow);
        get(move |RawQuery(query): RawQuery| {
            let body = text(&flow, &Query::parse(query.as_deref().unwrap_or_default()));
            let headers =
                [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            async move { (headers, body).into_response() }
        })
    };
    Router::new()
        .route("/debug/api_priority_and_fairness/dump_priority_levels", page(levels))
        .route("/debug/api_priority_and_fairness/dump_queues", page(queues))
        .route("/debug/api_priority_and_fairness/dump_requests", page(requests))
}

fn all_levels(flow: &FlowControl) -> Vec<Arc<Level>> {
    let config = flow.config.load();
    config.levels.values().chain(&config.leaving).cloned().collect()
}

/// Rows of cells, each as wide as the widest of its column.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let is_last = at + 1 == row.len();
            let cell = if is_last { cell.clone() } else { format!("{cell},") };
            let width = if is_last { 0 } else { widths[at] };
            // Writing to a String does not fail.
            let _never = write!(out, "{cell:<width$}").is_err();
        }
        out.push('\n');
    }
    out
}

fn titles(all: &[&str]) -> Vec<String> {
    all.iter().map(|title| (*title).to_owned()).collect()
}

fn levels(flow: &FlowControl, _: &Query) -> String {
    let mut rows = vec![titles(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    for level in all_levels(flow) {
        let queues = level.queues.lock();
        let active = queues.queues.iter().filter(|queue| !queue.waiting.is_empty()).count();
        rows.push(vec![
            level.name.clone(),
            active.to_string(),
            queues.is_idle().to_string(),
            level.is_quiescing.load(Ordering::Relaxed).to_string(),
            queues.waiting.to_string(),
            queues.running.to_string(),
            queues.totals.dispatched.to_string(),
            queues.totals.rejected.to_string(),
            queues.totals.timed_out.to_string(),
            queues.totals.cancelled.to_string(),
        ]);
    }
    table(&rows)
}

fn queues(flow: &FlowControl, _: &Query) -> String {
    let mut rows = vec![titles(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for level in all_levels(flow) {
        let queues = level.queues.lock();
        for (index, queue) in queues.queues.iter().enumerate() {
            let works: Vec<_> = queue.waiting.iter().map(|slot| queues.entries[*slot].work).collect();
            let work: f64 = works.iter().map(|work| work.total(GUESS)).sum();
            rows.push(vec![
                level.name.clone(),
                index.to_string(),
                queue.waiting.len().to_string(),
                queue.running.to_string(),
                queue.seats.to_string(),
                format!("{:.8}ss", queue.next),
                works.iter().map(|work| work.initial_seats).sum::<u32>().to_string(),
                works.iter().map(|work| work.most_seats()).sum::<u32>().to_string(),
                format!("{work:.8}ss"),
            ]);
        }
    }
    table(&rows)
}

fn requests(flow: &FlowControl, query: &Query) -> String {
    let detailed = query.flag("includeRequestDetails");
    let mut head = titles(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if detailed {
        let more = ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
        head.extend(titles(&more));
    }
    let mut rows = vec![head];
    let (now, elapsed) = (flow.clock.now(), flow.clock.elapsed());
    let time = |at: Duration| stamp(now - elapsed.saturating_sub(at));
    for level in all_levels(flow) {
        let queues = level.queues.lock();
        for (slot, entry) in queues.entries.iter().enumerate() {
            if matches!(entry.phase, Phase::Waits | Phase::Runs) {
                let queue = entry.queue.and_then(|index| queues.queues.get(index));
                let place = queue.and_then(|queue| queue.waiting.iter().position(|other| *other == slot));
                rows.push(request(&level.name, entry, place, &time, detailed));
            }
        }
    }
    table(&rows)
}

fn request(
    level: &str,
    entry: &Entry,
    place: Option<usize>,
    time: &dyn Fn(Duration) -> String,
    detailed: bool,
) -> Vec<String> {
    let index = |at: Option<usize>| at.map_or("-1".to_owned(), |at| at.to_string());
    let started = match entry.phase {
        Phase::Runs => time(entry.started),
        _ => "0001-01-01T00:00:00Z".to_owned(),
    };
    let details = &entry.details;
    let mut row = vec![
        level.to_owned(),
        details.schema.clone(),
        index(entry.queue),
        index(place),
        details.flow.clone(),
        time(entry.arrived),
        entry.work.initial_seats.to_string(),
        entry.work.final_seats.to_string(),
        runtime::flags::format_duration(entry.work.after),
        started,
    ];
    if detailed {
        let more = [
            &details.user,
            &details.verb,
            &details.path,
            &details.namespace,
            &details.name,
            &details.version,
            &details.resource,
            &details.subresource,
        ];
        row.extend(more.map(|text| text.replace([',', '\n'], " ")));
    }
    row
}

fn stamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}
