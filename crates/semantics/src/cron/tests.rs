use super::*;

fn next(schedule: &str, after: &str, zone: &str) -> Option<String> {
    let zone = TimeZone::get(zone).unwrap();
    let schedule = Schedule::parse(schedule).unwrap();
    schedule.next(after.parse().unwrap(), &zone).map(|t| t.to_string())
}

#[test]
fn times() {
    let cases = [
        ("* * * * *", "2024-01-01T00:00:30Z", "2024-01-01T00:01:00Z"),
        ("*/15 * * * *", "2024-01-01T00:45:00Z", "2024-01-01T01:00:00Z"),
        ("5/20 * * * *", "2024-01-01T00:06:00Z", "2024-01-01T00:25:00Z"),
        ("0 3 * * *", "2024-01-01T03:00:00Z", "2024-01-02T03:00:00Z"),
        ("30 4 1,15 * *", "2024-01-02T00:00:00Z", "2024-01-15T04:30:00Z"),
        ("0 0 * * MON-fri", "2024-01-05T12:00:00Z", "2024-01-08T00:00:00Z"),
        // Either the date or the weekday, unless one of them is a star.
        ("0 0 13 * 5", "2024-01-06T00:00:00Z", "2024-01-12T00:00:00Z"),
        ("0 0 13 * ?", "2024-01-06T00:00:00Z", "2024-01-13T00:00:00Z"),
        ("0 0 */2 * 5", "2024-01-05T00:00:00Z", "2024-01-07T00:00:00Z"),
        ("0 0 29 feb *", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("@yearly", "2024-03-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        ("@hourly", "2024-03-01T00:00:00Z", "2024-03-01T01:00:00Z"),
        ("@every 1h30m", "2024-03-01T00:00:00Z", "2024-03-01T01:30:00Z"),
        ("@every 10ms", "2024-03-01T00:00:00Z", "2024-03-01T00:00:01Z"),
    ];
    for (schedule, after, expected) in cases {
        assert_eq!(next(schedule, after, "UTC").as_deref(), Some(expected), "{schedule}");
    }
    assert_eq!(next("0 0 31 2 *", "2024-03-01T00:00:00Z", "UTC"), None);
}

#[test]
fn zones() {
    assert_eq!(next("0 9 * * *", "2024-07-01T00:00:00Z", "Europe/Berlin").as_deref(), Some("2024-07-01T07:00:00Z"));
    // 02:30 does not exist on the day clocks go forward.
    assert_eq!(next("30 2 * * *", "2024-03-30T12:00:00Z", "Europe/Berlin").as_deref(), Some("2024-04-01T00:30:00Z"));
}

#[test]
fn refused() {
    for text in [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* * 0 * *",
        "* * * * 7",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "1-2-3 * * * *",
        "1/2/3 * * * *",
        "@never",
        "@every x",
    ] {
        assert!(Schedule::parse(text).is_err(), "{text}");
    }
}
