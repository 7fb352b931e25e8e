//! Real files, written and rotated as runtimes and the kubelet do.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use tempfile::TempDir;

use super::*;

struct Logs {
    directory: TempDir,
    written: u32,
}

impl Logs {
    fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory"), written: 0 }
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn container(&self) -> PathBuf {
        let path = self.root().join("ns_web_uid-1/main");
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn append(&mut self, file: &str, flag: &str, text: &str) {
        let mut log = File::options().create(true).append(true).open(self.container().join(file)).expect("a log");
        self.written += 1;
        writeln!(log, "2024-01-02T03:04:05.{:09}Z stdout {flag} {text}", self.written).expect("written");
    }

    fn tails(&self, kept: HashMap<FileId, Position>, at_end: bool) -> Tails {
        let reading = Reading {
            root: self.root().to_owned(),
            excluded: vec!["hidden".into()],
            node: "n".into(),
            batch: 1 << 20,
            max_line: 1 << 16,
        };
        Tails::new(reading, kept, at_end)
    }
}

/// One round, as the collector does it.
fn round(tails: &mut Tails) -> Vec<String> {
    tails.rescan();
    let batch = tails.read();
    tails.commit();
    batch.records.into_iter().map(|record| record.log).collect()
}

fn again(logs: &Logs, tails: Tails) -> Tails {
    let kept = tails.positions().into_iter().map(|position| (position.file, position)).collect();
    logs.tails(kept, false)
}

#[test]
fn every_line_once_through_rotation_and_restarts() {
    let mut logs = Logs::new();
    let mut tails = logs.tails(HashMap::new(), false);
    logs.append("0.log", "F", "one");
    assert_eq!(round(&mut tails), ["one"]);
    assert_eq!(round(&mut tails), Vec::<String>::new());
    // The kubelet renames, and the runtime goes on in the renamed file for a moment.
    logs.append("0.log", "F", "two");
    fs::rename(logs.container().join("0.log"), logs.container().join("0.log.20240102-030405")).expect("renamed");
    logs.append("0.log.20240102-030405", "F", "three");
    logs.append("0.log", "F", "four");
    assert_eq!(round(&mut tails), ["two", "three", "four"]);
    for _ in 0..5 {
        assert_eq!(round(&mut tails), Vec::<String>::new());
    }
    assert_eq!(tails.state().0, 1, "the rotated file is closed");
    // A restart reads nothing twice, not even of the rotated file.
    let mut tails = again(&logs, tails);
    assert_eq!(round(&mut tails), Vec::<String>::new());
    fs::remove_file(logs.container().join("0.log.20240102-030405")).expect("removed");
    // The container starts again.
    logs.append("0.log", "F", "five");
    logs.append("1.log", "F", "six");
    assert_eq!(round(&mut tails), ["five", "six"]);
    for _ in 0..5 {
        assert_eq!(round(&mut tails), Vec::<String>::new());
    }
    assert_eq!(tails.positions().len(), 2, "what is gone is forgotten");
}

#[test]
fn a_file_that_is_removed_is_read_to_its_end() {
    let mut logs = Logs::new();
    let mut tails = logs.tails(HashMap::new(), false);
    logs.append("0.log", "F", "one");
    tails.rescan();
    logs.append("0.log", "F", "two");
    logs.append("0.log", "P", "begun");
    fs::remove_dir_all(logs.root().join("ns_web_uid-1")).expect("removed");
    assert_eq!(round(&mut tails), ["one", "two"]);
    let mut rest = Vec::new();
    for _ in 0..5 {
        rest.extend(round(&mut tails));
    }
    assert_eq!(rest, ["begun"]);
    assert_eq!((tails.state().0, tails.positions().len()), (0, 0));
}

#[test]
fn what_did_not_arrive_is_read_again() {
    let mut logs = Logs::new();
    let mut tails = logs.tails(HashMap::new(), false);
    logs.append("0.log", "F", "one");
    assert_eq!(round(&mut tails), ["one"]);
    logs.append("0.log", "F", "two");
    logs.append("0.log", "P", "thr");
    tails.rescan();
    assert_eq!(tails.read().records.len(), 1);
    // No commit: the process is killed here.
    let mut tails = again(&logs, tails);
    assert_eq!(round(&mut tails), ["two"]);
    // A line in pieces is read again from its first piece.
    let mut tails = again(&logs, tails);
    assert_eq!(round(&mut tails), Vec::<String>::new());
    logs.append("0.log", "F", "ee");
    assert_eq!(round(&mut tails), ["three"]);
}

#[test]
fn other_files_under_a_known_inode_are_new() {
    let mut logs = Logs::new();
    logs.append("0.log", "F", "one");
    let mut tails = logs.tails(HashMap::new(), false);
    assert_eq!(round(&mut tails), ["one"]);
    let kept = tails.positions();
    // The same file, but with another first line.
    File::create(logs.container().join("0.log")).expect("emptied");
    logs.append("0.log", "F", "another");
    let mut later = logs.tails(kept.into_iter().map(|p| (p.file, p)).collect(), false);
    assert_eq!(round(&mut later), ["another"]);
}

#[test]
fn a_log_that_is_emptied_is_read_from_its_start() {
    let mut logs = Logs::new();
    let mut tails = logs.tails(HashMap::new(), false);
    logs.append("0.log", "F", "a long first line");
    assert_eq!(round(&mut tails), ["a long first line"]);
    File::create(logs.container().join("0.log")).expect("emptied");
    assert_eq!(round(&mut tails), Vec::<String>::new());
    logs.append("0.log", "F", "next");
    assert_eq!(round(&mut tails), ["next"]);
}

#[test]
fn only_what_is_wanted() {
    let mut logs = Logs::new();
    logs.append("0.log", "F", "old");
    fs::create_dir_all(logs.root().join("hidden_p_u/c")).expect("a directory");
    fs::write(logs.root().join("hidden_p_u/c/0.log"), "2024-01-02T03:04:05Z stdout F secret\n").expect("written");
    fs::create_dir_all(logs.container().join("9.log")).expect("a directory");
    let mut tails = logs.tails(HashMap::new(), true);
    assert_eq!(round(&mut tails), Vec::<String>::new());
    logs.append("0.log", "F", "new");
    logs.append("1.log", "F", "whole");
    assert_eq!(round(&mut tails), ["new", "whole"]);
}

#[test]
fn one_file_does_not_keep_others_waiting() {
    let mut logs = Logs::new();
    for _ in 0..3000 {
        logs.append("0.log", "F", &"x".repeat(1000));
    }
    fs::create_dir_all(logs.root().join("ns_web_uid-1/other")).expect("a directory");
    fs::write(logs.root().join("ns_web_uid-1/other/0.log"), "2024-01-02T03:04:05Z stderr F small\n").expect("written");
    logs.append("1.log", "F", "later");
    let mut tails = logs.tails(HashMap::new(), false);
    let first = round(&mut tails);
    assert!(first.len() < 1000 && first.contains(&"small".to_owned()), "{}", first.len());
    assert!(!first.contains(&"later".to_owned()), "one container's lines stay in order");
    let mut total = first.len();
    while total < 3002 {
        let more = round(&mut tails).len();
        assert!(more > 0, "stuck at {total}");
        total += more;
    }
    assert_eq!(total, 3002);
}
