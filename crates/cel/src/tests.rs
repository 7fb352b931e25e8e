use serde_json::{Value as Json, json};

use super::*;

fn object() -> Type {
    let item = Type::object([("name".to_owned(), Type::String), ("port".to_owned(), Type::Int)]);
    Type::object([
        ("replicas".to_owned(), Type::Int),
        ("min".to_owned(), Type::Int),
        ("ratio".to_owned(), Type::Double),
        ("name".to_owned(), Type::String),
        ("a-b".to_owned(), Type::String),
        ("at".to_owned(), Type::Timestamp),
        ("span".to_owned(), Type::Duration),
        ("items".to_owned(), Type::list(item)),
        ("tags".to_owned(), Type::Set(Type::String.into())),
        ("labels".to_owned(), Type::map(Type::String)),
        ("any".to_owned(), Type::Dyn),
    ])
}

fn data() -> Json {
    json!({
        "replicas": 3, "min": 1, "ratio": 2, "name": "web-1", "a-b": "x", "at": "2024-02-29T12:00:00Z", "span": "90m",
        "items": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "tags": ["a", "b"], "labels": {"app": "web"}, "any": {"deep": [1, 2.5, "x"]}, "hidden": 1,
    })
}

fn run(source: &str) -> Result<bool, String> {
    let (kind, data) = (object(), data());
    let program = Program::compile(source, &[("self", &kind)]).map_err(|e| e.issues()[0].message.clone())?;
    let mut budget = Budget::new(1_000_000);
    match program.run(&[("self", Val::of(&data, &kind))], &mut budget) {
        Ok(Val::Bool(value)) => Ok(value),
        Ok(other) => Err(format!("not a truth value: {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_holds() {
    for source in [
        "self.replicas >= self.min && self.min > 0",
        "self.ratio == 2.0 && self.ratio > 1",
        "self.a__dash__b == 'x'",
        "1 + 2 * 3 == 7 && -7 / 2 == -3 && 7 % 3 == 1 && 2u + 3u == 5u",
        "0x1F == 31 && 1e3 == 1000.0 && r'\\n'.size() == 2 && '\\u00e9'.size() == 1",
        "self.items.all(i, i.port > 0) && self.items.exists(i, i.name == 'http')",
        "self.items.exists_one(i, i.port == 80) && self.items.map(i, i.port) == [80, 443]",
        "self.items.filter(i, i.port > 100).size() == 1 && self.items[1].name == 'https'",
        "has(self.name) && !has(self.labels.none) && 'app' in self.labels && self.labels['app'] == 'web'",
        "self.labels.all(k, k.startsWith('a')) && self.labels.exists(k, self.labels[k] == 'web')",
        "self.tags == ['b', 'a'] && 'a' in self.tags",
        "self.at.getFullYear() == 2024 && self.at + duration('24h') == timestamp('2024-03-01T12:00:00Z')",
        "self.span == duration('1h30m') && self.span.getMinutes() == 90 && self.span > duration('1h')",
        "self.name.matches('^web-[0-9]+$') && self.name.split('-')[1] == '1' && self.name.indexOf('-') == 3",
        "self.name.replace('web', 'db').upperAscii() == 'DB-1' && 'a,b'.split(',').join('+') == 'a+b'",
        "'%s has %d of %.1f'.format([self.name, 2, 1.5]) == 'web-1 has 2 of 1.5'",
        "[3, 1, 2].max() == 3 && [1, 2].sum() == 3 && [1, 1, 2].isSorted() && [1, 2].indexOf(2) == 1",
        "sets.contains([1, 2, 3], [1, 3]) && sets.equivalent([1, 2], [2, 1]) && !sets.intersects([1], [2])",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('500m')).compareTo(quantity('1')) == 0",
        "isIP('10.0.0.1') && ip('::1').isLoopback() && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "cidr('10.0.0.0/8').containsCIDR(cidr('10.2.0.0/16')) && cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24')",
        "url('https://u@h:8080/p?q=1&q=2').getPort() == '8080' && url('https://h/p?q=1&q=2').getQuery()['q'].size() == 2",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.2') == false && semver('v1.2', true).minor() == 2",
        "semver('1.0.0-alpha.1').isLessThan(semver('1.0.0'))",
        "self.?name.orValue('') == 'web-1' && self.labels[?'no'].orValue('d') == 'd' && !optional.none().hasValue()",
        "optional.of(2).optMap(x, x + 1).value() == 3 && [?self.labels[?'no'], 'y'] == ['y']",
        "[self.labels[?'app'], self.labels[?'no']].unwrapOpt() == ['web'] && optional.unwrap([optional.of(1)]) == [1]",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1] && {'a': 1, 'b': 2}.transformList(k, v, v) == [1, 2]",
        "cel.bind(x, self.replicas * 2, x + x == 12)",
        "self.any.deep[1] == 2.5 && type(self.any.deep[0]) == int && size(self.any.deep) == 3",
        "format.dns1123Label().validate('a.b').hasValue() && !format.named('dns1123Label').value().validate('ab').hasValue()",
        "[1, 2].all(i, v, v > i) && {'a': 1}.transformMap(k, v, v + 1)['a'] == 2",
        "(false || self.min > 0 ? 'x' : 'y') == 'x' && (true || 1 / 0 > 0) && !(1 / 0 > 0 && false)",
        "string(1.5) == '1.5' && int('12') == 12 && double(3) == 3.0 && string(duration('90s')) == '90s'",
        "math.greatest(1, 2, 3) == 3 && math.least([4, 2]) == 2 && 'abc'.reverse() == 'cba'",
        "'äöü'.charAt(1) == 'ö' && 'hello'.substring(1, 3) == 'el' && 'hello'.lastIndexOf('l') == 3",
    ] {
        assert_eq!(run(source), Ok(true), "{source}");
    }
}

#[test]
fn what_fails_when_it_runs() {
    for (source, text) in [
        ("self.labels['no'] == 'x'", "no such key: no"),
        ("self.items[5].port == 1", "index out of bounds: 5"),
        ("1 / (self.min - 1) == 1", "division by zero"),
        ("9223372036854775807 + self.min > 0", "integer overflow"),
        ("self.any.missing == 1", "no such key: missing"),
        ("self.any > 1", "no such overload"),
        ("int('x') == 1", "type conversion error from 'string' to 'int'"),
        (
            "lists.range(100000).all(i, lists.range(100000).all(j, true))",
            "operation cancelled: actual cost limit exceeded",
        ),
    ] {
        assert_eq!(run(source), Err(text.to_owned()), "{source}");
    }
}

#[test]
fn what_does_not_compile() {
    for (source, text) in [
        ("self.foo == 1", "undefined field 'foo'"),
        ("other == 1", "undeclared reference to 'other' (in container '')"),
        ("self.name > 1", "found no matching overload for '_>_' applied to '(string, int)'"),
        ("self.name.frob()", "undeclared reference to 'frob' (in container '')"),
        ("self.name.startsWith(1)", "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("self.hidden == 1", "undefined field 'hidden'"),
        (
            "self.replicas +",
            "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', \
             NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
        ("self.items.all(i, i.port)", "found no matching overload for '_&&_' applied to '(bool, int)'"),
    ] {
        assert_eq!(run(source), Err(text.to_owned()), "{source}");
    }
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(run(&deep).is_err_and(|e| e.starts_with("expression recursion limit exceeded")));
    let kind = object();
    let error = Program::compile("true &&\n  self.foo", &[("self", &kind)]).expect_err("undefined");
    assert_eq!(error.to_string(), "ERROR: <input>:2:7: undefined field 'foo'\n |   self.foo\n | ......^");
}

#[test]
fn everything_that_is_wrong_is_told_where_it_is() {
    let kind = object();
    let wrong = |source: &str| Program::compile(source, &[("self", &kind)]).expect_err("wrong").to_string();
    assert_eq!(
        wrong("self.foo > 1 && self.name.frob(1)"),
        "ERROR: <input>:1:5: undefined field 'foo'\n | self.foo > 1 && self.name.frob(1)\n | ....^\n\
         ERROR: <input>:1:31: undeclared reference to 'frob' (in container '')\n \
         | self.foo > 1 && self.name.frob(1)\n | ..............................^"
    );
    assert_eq!(
        wrong("self.replicas > 'x'"),
        "ERROR: <input>:1:15: found no matching overload for '_>_' applied to '(int, string)'\n \
         | self.replicas > 'x'\n | ..............^"
    );
    assert_eq!(
        wrong("1 == 1)"),
        "ERROR: <input>:1:7: Syntax error: extraneous input ')' expecting <EOF>\n | 1 == 1)\n | ......^"
    );
    assert!(wrong("[1, 2").contains("Syntax error: missing ']' at '<EOF>'"));
    assert!(wrong("while == 1").contains("reserved identifier: while"));
    let deep = format!("{}1{}", "(1 + ".repeat(90), ")".repeat(90));
    assert!(Program::compile(&deep, &[]).is_ok());
    let wide = (0..90).fold("1".to_owned(), |inner, _| format!("({inner}{})", " + 1".repeat(90)));
    assert!(wrong(&wide).contains("expression recursion limit exceeded"));
}

#[test]
fn structures_become_data() {
    let made = |source: &str| {
        let program = Program::compile_with(source, &[], Structs::Mutation).map_err(|error| error.to_string())?;
        let mut budget = Budget::new(1_000_000);
        let value = program.run(&[], &mut budget).map_err(|error| error.to_string())?;
        value.to_json()
    };
    assert_eq!(
        made(
            "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{?replicas: optional.of(3), ?x: optional.none()}}"
        ),
        Ok(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 3}}))
    );
    assert_eq!(
        made("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'a'}]}}"),
        Ok(json!({"spec": {"containers": [{"name": "a"}]}}))
    );
    assert_eq!(
        made("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/~y'), value: Object.spec{n: 1}}]"),
        Ok(json!([{"op": "add", "path": "/a/x~1~0y", "value": {"n": 1}}]))
    );
    assert_eq!(
        made("Object{spec: Object.status{x: 1}}"),
        Err("unexpected type name \"Object.status\", expected \"Object.spec\", which matches field name path from \
             root Object type"
            .into())
    );
    assert!(made("JSONPatch{op: 1}").is_err_and(|e| e.contains("expected type of field 'op' is 'string'")));
    assert!(made("Other{op: 1}").is_err_and(|e| e.contains("undeclared reference to 'Other'")));
    assert!(Program::compile("Object{}", &[]).is_err());
}

