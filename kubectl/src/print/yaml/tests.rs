use serde_json::json;

use super::*;

#[test]
fn documents_are_kubectls() {
    let value = json!({"b": [{"x": 1, "y": []}, [1, 2]], "a": {"c": {}, "d": "t"}, "e": null});
    assert_eq!(encode(&value), "a:\n  c: {}\n  d: t\nb:\n- x: 1\n  \"y\": []\n- - 1\n  - 2\ne: null\n");
}

#[test]
fn strings_are_quoted_as_in_yaml_1_1() {
    for (text, want) in [
        ("a b", "a b"),
        ("", "\"\""),
        ("true", "\"true\""),
        ("y", "\"y\""),
        ("10", "\"10\""),
        ("1e3", "\"1e3\""),
        ("0x1F", "\"0x1F\""),
        ("1.2.3", "1.2.3"),
        ("10:20", "\"10:20\""),
        ("10:99", "10:99"),
        ("2024-01-02T03:04:05Z", "\"2024-01-02T03:04:05Z\""),
        ("2024-01-02", "\"2024-01-02\""),
        ("*/1 * * * *", "'*/1 * * * *'"),
        ("a: b", "'a: b'"),
        ("a:b", "a:b"),
        ("it's: x", "'it''s: x'"),
        ("- x", "'- x'"),
        ("-x", "-x"),
        ("a #b", "'a #b'"),
        ("a\tb", "\"a\\tb\""),
        (" a", "' a'"),
        ("{}", "'{}'"),
        ("a\nb\n", "|\n  a\n  b"),
        ("a\nb", "|-\n  a\n  b"),
        ("a\n\n", "|+\n  a\n"),
        ("a \nb", "\"a \\nb\""),
    ] {
        assert_eq!(encode(&json!({"k": text})), format!("k: {want}\n"), "{text:?}");
    }
}

#[test]
fn long_lines_are_folded() {
    let text = format!("{} tail of it", "word ".repeat(17).trim_end());
    let lines: Vec<String> = encode(&json!({"message": text})).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].len() > 80 && lines[1].starts_with("  "), "{lines:?}");
}

#[test]
fn keys_are_sorted_naturally() {
    let value = json!({"a10": 1, "a2": 1, "a": 1, "a-b": 1, "ab": 1});
    let keys: Vec<String> = encode(&value).lines().map(|l| l.split(':').next().unwrap_or("").to_owned()).collect();
    assert_eq!(keys, ["a", "a-b", "a2", "a10", "ab"]);
}

#[test]
fn floats_are_gos() {
    assert_eq!((go_float(1.5), go_float(1e21), go_float(1e-7)), ("1.5".into(), "1e+21".into(), "1e-07".into()));
}
