//! Events of allocations that do not fit: what the operator has to see. The server writes them itself.

use std::sync::Arc;

use generic::{
    resource::{Resource, Stored, Swap},
    verbs::context::Moment,
};
use machinery::{ApiResult, meta};
use serde_json::{Value, json};

/// Writes Warning events.
pub struct Events {
    /// The Event objects.
    pub objects: Arc<Resource>,
    /// Where the server is.
    pub host: String,
}

impl Events {
    /// Says something about an object. Said again it counts; a failure is logged only.
    pub async fn warn(&self, reporter: &str, about: &Value, (reason, action): (&str, &str), note: &str) {
        tracing::warn!(namespace = meta::namespace(about), name = meta::name(about), reason, "{note}");
        if let Err(error) = self.write(self.event(reporter, about, (reason, action), note)).await {
            tracing::warn!(reason, %error, "an event is not written");
        }
    }

    async fn write(&self, event: Value) -> ApiResult<()> {
        if let Swap::Lost(Some(present)) = self.objects.insert(&event).await? {
            self.count(present).await?;
        }
        Ok(())
    }

    async fn count(&self, present: Stored) -> ApiResult<()> {
        let now = micro(&Moment::now());
        self.objects
            .amend(Some(present), |stored| {
                let mut new = stored.clone();
                let count = stored.pointer("/series/count").and_then(Value::as_i64).unwrap_or(1);
                if stored.pointer("/series/lastObservedTime").and_then(Value::as_str) == Some(now.as_str()) {
                    return None;
                }
                new["series"] = json!({"count": count.saturating_add(1), "lastObservedTime": now});
                Some(new)
            })
            .await
    }

    fn event(&self, reporter: &str, about: &Value, (reason, action): (&str, &str), note: &str) -> Value {
        let now = Moment::now();
        let namespace = match meta::namespace(about) {
            "" => "default",
            namespace => namespace,
        };
        // The same words about the same object have the same name.
        let words = format!("{}/{reason}/{note}", meta::text(about, "uid"));
        let name = format!("{}.{:016x}", meta::name(about), util::fnv64a(words.as_bytes()));
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "name": name, "namespace": namespace, "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": now.text,
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": meta::namespace(about),
                "name": meta::name(about), "uid": meta::text(about, "uid"),
                "resourceVersion": meta::text(about, "resourceVersion"),
            },
            "type": "Warning", "reason": reason, "action": action, "message": note,
            "eventTime": micro(&now), "firstTimestamp": null, "lastTimestamp": null, "source": {},
            "reportingComponent": reporter, "reportingInstance": format!("{reporter}-{}", self.host),
        })
    }
}

/// A time with the fraction that event times have.
fn micro(now: &Moment) -> String {
    format!("{}.000000Z", now.text.trim_end_matches('Z'))
}
