//! `create configmap`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{Generated, generator_flags, source};
use crate::{command::Command, content_hash, context::Context, error::CommandError};

pub(super) fn command() -> Command {
    Command::new("configmap", "Create a config map from a local file, directory or literal value")
        .aliases(&["cm"])
        .usage("NAME [--from-file=[key=]source] [--from-literal=key1=value1] [--dry-run=server|client|none]")
        .examples(&[
            "kubectl create configmap my-config --from-file=path/to/bar",
            "kubectl create configmap my-config --from-literal=key1=config1 --from-literal=key2=config2",
            "kubectl create configmap my-config --from-env-file=path/to/foo.env",
        ])
        .flags(generator_flags())
        .flags(source::flags())
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let (mut data, mut binary): (Map<String, Value>, Map<String, Value>) = Default::default();
    for (key, value) in source::pairs(context)? {
        if let Some(problem) = machinery::names::config_key(&key).into_iter().next() {
            return Err(CommandError::plain(format!("{key:?} is not a valid key name for a ConfigMap: {problem}")));
        }
        for (held, field) in [(&data, "Data"), (&binary, "BinaryData")] {
            if held.contains_key(&key) {
                return Err(CommandError::plain(format!(
                    "cannot add key {key:?}, another key by that name already exists in {field} for ConfigMap {name:?}"
                )));
            }
        }
        match String::from_utf8(value) {
            Ok(text) => data.insert(key, json!(text)),
            Err(bytes) => binary.insert(key, json!(STANDARD.encode(bytes.as_bytes()))),
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    if context.flags.bool("append-hash") {
        let mut content = json!({"kind": "ConfigMap", "name": name, "data": data});
        if !binary.is_empty() {
            content["binaryData"] = json!(binary);
        }
        object["metadata"]["name"] = json!(format!("{name}-{}", content_hash::of(&content)));
    }
    if !data.is_empty() {
        object["data"] = json!(data);
    }
    if !binary.is_empty() {
        object["binaryData"] = json!(binary);
    }
    Generated::new(object, "failed to create configmap: ").finish(context).await
}
