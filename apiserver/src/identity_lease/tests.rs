use super::*;

#[test]
fn names_are_hashes_of_the_host() {
    assert_eq!(base32(b"foobar"), "mzxw6ytboi");
    assert_eq!(base32(b"f"), "my");
    let name = name_of("node-1");
    assert_eq!((name.len(), &name[..10]), (36, "apiserver-"));
    assert_ne!(name, name_of("node-2"));
}

#[test]
fn leases_end() {
    let at = |text: &str| machinery::time::parse_micro(text).expect("a time");
    let lease = json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 3600}});
    assert!(!is_expired(&lease, at("2026-01-01T01:00:00.000000Z")));
    assert!(is_expired(&lease, at("2026-01-01T01:00:01.000000Z")));
    assert!(is_expired(&json!({"spec": {}}), at("2026-01-01T00:00:00.000000Z")), "nobody holds it");
}
