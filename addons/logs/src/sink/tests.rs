use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::{http::loki, *};
use crate::record::{Source, Stream};

fn record(container: &str, log: &str) -> Record {
    let source = Source {
        namespace: "ns".into(),
        pod: "web".into(),
        uid: "u".into(),
        container: container.into(),
        restart: 0,
        node: "n".into(),
    };
    let time = Some("2024-01-02T03:04:05.5Z".to_owned());
    Record { time, stream: Stream::Stdout, log: log.into(), partial: false, kubernetes: Arc::new(source) }
}

#[test]
fn files_rotate_and_age() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let retention = Retention { size: 400, files: 3, age: Duration::from_secs(3600) };
    let sink = FileSink::new(directory.path().to_owned(), retention);
    for number in 0..10 {
        sink.write(&[record("a", &format!("line {number}")), record("b", "other")]).expect("written");
    }
    let pod = directory.path().join("ns/web");
    let mut names: Vec<String> =
        fs::read_dir(&pod).expect("listed").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["a.log", "a.log.1", "a.log.2", "b.log", "b.log.1", "b.log.2"]);
    let last = fs::read_to_string(pod.join("a.log")).expect("read");
    assert!(last.contains(r#""log":"line 9""#) && last.contains(r#""namespace":"ns""#), "{last}");
    assert!(fs::metadata(pod.join("a.log.1")).expect("there").len() <= 400);
    sink.sweep(SystemTime::now());
    assert!(pod.exists());
    sink.sweep(SystemTime::now() + Duration::from_secs(7200));
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
}

#[test]
fn push_requests() {
    let body = loki(&[record("a", "one"), record("b", "two"), record("a", "three")]).expect("JSON");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["streams"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["streams"][0]["stream"]["container"], "a");
    assert_eq!(body["streams"][0]["values"][1], serde_json::json!(["1704164645500000000", "three"]));
}
