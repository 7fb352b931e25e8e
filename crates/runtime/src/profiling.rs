//! `/debug/pprof/`: what of Go's profiling pages has a meaning here.
//!
//! There is no runtime to ask for samples, so the pages list what is known of the process: its tasks, its command line,
//! its memory as the kernel counts it. Each answers with text and status 200, as tools that collect them expect.

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::tasks::TaskGroup;

const INDEX: &str = "/debug/pprof/\n\nTypes of profiles available:\ngoroutine: running tasks by name\nheap: memory of the \
                     process\ncmdline: the command line\n";
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
        .route("/debug/pprof/profile", none())
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

fn proc_file(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_else(|e| format!("{e}\n"))
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

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