#[test]
fn variables_are_evaluated_when_they_are_needed() {
    let types = [Type::Int, Type::Dyn];
    let known = Type::object([("bad".to_owned(), types[0].clone()), ("good".to_owned(), types[1].clone())]);
    let composed = vec![
        ("bad".to_owned(), Program::compile("1 / 0", &[]).expect("compiles")),
        ("good".to_owned(), Program::compile("[1, 2].map(x, x + 1)", &[]).expect("compiles")),
    ];
    let run = |source: &str| {
        let program = Program::compile(source, &[("variables", &known)]).map_err(|error| error.to_string())?;
        let mut activation = Activation::composed(Vec::new(), &composed);
        let mut budget = Budget::new(1_000_000);
        let outcome = program.run_in(&mut activation, &mut budget).map_err(|error| error.to_string());
        outcome.map(|value| format!("{value:?}"))
    };
    assert_eq!(run("variables.good[0] == 2 && variables.good.size() == 2"), Ok("Bool(true)".into()));
    assert_eq!(run("has(variables.bad) && (true || variables.bad == 1)"), Ok("Bool(true)".into()));
    assert_eq!(
        run("variables.bad == 1"),
        Err("composited variable \"bad\" fails to evaluate: division by zero".into())
    );
    assert!(run("variables.none == 1").is_err_and(|e| e.contains("undefined field 'none'")));
}

