use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(selector: &str, labels: &[(&str, &'static str)]) -> bool {
    let selector = LabelSelector::parse(selector).expect("selector");
    selector.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
}

#[test]
fn label_selectors() {
    let labels = [("app", "web"), ("tier", "1")];
    for yes in [
        "",
        "app=web",
        "app==web",
        "app!=db",
        "app in (db, web)",
        "app notin (db)",
        "app",
        "!x",
        "tier>0",
        "x notin (a)",
    ] {
        assert!(matches(yes, &labels), "{yes}");
    }
    for no in ["app=db", "!app", "x", "x in (a)", "tier<1", "app=web,tier=2"] {
        assert!(!matches(no, &labels), "{no}");
    }
    for bad in ["app in web", "=x", "a,,b", "a b", "app in (a"] {
        assert!(LabelSelector::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn objects_select() {
    let selector =
        json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]});
    let selector = LabelSelector::from_object(&selector).expect("selector");
    assert_eq!(selector.to_string(), "a in (x,y),b=1");
    assert!(!LabelSelector::from_object(&Value::Null).expect("selector").matches(|_| None));
    assert!(LabelSelector::from_object(&json!({})).expect("selector").matches(|_| None));
}

#[test]
fn field_selectors() {
    let selector = FieldSelector::parse("metadata.name=a,status.phase!=Failed").expect("selector");
    assert_eq!(selector.exact("metadata.name"), Some("a"));
    assert!(selector.matches(|f| if f == "metadata.name" { "a" } else { "Running" }));
    assert!(!selector.matches(|_| "a,b") || selector.exact("x").is_some());
    assert_eq!(FieldSelector::parse("a=b\\,c").expect("selector").exact("a"), Some("b,c"));
    assert!(FieldSelector::parse("nonsense").is_err());
}

#[test]
fn errors_are_gos() {
    for (text, want) in [
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("!,", "unable to parse requirement: found ',', expected: identifier"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(LabelSelector::parse(text).map_err(|e| e.full_text()), Err(want.to_owned()), "{text}");
    }
    let error = LabelSelector::parse("a=-").expect_err("bad value").full_text();
    assert!(
        error.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be"),
        "{error}"
    );
    let error = LabelSelector::parse("a/b/c=d").expect_err("bad key").full_text();
    assert!(
        error.starts_with("unable to parse requirement: key: Invalid value: \"a/b/c\": a valid label key must"),
        "{error}"
    );
}

#[test]
fn empty_values_are_values() {
    assert!(matches("a=", &[("a", "")]));
    assert!(matches("a in (,x)", &[("a", "")]));
    assert!(matches("a in (x,)", &[("a", "")]));
    assert!(matches("a in ()", &[("a", "")]));
    assert!(matches("in in (in)", &[("in", "in")]));
}

proptest! {
    #[test]
    fn printed_selectors_parse_to_themselves(keys in proptest::collection::vec("[a-z]{1,3}", 1..4), operator in 0..5_usize) {
        let terms: Vec<String> = keys
            .iter()
            .map(|k| ["K=v", "K!=v", "K in (v,w)", "!K", "K>3"][operator].replace('K', k))
            .collect();
        let selector = LabelSelector::parse(&terms.join(",")).expect("selector");
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn no_text_panics(text in "[a-z=!<>(), \\\\-]{0,30}") {
        drop(LabelSelector::parse(&text));
        drop(FieldSelector::parse(&text));
    }
}
