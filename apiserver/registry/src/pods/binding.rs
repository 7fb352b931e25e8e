//! `pods/binding` and the legacy `bindings`: assigning a Pod to a node.

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    admission::Operation,
    endpoint::{Call, Handler},
    negotiate::Target,
    options::WriteOptions,
    resource::{Resource, Stored, Swap},
    verbs::{body, context::Moment},
};
use http::{Response, StatusCode};
use machinery::{ApiError, ApiResult, GroupResource, GroupVersionKind, Reason, meta};
use serde_json::{Value, json};
use std::sync::Arc;

const ATTEMPTS: usize = 16;

/// Handler of bindings.
pub struct Binding {
    /// The Pods.
    pub pods: Arc<Resource>,
}

#[async_trait]
impl Handler for Binding {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        if call.method != http::Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let options = WriteOptions::parse("CreateOptions", &call.query, &call.headers, false)?;
        let kind = GroupVersionKind::new("", "v1", "Binding");
        let mut binding = body::decode_object(call, &kind, options.field_validation)?;
        body::check_namespace(&mut binding, call)?;
        let name = match call.info.name.as_str() {
            "" => meta::name(&binding).to_owned(),
            name => name.to_owned(),
        };
        if name.is_empty() {
            return Err(ApiError::bad_request("name is required"));
        }
        if !meta::name(&binding).is_empty() && meta::name(&binding) != name {
            let text = format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                meta::name(&binding)
            );
            return Err(ApiError::bad_request(text));
        }
        let node = target(&binding)?;
        let mut request = call.admission(Operation::Create, &name, options.dry_run);
        request.kind = kind;
        call.server.plugins.admit(&request, Some(&mut binding), None).await?;
        call.server.plugins.validate(&request, Some(&binding), None).await?;
        self.bind(call, &binding, &name, &node, options.dry_run).await?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        call.writer(Target::Plain)?.object(StatusCode::CREATED, status)
    }
}

/// The node that a binding names.
fn target(binding: &Value) -> ApiResult<String> {
    let text = |field: &str| binding.pointer(&format!("/target/{field}")).and_then(Value::as_str).unwrap_or("");
    let plain = |message: String| ApiError::new(500, Reason::Unknown, message);
    if !matches!(text("kind"), "" | "Node") {
        return Err(plain(format!(
            "target.kind: Unsupported value: {:?}: supported values: \"Node\", \"<empty>\"",
            text("kind")
        )));
    }
    if text("name").is_empty() {
        return Err(plain("target.name: Required value".into()));
    }
    Ok(text("name").to_owned())
}

impl Binding {
    async fn bind(&self, call: &Call, binding: &Value, name: &str, node: &str, dry_run: bool) -> ApiResult<()> {
        let namespace = &call.info.namespace;
        let pods = GroupResource::new("", "pods");
        let missing = || ApiError::not_found(&pods, name);
        let mut stored = self.pods.starting_point(namespace, name).await?.ok_or_else(missing)?;
        let mut fresh = false;
        for _ in 0..ATTEMPTS {
            let bound = match bound(binding, &stored, name, node) {
                Ok(bound) => bound,
                Err(error) if fresh => return Err(error),
                Err(_) => {
                    stored = self.pods.current(namespace, name).await?.ok_or_else(missing)?;
                    fresh = true;
                    continue;
                }
            };
            if dry_run {
                return Ok(());
            }
            match self.pods.replace(&bound, stored.revision).await? {
                Swap::Done(_) => return Ok(()),
                Swap::Lost(current) => {
                    stored = current.ok_or_else(missing)?;
                    fresh = true;
                }
            }
        }
        Err(ApiError::stale(&pods, name))
    }
}

/// The Pod with the binding taken over.
fn bound(binding: &Value, stored: &Stored, name: &str, node: &str) -> ApiResult<Value> {
    let old = &stored.object;
    let conflict = |why: String| ApiError::conflict(&GroupResource::new("", "pods/binding"), name, &why);
    for (field, kind) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, present) = (meta::text(binding, field), meta::text(old, field));
        if !wanted.is_empty() && wanted != present {
            return Err(conflict(format!(
                "Precondition failed: {kind} in precondition: {wanted}, {kind} in object meta: {present}"
            )));
        }
    }
    if meta::is_deleting(old) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let present = old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if !present.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {present:?}")));
    }
    if old.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = old.clone();
    pod["spec"]["nodeName"] = json!(node);
    for field in ["annotations", "labels"] {
        let entries: Vec<(String, String)> =
            meta::text_map(binding, field).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        if !entries.is_empty() {
            let map = meta::metadata_mut(&mut pod).entry(field).or_insert_with(|| json!({}));
            for (key, value) in entries {
                meta::object_mut(map).insert(key, json!(value));
            }
        }
    }
    let status = meta::object_mut(meta::object_mut(&mut pod).entry("status").or_insert_with(|| json!({})));
    status.remove("nominatedNodeName");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    set_scheduled(conditions);
    Ok(pod)
}

fn set_scheduled(conditions: &mut Value) {
    let Some(list) = conditions.as_array_mut() else { return };
    let present = list.iter_mut().find(|c| c["type"] == "PodScheduled");
    if present.as_ref().is_some_and(|c| c["status"] == "True") {
        return;
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": Moment::now().text,
    });
    match present {
        Some(present) => *present = condition,
        None => list.push(condition),
    }
}
