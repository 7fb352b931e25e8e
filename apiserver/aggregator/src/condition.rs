//! The condition `Available`.

use serde_json::{Value, json};

/// Type of the condition.
const AVAILABLE: &str = "Available";

/// Whether an APIService can be used, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Availability {
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Availability {
    /// This server answers itself.
    pub(crate) fn local() -> Self {
        Self { status: "True", reason: "Local", message: "Local APIServices are always available".into() }
    }

    /// The other server answers.
    pub(crate) fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".into() }
    }

    /// It does not.
    pub(crate) fn failed(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    pub(crate) fn is_available(&self) -> bool {
        self.status == "True"
    }

    /// The APIService with the condition, `None` if it says so already. Times change with the status only.
    pub(crate) fn applied(&self, object: &Value, now: &str) -> Option<Value> {
        let mut conditions =
            object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let at = conditions.iter().position(|c| c["type"] == AVAILABLE);
        let present = at.map_or(&Value::Null, |at| &conditions[at]);
        let same = |field: &str, value: &str| present[field].as_str().unwrap_or_default() == value;
        if same("status", self.status) && same("reason", self.reason) && same("message", &self.message) {
            return None;
        }
        let since = match present["lastTransitionTime"].as_str() {
            Some(since) if same("status", self.status) => since,
            _ => now,
        };
        let condition = json!({"type": AVAILABLE, "status": self.status, "reason": self.reason,
            "message": self.message, "lastTransitionTime": since});
        match at {
            Some(at) => conditions[at] = condition,
            None => conditions.insert(0, condition),
        }
        let mut changed = object.clone();
        if !changed["status"].is_object() {
            changed["status"] = json!({});
        }
        changed["status"]["conditions"] = Value::Array(conditions);
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_written_once() {
        let bare = json!({"metadata": {"name": "v1.apps"}});
        let first = Availability::local().applied(&bare, "T1").expect("changed");
        assert_eq!(
            first["status"]["conditions"],
            json!([{"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available", "lastTransitionTime": "T1"}])
        );
        assert_eq!(Availability::local().applied(&first, "T2"), None);
        let passed = Availability::passed().applied(&first, "T2").expect("changed");
        assert_eq!(passed["status"]["conditions"][0]["lastTransitionTime"], "T1");
        let failed = Availability::failed("ServiceNotFound", "gone".into()).applied(&passed, "T3").expect("changed");
        assert_eq!(failed["status"]["conditions"][0]["lastTransitionTime"], "T3");
        let foreign = json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}});
        let both = Availability::local().applied(&foreign, "T1").expect("changed");
        assert_eq!(both["status"]["conditions"][0]["type"], "Available");
        assert_eq!(both["status"]["conditions"][1]["type"], "Other");
    }
}
