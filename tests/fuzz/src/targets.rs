//! What reads bytes, and what has to hold of its answers.

mod language;
mod objects;
mod streams;

use crate::{Target, seeds};

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "json", seeds: seeds::json_objects, read: objects::json },
    Target { name: "yaml", seeds: seeds::yaml_objects, read: objects::yaml },
    Target { name: "protobuf", seeds: seeds::protobuf_objects, read: objects::protobuf },
    Target { name: "rules", seeds: seeds::json_objects, read: objects::rules },
    Target { name: "json-patch", seeds: seeds::patches, read: objects::json_patch },
    Target { name: "merge-patch", seeds: seeds::patches, read: objects::merge_patch },
    Target { name: "strategic-patch", seeds: seeds::patches, read: objects::strategic_patch },
    Target { name: "apply", seeds: seeds::patches, read: objects::apply },
    Target { name: "schema", seeds: seeds::schemas, read: objects::schema },
    Target { name: "label-selector", seeds: seeds::label_selectors, read: language::label_selector },
    Target { name: "field-selector", seeds: seeds::field_selectors, read: language::field_selector },
    Target { name: "quantity", seeds: seeds::quantities, read: language::quantity },
    Target { name: "time", seeds: seeds::times, read: language::time },
    Target { name: "continue", seeds: seeds::tokens, read: language::token },
    Target { name: "expression", seeds: seeds::expressions, read: language::expression },
    Target { name: "jsonpath", seeds: seeds::templates, read: language::jsonpath },
    Target { name: "names", seeds: seeds::names, read: language::names },
    Target { name: "spdy", seeds: seeds::spdy, read: streams::spdy },
];
