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
    let program = Program::compile(source, &[("self", &kind)]).map_err(|e| e.message)?;
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
        ("self.replicas +", "Syntax error: mismatched input '<EOF>' expecting expression"),
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
