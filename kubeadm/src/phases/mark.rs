//! Labels and taints of control planes.

use std::time::Duration;

use serde_json::{Value, json};

use super::init::Init;
use crate::{
    client::{Cluster, INTERVAL},
    config::{Taint, Timeouts},
    constants::{CONTROL_PLANE_LABEL, EXCLUDE_LOAD_BALANCERS},
    error::{Context, Result, fail},
    host::Host,
};

/// The patch that marks a Node which has these taints.
pub fn patch(present: &[Value], taints: &[Taint]) -> Result<Value> {
    let mut all = present.to_vec();
    for taint in taints {
        let same = |there: &&Value| {
            let text = |field: &str| there.get(field).and_then(Value::as_str).unwrap_or_default();
            text("key") == taint.key && text("effect") == taint.effect
        };
        if !all.iter().any(|there| same(&there)) {
            all.push(serde_json::to_value(taint).context("cannot encode a taint")?);
        }
    }
    let mut patch = json!({"metadata": {"labels": {CONTROL_PLANE_LABEL: "", EXCLUDE_LOAD_BALANCERS: ""}}});
    if !all.is_empty() {
        patch["spec"] = json!({"taints": all});
    }
    Ok(patch)
}

/// Marks a Node as soon as it is registered.
pub async fn mark(host: &dyn Host, api: &Cluster, node: &str, taints: &[Taint], patience: Duration) -> Result<()> {
    host.line(&format!(
        "[mark-control-plane] Marking the node {node} as control-plane by adding the labels: [{CONTROL_PLANE_LABEL} \
         {EXCLUDE_LOAD_BALANCERS}]"
    ));
    if !taints.is_empty() {
        let texts: Vec<String> = taints
            .iter()
            .map(|t| match t.value.as_str() {
                "" => format!("{}:{}", t.key, t.effect),
                value => format!("{}={value}:{}", t.key, t.effect),
            })
            .collect();
        host.line(&format!(
            "[mark-control-plane] Marking the node {node} as control-plane by adding the taints [{}]",
            texts.join(" ")
        ));
    }
    if api.is_told() {
        host.line(&format!("[dryrun] Would perform action PATCH on resource \"nodes\" in API group \"core/v1\"\n[dryrun] Resource name {node:?}"));
        return Ok(());
    }
    let path = format!("/api/v1/nodes/{node}");
    let end = tokio::time::Instant::now() + patience;
    let present = loop {
        let found = api.get(&path).await?;
        if let Some(object) = found
            && object.pointer("/metadata/labels/kubernetes.io~1hostname").is_some()
        {
            break object.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
        }
        if tokio::time::Instant::now() > end {
            return fail!("error patching Node {node:?}: the Node is not registered");
        }
        tokio::time::sleep(INTERVAL).await;
    };
    api.patch(&path, &patch(&present, taints)?).await.with_context(|| format!("error patching Node {node:?}"))?;
    Ok(())
}

pub(super) async fn init(init: &mut Init) -> Result<()> {
    let api = init.api().await?;
    let taints = init.config.init.node_registration.taints.clone().unwrap_or_default();
    mark(&*init.host, &api, init.node(), &taints, Timeouts::api(init.timeouts())).await
}
