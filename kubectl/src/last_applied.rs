//! The annotation that remembers what was applied.

use machinery::meta;
use serde_json::{Map, Value, json};

use crate::print::{declared, json};

/// Its key.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What was applied last, if the object remembers.
pub fn read(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str()
}

/// The text for an object: the object itself without the annotation.
pub fn text(object: &Value) -> String {
    let mut bare = object.clone();
    strip(&mut bare);
    let metadata = meta::metadata_mut(&mut bare);
    if !metadata.get("annotations").is_some_and(Value::is_object) {
        metadata.insert("annotations".into(), json!({}));
    }
    json::compact(&bare) + "\n"
}

/// The same for an object that is sent without the annotation: no empty annotations are added.
pub fn plain_text(object: &Value) -> String {
    let mut bare = object.clone();
    let had = read(object).is_some();
    strip(&mut bare);
    let metadata = meta::metadata_mut(&mut bare);
    if had && metadata["annotations"].as_object().is_some_and(Map::is_empty) {
        metadata.remove("annotations");
    }
    json::compact(&bare) + "\n"
}

/// Removes the annotation.
pub fn strip(object: &mut Value) {
    if let Some(Value::Object(annotations)) = meta::metadata_mut(object).get_mut("annotations") {
        annotations.remove(ANNOTATION);
    }
}

/// Writes what the object is into its annotation.
pub fn write(object: &mut Value) {
    let text = text(object);
    put(object, text);
}

/// The same for an object that a generator made: in the order of its declaration, without empty annotations.
pub fn write_declared(object: &mut Value) {
    let text = declared::compact(object) + "\n";
    put(object, text);
}

fn put(object: &mut Value, text: String) {
    let metadata = meta::metadata_mut(object);
    if !metadata.get("annotations").is_some_and(Value::is_object) {
        metadata.insert("annotations".into(), Value::Object(Map::new()));
    }
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.insert(ANNOTATION.into(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_does_not_hold_itself() {
        let mut object = json!({"kind": "A", "metadata": {"name": "x"}});
        write(&mut object);
        let first = read(&object).map(str::to_owned);
        assert_eq!(first.as_deref(), Some("{\"kind\":\"A\",\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n"));
        write(&mut object);
        assert_eq!(read(&object).map(str::to_owned), first);
    }
}