#[test]
fn the_authorizer_is_asked_outside() {
    let authorizer = Type::authorizer();
    let source = "authorizer.group('apps').resource('deployments').namespace('n').check('get').allowed() && \
                  authorizer.requestResource.check('delete').reason() == 'why' && \
                  authorizer.serviceAccount('n', 'a').path('/healthz').check('get').allowed() == false";
    let program = Program::compile(source, &[("authorizer", &authorizer)]).expect("compiles");
    let request = Check { resource: "pods".into(), name: "p".into(), ..Check::default() };
    let value = Val::Authorizer(std::sync::Arc::new(Authorizer::of_request(request)));
    let mut activation = Activation::new(vec![("authorizer", value)]);
    let mut asked = Vec::new();
    let outcome = loop {
        let mut budget = Budget::new(2_000_000);
        match program.run_in(&mut activation, &mut budget) {
            Err(EvalError::Undecided(check)) => {
                asked.push(format!("{} {}{}", check.verb, check.resource, check.path.as_deref().unwrap_or("")));
                let decision = Decision { allowed: check.path.is_none(), reason: "why".into() };
                activation.decide(*check, decision);
            }
            outcome => break outcome,
        }
    };
    assert_eq!(outcome.expect("a value"), Val::Bool(true));
    assert_eq!(asked, ["get deployments", "delete pods", "get /healthz"]);
    let mut budget = Budget::new(300_000);
    assert_eq!(program.run_in(&mut activation, &mut budget).expect_err("too dear"), EvalError::OutOfBudget);
}
