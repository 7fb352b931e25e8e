use serde_json::json;

use super::*;

fn printed(template: &str) -> Result<String, PathError> {
    let value = json!({
        "kind": "List", "n": 3, "o": {"a.b": "dotted"},
        "items": [
            {"name": "a", "size": 1, "ok": true, "tags": ["x", "y", "z"]},
            {"name": "b", "size": 2, "extra": null},
        ],
    });
    Template::parse(template)?.print(&value, true)
}

#[test]
fn templates_print() {
    let table = [
        ("kind is {.kind}\n", "kind is List\n"),
        ("{.items[*].name}", "a b"),
        ("{$.items[-1].name}", "b"),
        ("{.items[0].tags[0:2]}", "x y"),
        ("{.items[0].tags[::2]}", "x z"),
        ("{.items[0].tags[0,2]}", "x z"),
        ("{.items[0]['name','size']}", "a 1"),
        ("{..name}", "a b"),
        (r"{.o.a\.b}", "dotted"),
        ("{.o['a\\.b']}", "dotted"),
        ("{.o}", r#"{"a.b":"dotted"}"#),
        ("{.items[1].extra}", "null"),
        ("{.missing.thing}", ""),
        (r#"{.items[?(@.name=="b")].size}"#, "2"),
        ("{.items[?(@.size>=2)].name}", "b"),
        ("{.items[?(@.ok)].name}", "a"),
        ("{.items[?(@.ok==true)].name}", "a"),
        (r#"{range .items[*]}{.name}{"\t"}{.size}{"\n"}{end}"#, "a\t1\nb\t2\n"),
    ];
    for (template, wanted) in table {
        assert_eq!(printed(template).as_deref(), Ok(wanted), "{template}");
    }
}

#[test]
fn failures_are_told() {
    let table = [
        ("{.x", "unclosed action"),
        ("{.items[3]}", "array index out of bounds: index 3, length 2"),
        ("{end}", "not in range, nothing to end"),
    ];
    for (template, wanted) in table {
        assert_eq!(printed(template).map_err(|e| e.to_string()), Err(wanted.to_owned()), "{template}");
    }
}

#[test]
fn relaxed_paths_need_no_braces() {
    let value = json!({"a": {"b": 1}});
    for path in ["{.a.b}", ".a.b", "a.b"] {
        assert_eq!(Template::parse_relaxed(path).and_then(|t| t.print(&value, true)).as_deref(), Ok("1"));
    }
}

#[test]
fn paths_that_multiply_are_refused() {
    let mut value = json!(1);
    for _ in 0..20 {
        value = json!({"a": value, "b": [1, 2, 3]});
    }
    let ranges = format!("{}{{.}}{}", "{range ..}".repeat(20), "{end}".repeat(20));
    for path in [format!("{{{}}}", "..".repeat(20)), ranges] {
        let template = Template::parse(&path).expect("a template");
        let refused = template.print(&value, true).map(|text| text.len());
        assert_eq!(refused.map_err(|error| error.to_string()), Err("the path selects too much".into()), "{path}");
    }
    let many: Vec<_> = (0..2_000_000).collect();
    let template = Template::parse("{[*]}").expect("a template");
    assert_eq!(template.find(&json!(many)).map(|found| found.len()).ok(), Some(2_000_000));
}
