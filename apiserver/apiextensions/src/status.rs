//! Writing what a definition is told about itself.

use generic::{
    resource::{Resource, Stored, Swap},
    verbs::context::Moment,
};
use machinery::{ApiError, ApiResult, meta};
use serde_json::{Value, json};

use crate::definition::{Condition, Names};

/// Attempts before others are let through first.
const ATTEMPTS: usize = 16;

/// Changes a definition, unless it is gone or another one of the same name has come. `change` answers whether there is
/// anything to store.
pub(crate) async fn modify(
    definitions: &Resource,
    name: &str,
    uid: &str,
    mut change: impl FnMut(&mut Value, &str) -> bool,
) -> ApiResult<()> {
    let mut present = definitions.starting_point("", name).await?;
    for _ in 0..ATTEMPTS {
        let Some(Stored { object, revision }) = present.filter(|stored| meta::uid(&stored.object) == uid) else {
            return Ok(());
        };
        let mut new = object;
        if !change(&mut new, &Moment::now().text) {
            return Ok(());
        }
        present = if meta::is_deleting(&new) && meta::finalizers(&new).is_empty() {
            match definitions.remove("", name, revision).await? {
                Ok(_) => return Ok(()),
                Err(current) => current,
            }
        } else {
            match definitions.replace(&new, revision).await? {
                Swap::Done(_) => return Ok(()),
                Swap::Lost(current) => current,
            }
        };
    }
    Err(ApiError::stale(&definitions.group_resource, name))
}

fn status_mut(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    meta::object_mut(meta::object_mut(object).entry("status").or_insert_with(|| json!({})))
}

/// Sets a condition. Its time changes with its status only. `false`: it stood there already.
pub(crate) fn set_condition(object: &mut Value, wanted: &Condition, now: &str) -> bool {
    let conditions = status_mut(object).entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = conditions.as_array_mut() else { return false };
    let present = list.iter_mut().find(|c| c.get("type").and_then(Value::as_str) == Some(&wanted.kind));
    let same = |c: &Value, key: &str, text: &str| c.get(key).and_then(Value::as_str) == Some(text);
    let since = match &present {
        Some(c) if same(c, "status", &wanted.status) => {
            if same(c, "reason", &wanted.reason) && same(c, "message", &wanted.message) {
                return false;
            }
            c.get("lastTransitionTime").cloned().unwrap_or_else(|| json!(now))
        }
        _ => json!(now),
    };
    let condition = json!({
        "type": wanted.kind, "status": wanted.status, "reason": wanted.reason, "message": wanted.message,
        "lastTransitionTime": since,
    });
    match present {
        Some(c) => *c = condition,
        None => list.push(condition),
    }
    true
}

/// Sets the accepted names. `false`: they stood there already.
pub(crate) fn set_names(object: &mut Value, names: &Names) -> bool {
    let mut accepted = json!({"plural": names.plural, "kind": names.kind});
    for (field, value) in [("singular", &names.singular), ("listKind", &names.list_kind)] {
        if !value.is_empty() {
            accepted[field] = json!(value);
        }
    }
    for (field, list) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        if !list.is_empty() {
            accepted[field] = json!(list);
        }
    }
    let status = status_mut(object);
    if status.get("acceptedNames") == Some(&accepted) {
        return false;
    }
    status.insert("acceptedNames".into(), accepted);
    true
}
