use parking_lot::Mutex;

use super::*;

#[derive(Default)]
struct Lines(Mutex<String>);

impl Sink for Lines {
    fn write(&self, _: Level, line: &[u8]) {
        self.0.lock().push_str(&String::from_utf8_lossy(line));
    }
}

fn logged(format: Format, work: impl FnOnce()) -> String {
    let lines = Arc::new(Lines::default());
    let form = Arc::new(RwLock::new(Form { format, modules: Vec::new() }));
    let output = Output { form, sink: lines.clone(), zone: TimeZone::UTC };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(output), work);
    lines.0.lock().clone()
}

#[test]
fn text_lines_are_klogs() {
    let text = logged(Format::Text, || {
        tracing::info!(path = "/x", count = 3, "Starting watch");
        tracing::error!(error = %"no such \"file\"", "command failed");
        tracing::info!(v = 3, "too verbose");
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let form = |line: &str| line.split_once("] ").map(|(head, body)| (head.len() > 30, body.to_owned()));
    assert_eq!(form(lines[0]), Some((true, "\"Starting watch\" path=\"/x\" count=3".into())));
    assert_eq!(form(lines[1]), Some((true, "\"command failed\" err=\"no such \\\"file\\\"\"".into())));
    assert!(lines[0].starts_with('I') && lines[1].starts_with('E'));
}

#[test]
fn long_values_are_indented() {
    let text = logged(Format::Text, || tracing::info!(body = "a\nb", "x"));
    assert!(text.ends_with("body=<\n\ta\n\tb\n >\n"), "{text}");
}

#[test]
fn json_lines_have_the_keys() {
    let text = logged(Format::Json, || {
        tracing::info!(count = 3, "hello");
        tracing::error!(err = "bad", "failed");
    });
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        (lines[0]["msg"].as_str(), lines[0]["v"].as_i64(), lines[0]["count"].as_i64()),
        (Some("hello"), Some(0), Some(3))
    );
    assert!(lines[0]["ts"].as_f64().unwrap() > 1e12);
    assert!(lines[1].get("v").is_none() && lines[1]["err"] == "bad");
}

#[test]
fn who_says_it() {
    let work = || tracing::info!(logger = "job-controller", key = "a", "Syncing");
    assert!(logged(Format::Text, work).ends_with("\"Syncing\" logger=\"job-controller\" key=\"a\"\n"));
    assert!(logged(Format::Json, work).contains(",\"logger\":\"job-controller\",\"msg\":\"Syncing\","));
    let loggers = [("m::job", "job-controller"), ("m::job::rules", "rules"), ("m", "main")];
    for (module, name) in [
        ("m::job::sync", Some("job-controller")),
        ("m::job::rules", Some("rules")),
        ("m::jobs", Some("main")),
        ("other", None),
    ] {
        assert_eq!(logger_of(&loggers, module), name, "{module}");
    }
}

#[test]
fn text_lines_are_in_local_time() {
    let lines = Arc::new(Lines::default());
    let form = Arc::new(RwLock::new(Form { format: Format::Text, modules: Vec::new() }));
    let zone = TimeZone::fixed(jiff::tz::offset(14));
    let expected = jiff::Timestamp::now().to_zoned(zone.clone());
    let output = Output { form, sink: lines.clone(), zone };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(output), || tracing::info!("x"));
    let after = expected.checked_add(jiff::Span::new().minutes(10)).unwrap();
    let text = lines.0.lock().clone();
    let told = format!("{} {}", expected.year(), &text[1..14]);
    let told = jiff::civil::DateTime::strptime("%Y %m%d %H:%M:%S", told).unwrap();
    assert!(
        told >= expected.datetime().with().subsec_nanosecond(0).build().unwrap() && told < after.datetime(),
        "{text}"
    );
}

#[test]
fn sentences_are_not_quoted() {
    let text = logged(Format::Text, || tracing::info!(plain = true, "FLAG: --v={:?}", "2"));
    assert!(text.ends_with("] FLAG: --v=\"2\"\n"), "{text}");
    let keys = logged(Format::Json, || tracing::warn!(b = true, a = 1, "w\u{7f}"));
    assert!(keys.contains(",\"msg\":\"w\u{7f}\",\"v\":0,\"b\":true,\"a\":1}"), "{keys}");
}

#[test]
fn split_streams_need_the_gate() {
    let args = LoggingArgs {
        log_json_split_stream: true,
        log_text_info_buffer_size: "64Ki".into(),
        logging_format: "json".into(),
        ..LoggingArgs::default()
    };
    assert_eq!((validate(&args, false).len(), validate(&args, true).len()), (2, 0));
    let bad = LoggingArgs { log_text_info_buffer_size: "x".into(), ..LoggingArgs::default() };
    assert_eq!(validate(&bad, true).len(), 1);
}

#[test]
fn patterns() {
    assert!(matches_glob("ser*", "server") && matches_glob("s?rver", "server") && !matches_glob("serve", "server"));
    assert_eq!(vmodule("a=1,b*=2"), Ok(vec![("a".into(), 1), ("b*".into(), 2)]));
    assert!(vmodule("a").is_err());
}
