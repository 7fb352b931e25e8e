//! The whole way against a server that is slow, fails and refuses.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write,
    path::Path,
};

use axum::{Router, http::StatusCode, routing::post};
use parking_lot::Mutex;
use runtime::{clock::RealClock, tasks::TaskGroup};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Semaphore};

use super::*;
use crate::{
    options::Format,
    sink::{Endpoint, HttpSink},
    tails::Reading,
};

/// A server that answers as it is told, then 200.
#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    /// Requests that may be answered.
    gate: Arc<Semaphore>,
    lines: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    async fn start(tasks: &TaskGroup) -> (Self, String) {
        let server = Self {
            answers: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            lines: Arc::default(),
            requests: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/push", listener.local_addr().expect("an address"));
        let own = server.clone();
        let handler = move |body: String| {
            let server = own.clone();
            async move {
                let permit = server.gate.acquire().await.expect("open");
                permit.forget();
                let lines: Vec<String> = body
                    .lines()
                    .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                    .filter_map(|record| Some(record["log"].as_str()?.to_owned()))
                    .collect();
                server.requests.lock().push(lines.len());
                let answer = server.answers.lock().pop_front().unwrap_or(StatusCode::OK);
                if answer.is_success() {
                    server.lines.lock().extend(lines);
                }
                answer
            }
        };
        let router = Router::new().route("/push", post(handler)).layer(axum::extract::DefaultBodyLimit::disable());
        let stop = tasks.token().clone();
        tasks.spawn("server", runtime::serving::serve_router(listener, None, router, stop, Duration::from_millis(100)));
        (server, url)
    }
}

struct Scene {
    directory: TempDir,
    tasks: TaskGroup,
    server: Server,
    url: String,
    metrics: Arc<LogMetrics>,
    written: u32,
}

impl Scene {
    async fn new() -> Self {
        let tasks = TaskGroup::new("test");
        let (server, url) = Server::start(&tasks).await;
        let metrics = Arc::new(LogMetrics::new(&runtime::Registry::new()).expect("metrics"));
        Self { directory: TempDir::new().expect("a directory"), tasks, server, url, metrics, written: 0 }
    }

    fn container(&self) -> std::path::PathBuf {
        let path = self.directory.path().join("pods/ns_web_uid/main");
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn append(&mut self, text: &str) {
        self.append_to(&self.container().join("0.log"), text);
    }

    fn append_to(&mut self, path: &Path, text: &str) {
        let mut log = File::options().create(true).append(true).open(path).expect("a log");
        self.written += 1;
        writeln!(log, "2024-01-02T03:04:05.{:09}Z stdout F {text}", self.written).expect("written");
    }

    /// Starts a collector; the token stops it.
    fn start(&self, batch: usize) -> (CancellationToken, tokio::task::JoinHandle<Result<(), Died>>) {
        let position_file = self.directory.path().join("positions.json");
        let kept = positions::load(&position_file).expect("read");
        let reading = Reading {
            root: self.directory.path().join("pods"),
            excluded: Vec::new(),
            node: "n".into(),
            batch,
            max_line: 1 << 16,
        };
        let endpoint = Endpoint {
            url: &self.url,
            format: Format::Ndjson,
            header_file: None,
            authorities: Path::new("/none"),
            timeout: Duration::from_secs(60),
        };
        let stop = CancellationToken::new();
        let collector = Collector {
            tails: Tails::new(reading, kept.unwrap_or_default(), false),
            sink: Sink::Http(Arc::new(HttpSink::new(&endpoint).expect("a sink"))),
            position_file,
            poll_interval: Duration::from_millis(10),
            metrics: Arc::clone(&self.metrics),
            clock: RealClock::shared(),
            stop: stop.clone(),
        };
        (stop, tokio::spawn(collector.run()))
    }

    /// Waits until the server has this many lines.
    async fn has(&self, count: usize) {
        let wait = async {
            while self.server.lines.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(found.is_ok(), "waited for {count} lines, got {}", self.server.lines.lock().len());
    }
}

#[tokio::test]
async fn failures_are_retried_and_refusals_dropped() {
    let mut scene = Scene::new().await;
    scene.server.gate.add_permits(1000);
    scene.server.answers.lock().extend([StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNAUTHORIZED]);
    scene.append("one");
    let (stop, running) = scene.start(1 << 20);
    scene.has(1).await;
    assert_eq!(scene.server.requests.lock().len(), 3);
    // What is too much is halved; what is refused is dropped, once.
    scene.server.answers.lock().extend([StatusCode::PAYLOAD_TOO_LARGE, StatusCode::OK, StatusCode::BAD_REQUEST]);
    let mut all = String::new();
    for text in ["two", "three", "four", "five"] {
        scene.written += 1;
        all += &format!("2024-01-02T03:04:05.{:09}Z stdout F {text}\n", scene.written);
    }
    let mut log = File::options().append(true).open(scene.container().join("0.log")).expect("a log");
    log.write_all(all.as_bytes()).expect("written");
    scene.has(3).await;
    scene.append("six");
    scene.has(4).await;
    stop.cancel();
    running.await.expect("ended").expect("well");
    assert_eq!(*scene.server.lines.lock(), ["one", "two", "three", "six"]);
    assert_eq!(scene.metrics.dropped.get(), 2);
    assert!(scene.tasks.stop(Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn a_stuck_server_loses_nothing_while_logs_rotate_and_go() {
    let mut scene = Scene::new().await;
    scene.append("0");
    // Batches as small as can be: little is read ahead.
    let (stop, running) = scene.start(1);
    let (log, rotated) = (scene.container().join("0.log"), scene.container().join("0.log.20240102-030405"));
    let wait = async {
        while scene.metrics.read_bytes.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the first line is on its way");
    let mut wanted = vec!["0".to_owned()];
    for number in 1..50 {
        // Much more than is read at once.
        let text = format!("{number} {}", "x".repeat(10_000));
        scene.append_to(&log, &text);
        wanted.push(text);
        if number == 20 {
            fs::rename(&log, &rotated).expect("renamed");
            scene.append_to(&log, "after");
            wanted.push("after".into());
        }
    }
    scene.server.gate.add_permits(2);
    scene.has(2).await;
    assert!(scene.server.lines.lock().len() < 20, "no more is read than was let through");
    // The files go while most of their lines are unread; they were noticed before.
    fs::remove_dir_all(scene.directory.path().join("pods/ns_web_uid")).expect("removed");
    scene.server.gate.add_permits(1000);
    scene.has(wanted.len()).await;
    stop.cancel();
    running.await.expect("ended").expect("well");
    let mut got = scene.server.lines.lock().clone();
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn a_new_process_goes_on_where_the_old_one_was() {
    let mut scene = Scene::new().await;
    scene.server.gate.add_permits(1000);
    scene.append("one");
    let (stop, running) = scene.start(1 << 20);
    scene.has(1).await;
    stop.cancel();
    running.await.expect("ended").expect("well");
    scene.append("two");
    let (stop, running) = scene.start(1 << 20);
    scene.has(2).await;
    stop.cancel();
    running.await.expect("ended").expect("well");
    assert_eq!(*scene.server.lines.lock(), ["one", "two"]);
}
