//! Tables of routing decisions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{backends::Endpoints, path};

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let paths: Vec<Value> = paths
        .iter()
        .map(|(path, kind, service)| json!({"path": path, "pathType": kind, "backend": backend(service)}))
        .collect();
    let mut rule = json!({"http": {"paths": paths}});
    if !host.is_empty() {
        rule["host"] = host.into();
    }
    rule
}

fn ingress(name: &str, age: u32, annotations: &[(&str, &str)], mut spec: Value) -> CachedIngress {
    let prefixed = annotations.iter().map(|(key, value)| (format!("{}{key}", annotations::PREFIX), *value));
    let annotations: BTreeMap<String, &str> = prefixed.collect();
    if spec.get("ingressClassName").is_none() {
        spec["ingressClassName"] = "nginx".into();
    }
    let time = format!("2024-01-01T00:{:02}:00Z", 59 - age);
    let object = json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": time,
        "annotations": annotations}, "spec": spec});
    let view = Whole(serde_json::from_value(object).expect("an Ingress"));
    Arc::new(Cached { key: ObjectKey::new("ns", name), uid: name.into(), resource_version: "1".into(), view })
}

fn certificate(name: &str) -> Arc<Certificate> {
    let (certificate, key) = runtime::tls::self_signed(name, &[name.to_owned()], &[]).expect("a certificate");
    Arc::new(Certificate::new(certificate.as_bytes(), key.as_bytes()).expect("a certificate"))
}

fn planned(ingresses: Vec<CachedIngress>, fallback: Option<&str>, catch_all: bool) -> Plan {
    let rules = ClassRules { name: "nginx".into(), classes: ["nginx".to_owned()].into(), ..ClassRules::default() };
    plan(&Inputs {
        ingresses,
        rules: &rules,
        settings: Settings::default(),
        fallback: fallback.map(|name| BackendKey { service: ObjectKey::new("ns", name), port: Port::First }),
        catch_all,
        default_certificate: certificate("default"),
        certificate: &|secret| match secret.name.as_str() {
            "missing" => Err("not there".into()),
            name => Ok(certificate(&name.replace('_', "*"))),
        },
        slot: &|key| Arc::new(Slot::new(key.clone(), Endpoints::None)),
    })
}

fn goes(plan: &Plan, host: &str, path: &str) -> Option<String> {
    let path = String::from_utf8(path::normalize(path)?).ok()?;
    plan.table.find(host, &path).route.map(|route| route.backend.key.service.name.clone())
}

fn messages(plan: &Plan) -> Vec<String> {
    plan.problems.iter().map(|p| format!("{} {}", p.reason, p.message)).collect()
}

#[test]
fn the_longest_path_of_the_host_wins() {
    let one = json!({"rules": [
        rule("a.b.c", &[("/", "Prefix", "root"), ("/foo", "Prefix", "foo"), ("/foo/bar", "Prefix", "bar"),
            ("/foo/exact", "Exact", "exact"), ("/impl", "ImplementationSpecific", "impl")]),
        rule("*.wild.com", &[("/", "Prefix", "wild")]),
        rule("b.wild.com", &[("/only", "Prefix", "named")]),
        rule("", &[("/any", "Prefix", "any")]),
    ]});
    let plan = planned(vec![ingress("one", 0, &[], one)], None, true);
    assert_eq!(messages(&plan), Vec::<String>::new());
    let table = [
        ("a.b.c", "/", Some("root")),
        ("a.b.c", "/foobar", Some("root")),
        ("a.b.c", "/foo", Some("foo")),
        ("a.b.c", "/foo/", Some("foo")),
        ("a.b.c", "/foo/x/../bar", Some("bar")),
        ("a.b.c", "/foo/bar/deep", Some("bar")),
        ("a.b.c", "/foo/exact", Some("exact")),
        ("a.b.c", "/foo/exact/", Some("foo")),
        ("a.b.c", "/implement", Some("impl")),
        ("a.b.c", "/%66oo", Some("foo")),
        ("x.wild.com", "/", Some("wild")),
        ("x.y.wild.com", "/any", Some("any")),
        ("wild.com", "/", None),
        ("b.wild.com", "/only", Some("named")),
        // The more specific host is asked alone.
        ("b.wild.com", "/", None),
        ("other", "/any/thing", Some("any")),
        ("other", "/", None),
    ];
    for (host, path, wanted) in table {
        assert_eq!(goes(&plan, host, path).as_deref(), wanted, "{host}{path}");
    }
}

