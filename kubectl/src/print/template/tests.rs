use serde_json::json;

use super::GoTemplate;

fn printed(text: &str) -> String {
    let data = json!({
        "metadata": {"name": "web", "labels": {"a": "1", "b": "2"}},
        "items": [{"n": "x", "p": 80}, {"n": "y", "p": 1_000_000}],
        "empty": [], "flag": true, "data": {"k": "aGk="},
    });
    match GoTemplate::parse(text, true).map(|t| t.execute(&data)) {
        Ok((out, Ok(()))) => out,
        Ok((_, Err(error))) | Err(error) => format!("error: {error}"),
    }
}

#[test]
fn templates_print() {
    for (template, want) in [
        ("{{.metadata.name}}!", "web!"),
        ("{{.nothing}}{{.a.b}}", "<no value><no value>"),
        ("{{range .items}}{{.n}}={{.p}} {{end}}", "x=80 y=1e+06 "),
        ("{{range $i, $e := .items}}{{$i}}{{$e.n}}{{end}}", "0x1y"),
        ("{{range $k, $v := .metadata.labels}}{{$k}}:{{$v}},{{end}}", "a:1,b:2,"),
        ("{{range .empty}}x{{else}}none{{end}}", "none"),
        ("{{if and .flag (eq .metadata.name \"web\")}}yes{{else}}no{{end}}", "yes"),
        ("{{if .x}}a{{else if .flag}}b{{else}}c{{end}}", "b"),
        ("{{with .metadata}}{{.name}}{{$.flag}}{{end}}", "webtrue"),
        ("a {{- /* c */ -}} b", "ab"),
        ("a {{- 1 -}} b", "a1b"),
        ("{{len .items}} {{index .items 0 \"n\"}} {{(index .items 1).n}}", "2 x y"),
        ("{{.metadata.name | printf \"%s-%v-%q\" \"a\" 3}}", "a-3-\"web\""),
        ("{{.data.k | base64decode}}", "hi"),
        ("{{exists . \"metadata\" \"labels\" \"a\"}}{{exists .items 5}}", "truefalse"),
        ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .metadata.name}}", "<web>"),
        ("{{range .items}}{{if eq .n \"x\"}}{{continue}}{{end}}{{.n}}{{end}}", "y"),
        ("{{.metadata.labels}}", "map[a:1 b:2]"),
        ("{{\"\\n\"}}{{`raw`}}", "\nraw"),
        ("{{html \"<a>\"}}{{print 1 2 \"c\"}}{{not true}}", "&lt;a&gt;1 2cfalse"),
    ] {
        assert_eq!(printed(template), want, "{template}");
    }
}

#[test]
fn failures_name_their_place() {
    for (template, want) in [
        ("{{.x", "error: template: output:1: unclosed action"),
        ("{{if .x}}", "error: template: output:1: unexpected EOF"),
        ("{{nope .}}", "error: template: output:1: function \"nope\" not defined"),
        (
            "{{.metadata.name.x}}",
            "error: template: output:1:2: executing \"output\" at <.metadata.name.x>: can't evaluate field x in type string",
        ),
    ] {
        assert_eq!(printed(template), want, "{template}");
    }
}
