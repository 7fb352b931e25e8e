use std::path::Path;

use serde_json::json;

use super::{certificates::is_due, data, lock};
use crate::{etcd::Size, pki::Lifetime};

fn at(text: &str) -> time::OffsetDateTime {
    machinery::time::parse(text).unwrap()
}

#[test]
fn certificates_are_renewed_when_a_part_of_their_life_is_left() {
    let life = Lifetime { not_before: at("2026-01-01T00:00:00Z"), not_after: at("2026-04-11T00:00:00Z") };
    for (now, percent, due) in [
        ("2026-01-02T00:00:00Z", 30, false),
        ("2026-03-11T23:59:59Z", 30, false),
        ("2026-03-12T00:00:00Z", 30, true),
        ("2026-03-12T00:00:00Z", 10, false),
        ("2027-01-01T00:00:00Z", 10, true),
        ("2026-01-01T00:00:00Z", 100, true),
    ] {
        assert_eq!(is_due(&life, at(now), percent), due, "{now} {percent}");
    }
}

#[test]
fn snapshots_tell_when_they_were_made() {
    let when = at("2026-11-21T23:05:09Z");
    assert_eq!(data::name_at(when), "etcd-2026-11-21T23-05-09Z.db");
    assert_eq!(data::time_of(Path::new("/x/etcd-2026-11-21T23-05-09Z.db")), Some(when));
    for other in ["/x/etcd-2026-11-21T23-05-09Z.db.part", "/x/mine.db", "/x/etcd-.db", "/x"] {
        assert_eq!(data::time_of(Path::new(other)), None, "{other}");
    }
}

#[test]
fn a_file_is_made_smaller_when_more_than_half_of_it_is_waste() {
    let mib = |n: u64| n << 20;
    for (file, in_use, wasteful) in
        [(20, 1, false), (64, 1, false), (100, 60, false), (100, 50, false), (100, 49, true)]
    {
        assert_eq!(data::is_wasteful(Size { file: mib(file), in_use: mib(in_use) }), wasteful, "{file} {in_use}");
    }
}

#[test]
fn one_host_at_a_time() {
    let now = at("2026-11-21T12:00:00Z");
    for (holder, since, held) in [
        ("", "2026-11-21T11:59:00.000000Z", false),
        ("own", "2026-11-21T11:59:00.000000Z", false),
        ("other", "2026-11-21T11:59:00.000000Z", true),
        ("other", "2026-11-21T10:59:00.000000Z", false),
    ] {
        let lease = json!({"spec": {"holderIdentity": holder, "renewTime": since}});
        assert_eq!(lock::is_held(&lease, "own", now), held, "{holder} {since}");
    }
    assert!(!lock::is_held(&json!({}), "own", now));
}
