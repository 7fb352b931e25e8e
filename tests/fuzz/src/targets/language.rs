//! Texts of the small languages.

use std::sync::LazyLock;

use cel::{Budget, Program, Structs, Type, Val};
use machinery::{
    duration,
    jsonpath::Template,
    list::Continue,
    names,
    quantity::Quantity,
    selector::{FieldSelector, LabelSelector},
    time,
};
use serde_json::Value;

use crate::seeds;

/// Steps of an expression.
const STEPS: u64 = 200_000;
static POD: LazyLock<Value> = LazyLock::new(|| seeds::objects().pop().unwrap_or_default());

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn label_selector(bytes: &[u8]) {
    let Ok(selector) = LabelSelector::parse(&text(bytes)) else { return };
    let told = selector.to_string();
    match LabelSelector::parse(&told) {
        Ok(again) => assert_eq!(again.to_string(), told),
        Err(error) => panic!("{told:?}: {error}"),
    }
    selector.matches(|key| (key == "a").then_some("1"));
}

pub(super) fn field_selector(bytes: &[u8]) {
    if let Ok(selector) = FieldSelector::parse(&text(bytes)) {
        selector.matches(|field| if field == "metadata.name" { "a" } else { "" });
    }
}

pub(super) fn quantity(bytes: &[u8]) {
    let Ok(quantity) = Quantity::parse(&text(bytes)) else { return };
    let told = quantity.to_string();
    match Quantity::parse(&told) {
        Ok(again) => assert_eq!((again.to_string(), again.value()), (told, quantity.value())),
        Err(error) => panic!("{told:?}: {error}"),
    }
    quantity.milli_value();
    quantity.as_f64();
    quantity.round_up_milli().times(i64::MAX);
}

pub(super) fn time(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(at) = time::parse(&text) {
        assert_eq!(time::parse(&time::format(at)).ok().map(|again| again.unix_timestamp()), Some(at.unix_timestamp()));
    }
    if let Ok(at) = time::parse_micro(&text) {
        time::format_micro(at);
    }
    if let Ok(span) = duration::parse(&text) {
        assert_eq!(duration::parse(&duration::format(span)).ok().map(|again| again.0), Some(span.0));
        duration::human(span.0);
    }
}

pub(super) fn token(bytes: &[u8]) {
    if let Ok(token) = Continue::decode(&text(bytes)) {
        let told = token.encode();
        assert!(Continue::decode(&told).is_ok_and(|again| again.encode() == told), "{told}");
    }
}

pub(super) fn expression(bytes: &[u8]) {
    let source = text(bytes);
    let variables: [(&str, &Type); 2] = [("self", &Type::Dyn), ("n", &Type::Int)];
    let Ok(program) = Program::compile_with(&source, &variables, Structs::None) else { return };
    let values = [("self", Val::of(&POD, &Type::Dyn)), ("n", Val::Int(3))];
    if let Ok(value) = program.run(&values, &mut Budget::new(STEPS)) {
        drop(value.to_json());
    }
}

pub(super) fn jsonpath(bytes: &[u8]) {
    for parse in [Template::parse, Template::parse_relaxed] {
        if let Ok(template) = parse(&text(bytes)) {
            drop(template.print(&POD, true));
        }
    }
}

pub(super) fn names(bytes: &[u8]) {
    let text = text(bytes);
    for rule in [
        names::dns1123_label,
        names::dns1123_subdomain,
        names::wildcard_dns1123_subdomain,
        names::dns1035_label,
        names::qualified_name,
        names::label_value,
        names::path_segment,
        names::config_key,
        names::port_name,
        names::http_header_name,
        names::percent,
        names::env_name,
    ] {
        rule(&text);
    }
    // What storage keys are made of.
    if names::path_segment(&text).is_empty() {
        assert!(!text.contains('/') && !text.contains('%') && text != "." && text != "..", "{text:?}");
    }
}