#[test]
fn several_ingresses_share_a_host_and_the_older_one_wins() {
    let younger = json!({"rules": [rule("h", &[("/a", "Prefix", "late"), ("/b", "Prefix", "b")])]});
    let older = json!({"rules": [rule("h", &[("/a", "Prefix", "early")])]});
    let foreign = json!({"ingressClassName": "other", "rules": [rule("h", &[("/c", "Prefix", "c")])]});
    let all = vec![ingress("y", 1, &[], younger), ingress("o", 9, &[], older), ingress("f", 0, &[], foreign)];
    let plan = planned(all, None, true);
    assert_eq!(goes(&plan, "h", "/a").as_deref(), Some("early"));
    assert_eq!(goes(&plan, "h", "/b").as_deref(), Some("b"));
    assert_eq!(goes(&plan, "h", "/c"), None);
    assert_eq!(messages(&plan), [r#"Duplicate host "h" and path "/a" are already defined in ingress ns/o"#]);
    assert_eq!(plan.ours.len(), 2);
}

#[test]
fn defaults() {
    let with_rules = json!({"defaultBackend": backend("own"), "rules": [rule("h", &[("/a", "Prefix", "a")])]});
    let alone = json!({"defaultBackend": backend("all")});
    let both = || vec![ingress("r", 1, &[], with_rules.clone()), ingress("d", 0, &[], alone.clone())];
    let plan = planned(both(), Some("fallback"), true);
    assert_eq!(goes(&plan, "h", "/x").as_deref(), Some("own"));
    assert_eq!(goes(&plan, "other", "/x").as_deref(), Some("all"));
    let plan = planned(both(), Some("fallback"), false);
    assert_eq!(goes(&plan, "other", "/x").as_deref(), Some("fallback"));
    assert_eq!(messages(&plan), ["CatchAllDisabled Ingresses without a host are not served here"]);
    assert_eq!(goes(&planned(both(), None, false), "other", "/x"), None);
}

#[test]
fn expressions_and_rewrites() {
    let regex = json!({"rules": [rule("h", &[("/foo/(.*)", "ImplementationSpecific", "foo"), ("/foo/bar/(.*)", "Prefix", "bar")])]});
    let plain = json!({"rules": [rule("h", &[("/", "Prefix", "root"), ("/x", "Exact", "x")])]});
    let wrong = json!({"rules": [rule("h", &[("/(", "ImplementationSpecific", "wrong")])]});
    let rewrite = [("rewrite-target", "/admin/$1")];
    let all = vec![
        ingress("r", 2, &rewrite, regex),
        ingress("p", 1, &[], plain),
        ingress("w", 0, &[("use-regex", "true"), ("what", "x")], wrong),
    ];
    let plan = planned(all, None, true);
    assert_eq!(goes(&plan, "h", "/foo/a").as_deref(), Some("foo"));
    assert_eq!(goes(&plan, "h", "/FOO/bar/a").as_deref(), Some("bar"));
    assert_eq!(goes(&plan, "h", "/foo").as_deref(), Some("root"));
    assert_eq!(goes(&plan, "h", "/x/y").as_deref(), Some("root"));
    let told = messages(&plan);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "InvalidAnnotation annotation nginx.ingress.kubernetes.io/what: is not supported");
    assert!(told[1].starts_with(r#"InvalidPath path "/(" is no regular expression: "#), "{told:?}");
}

#[test]
fn certificates() {
    let spec = json!({
        "tls": [{"hosts": ["a.b", "_".replace('_', "*.w.x")], "secretName": "a.b"}, {"secretName": "n.o"},
            {"hosts": ["gone"], "secretName": "missing"}, {"hosts": ["bare"]}],
        "rules": [rule("a.b", &[("/", "Prefix", "s")]), rule("n.o", &[("/", "Prefix", "s")]), rule("gone", &[("/", "Prefix", "s")]),
            rule("bare", &[("/", "Prefix", "s")]), rule("plain", &[("/", "Prefix", "s")]), rule("*.w.x", &[("/", "Prefix", "s")])]});
    let plan = planned(vec![ingress("t", 0, &[], spec)], None, true);
    let chosen = |name: Option<&str>| plan.certificates.choose(name).names.join(" ");
    let secured = |host: &str| plan.table.find(host, "/").tls;
    assert!(chosen(Some("A.b")).contains("a.b") && secured("a.b"));
    assert!(chosen(Some("q.w.x")).contains("a.b") && secured("q.w.x"));
    assert!(chosen(Some("n.o")).contains("n.o") && secured("n.o"));
    // A certificate that is missing is no reason to answer in the clear.
    assert!(chosen(Some("gone")).contains("default") && secured("gone"));
    assert!(chosen(Some("bare")).contains("default") && secured("bare"));
    assert!(chosen(Some("plain")).contains("default") && !secured("plain"));
    assert!(chosen(None).contains("default"));
    assert_eq!(messages(&plan), ["InvalidCertificate secret ns/missing: not there"]);
    let used: Vec<&str> = plan.in_use.iter().map(|used| used.host.as_str()).collect();
    assert_eq!(used, ["a.b", "*.w.x", "n.o"]);
}
