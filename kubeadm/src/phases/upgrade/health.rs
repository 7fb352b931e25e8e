//! Whether the cluster is well enough to be upgraded.

use std::time::Duration;

use serde_json::{Value, json};

use super::Upgrade;
use crate::{
    client::{Cluster, INTERVAL, items},
    constants::CONTROL_PLANE_LABEL,
    error::Result,
    images, manifests,
    preflight::{self, Findings},
};

/// Until the Job has run.
const JOB_PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn check(upgrade: &mut Upgrade) -> Result<()> {
    upgrade.init.host.line("[upgrade] Running cluster health checks");
    let api = upgrade.init.api().await?;
    let mut found = Vec::new();
    if !upgrade.init.dry_run {
        found.push(job(upgrade, &api).await);
    }
    found.push(nodes(&api).await);
    found.push(static_pods(upgrade));
    preflight::report(&*upgrade.init.host, &found, &upgrade.init.ignored)
}

/// A Job runs to its end.
async fn job(upgrade: &Upgrade, api: &Cluster) -> Findings {
    let found = Findings::of("CreateJob");
    match api.get("/api/v1/nodes?fieldSelector=spec.unschedulable%3Dfalse").await {
        Ok(Some(list)) if items(&list).next().is_some() => {}
        Ok(_) => return found.warning("there are no schedulable nodes in the cluster, the check is skipped"),
        Err(error) => return found.error(error.to_string()),
    }
    let now = upgrade.init.host.now().unix_timestamp_nanos() / 1_000_000;
    let name = format!("upgrade-health-check-{now}");
    let object = job_object(&name, &images::pause(upgrade.init.cluster()));
    if let Err(error) = api.create_if_absent(&*upgrade.init.host, &object).await {
        return found.error(format!("could not create Job {name:?} in the namespace \"kube-system\": {error}"));
    }
    let path = format!("/apis/batch/v1/namespaces/kube-system/jobs/{name}");
    let end = tokio::time::Instant::now() + JOB_PATIENCE;
    loop {
        let complete = api.get_once(&path).await.is_ok_and(|job| has_condition(&job, "Complete"));
        if complete {
            return found;
        }
        if tokio::time::Instant::now() > end {
            return found.error(format!(
                "Job {name:?} in the namespace \"kube-system\" did not complete in {}s",
                JOB_PATIENCE.as_secs()
            ));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn job_object(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 65,
            "activeDeadlineSeconds": 65,
            "template": {"spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsUser": 999, "runAsGroup": 999, "runAsNonRoot": true},
                "tolerations": [{"key": CONTROL_PLANE_LABEL, "effect": "NoSchedule"}],
                "containers": [{"name": name, "image": image, "args": ["-v"]}],
            }},
        },
    })
}

async fn nodes(api: &Cluster) -> Findings {
    let found = Findings::of("ControlPlaneNodesReady");
    let selector = CONTROL_PLANE_LABEL.replace('/', "%2F");
    let list = match api.get(&format!("/api/v1/nodes?labelSelector={selector}")).await {
        Ok(list) => list.unwrap_or_default(),
        Err(error) => return found.error(error.to_string()),
    };
    let absent: Vec<&str> =
        items(&list).filter(|node| !has_condition(node, "Ready")).map(machinery::meta::name).collect();
    found.error_if(!absent.is_empty(), || {
        format!("there are NotReady control-planes in the cluster: [{}]", absent.join(" "))
    })
}

fn static_pods(upgrade: &Upgrade) -> Findings {
    let missing: Vec<String> = manifests::COMPONENTS
        .iter()
        .filter(|name| **name != "etcd" || upgrade.init.cluster().has_local_etcd())
        .map(|name| manifests::path(name))
        .filter(|path| upgrade.init.host.kind(path).is_none())
        .map(|path| path.display().to_string())
        .collect();
    Findings::of("StaticPodManifest")
        .error_if(!missing.is_empty(), || format!("manifest files not found: [{}]", missing.join(" ")))
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
    conditions.into_iter().flatten().any(|condition| {
        text(condition, "type").as_deref() == Some(kind) && text(condition, "status").as_deref() == Some("True")
    })
}
