//! `/debug/pprof/`: what of Go's profiling pages has a meaning here.
//!
//! There is no runtime to ask for samples, so the pages list what is known of the process: its tasks, its command line,
//! its memory and the processor time of its threads as the kernel counts them. Each answers with text and status 200,
//! as tools that collect them expect.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::tasks::TaskGroup;

const INDEX: &str = "/debug/pprof/\n\nTypes of profiles available:\ngoroutine: running tasks by name\nheap: memory of the \
                     process\nprofile: processor time of each thread over some seconds\ncmdline: the command line\n";
const NONE: &str = "no samples of this kind are taken\n";

fn text(body: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, body).into_response()
}

/// The pages, for a process whose tasks are all in `tasks`.
pub fn router(tasks: &TaskGroup) -> Router {
    let none = || get(|| async { text(NONE.to_owned()) });
    Router::new()
        .route("/debug/pprof", get(|| async { text(INDEX.to_owned()) }))
        .route("/debug/pprof/", get(|| async { text(INDEX.to_owned()) }))
        .route("/debug/pprof/goroutine", get(running))
        .route("/debug/pprof/heap", get(|| async { text(proc_file("status")) }))
        .route("/debug/pprof/cmdline", get(|| async { text(proc_file("cmdline")) }))
        .route("/debug/pprof/profile", get(profile))
        .route("/debug/pprof/trace", none())
        .route("/debug/pprof/symbol", none())
        .route("/debug/pprof/allocs", none())
        .route("/debug/pprof/block", none())
        .route("/debug/pprof/mutex", none())
        .route("/debug/pprof/threadcreate", none())
        .with_state(tasks.clone())
}

async fn running(State(tasks): State<TaskGroup>) -> Response {
    let names = tasks.running();
    text(format!("tasks: total {}\n{}\n", names.len(), names.join("\n")))
}

/// Seconds that are looked at unless the query says, and at most.
const SECONDS: (u64, u64) = (30, 300);
/// Kernel clock ticks of a millisecond, the other way round.
const MILLISECONDS_PER_TICK: u64 = 10;

async fn profile(RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("seconds=")?.parse().ok());
    let seconds = asked.filter(|s| *s > 0).unwrap_or(SECONDS.0).min(SECONDS.1);
    let before = threads();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut used: Vec<(u64, String)> = threads()
        .into_iter()
        .map(|(id, (name, ticks))| {
            let earlier = before.get(&id).map_or(0, |(_, ticks)| *ticks);
            (ticks.saturating_sub(earlier) * MILLISECONDS_PER_TICK, format!("{name} ({id})"))
        })
        .collect();
    used.sort_by(|a, b| b.cmp(a));
    let total: u64 = used.iter().map(|(time, _)| time).sum();
    let mut lines = format!("processor time: {total} ms in {seconds} s\n");
    for (time, thread) in used {
        lines.push_str(&format!("{time} ms {thread}\n"));
    }
    text(lines)
}

/// Name and processor time, in ticks, of each thread.
fn threads() -> BTreeMap<u32, (String, u64)> {
    let Ok(all) = std::fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    all.filter_map(|entry| {
        let entry = entry.ok()?;
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        // Fields count from the third one (state) of proc(5).
        let ticks = rest.split(' ').skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        Some((id, (name, ticks)))
    })
    .collect()
}

fn proc_file(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_else(|e| format!("{e}\n"))
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn threads_are_told_with_their_time() {
        let tasks = TaskGroup::new("root");
        let request = http::Request::get("/debug/pprof/profile?seconds=1").body(axum::body::Body::empty()).unwrap();
        let answer = router(&tasks).oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(
            body.starts_with("processor time: ") && body.contains(&format!("({})\n", std::process::id())),
            "{body}"
        );
    }

    #[tokio::test]
    async fn tasks_are_listed() {
        let tasks = TaskGroup::new("root");
        tasks.spawn_cancellable("waiting", std::future::pending());
        let request = http::Request::get("/debug/pprof/goroutine").body(axum::body::Body::empty()).unwrap();
        let answer = router(&tasks).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        assert_eq!(body, "tasks: total 1\nroot/waiting\n");
    }
}
