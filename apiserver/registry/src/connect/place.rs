//! The Pod, container and node that a log or stream is about.

use generic::{
    endpoint::Call,
    resource::{Resource, decode_cached},
};
use machinery::{ApiError, ApiResult, meta};
use serde_json::Value;
use storage::cache::Freshness;

/// A Pod as the connect subresources see it.
pub(super) struct Place(Value);

impl Place {
    /// The Pod that a call names.
    pub(super) async fn of(call: &Call, pods: &Resource) -> ApiResult<Self> {
        let cached = pods.get(&call.info.namespace, &call.info.name, Freshness::Any).await?;
        Ok(Self(decode_cached(&cached)?.object))
    }

    /// The Pod.
    pub(super) fn pod(&self) -> &Value {
        &self.0
    }

    /// The node it is bound to, or `""`.
    pub(super) fn node(&self) -> &str {
        self.0.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("")
    }

    fn names(&self, field: &str) -> Vec<&str> {
        let list = self.0.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    }

    /// The container asked for, or the only one.
    pub(super) fn container<'a>(&'a self, wanted: Option<&'a str>) -> ApiResult<&'a str> {
        let (pod, containers) = (meta::name(&self.0), self.names("containers"));
        let init = self.names("initContainers");
        let Some(wanted) = wanted.filter(|name| !name.is_empty()) else {
            if let [only] = containers.as_slice() {
                return Ok(*only);
            }
            let mut text =
                format!("a container name must be specified for pod {pod}, choose one of: [{}]", containers.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            return Err(ApiError::bad_request(text));
        };
        let ephemeral = self.names("ephemeralContainers");
        if containers.iter().chain(&init).chain(&ephemeral).any(|name| *name == wanted) {
            return Ok(wanted);
        }
        Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {pod}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen_as_upstream_does() {
        let one = Place(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}));
        assert_eq!(one.container(None).unwrap(), "a");
        let two = Place(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}}));
        let text = |error: ApiError| error.status().message.clone();
        assert_eq!(
            text(two.container(Some("")).unwrap_err()),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(two.container(Some("i")).unwrap(), "i");
        assert_eq!(text(two.container(Some("x")).unwrap_err()), "container x is not valid for pod p");
    }
}
