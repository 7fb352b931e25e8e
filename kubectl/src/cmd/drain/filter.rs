//! Which Pods of a Node have to go.

use machinery::meta;
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    context::Context,
    describe,
    error::CommandError,
};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DAEMON_SETS_IGNORED: &str = "ignoring DaemonSet-managed Pods";
const DAEMON_SETS: &str = "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
const LOCAL_DELETED: &str = "deleting Pods with local storage";
const LOCAL: &str = "cannot delete Pods with local storage (use --delete-emptydir-data to override)";
const ALONE_DELETED: &str = "deleting Pods that declare no controller";
const ALONE: &str = "cannot delete Pods that declare no controller (use --force to override)";

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) pods: Vec<Value>,
    /// `message: ns/pod, ns/pod`.
    pub(super) warnings: Vec<String>,
    pub(super) errors: Vec<String>,
}

/// What the flags allow.
#[derive(Clone, Copy, Debug, Default)]
struct Allowed {
    force: bool,
    ignore_daemon_sets: bool,
    delete_local: bool,
    /// Seconds after which Pods that are being deleted are not waited for; 0 always waits.
    skip_deleted: i64,
}

/// What becomes of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Goes(Option<&'static str>),
    Stays(Option<&'static str>),
    Refused(&'static str),
}

/// Reads the Pods of a Node and sorts them.
pub(super) async fn choose(context: &Context, cluster: &Cluster, node: &str) -> Result<Chosen, CommandError> {
    let flags = &context.flags;
    let allowed = Allowed {
        force: flags.bool("force"),
        ignore_daemon_sets: flags.bool("ignore-daemonsets"),
        delete_local: flags.bool("delete-emptydir-data"),
        skip_deleted: flags.int("skip-wait-for-delete-timeout"),
    };
    let call = Call::get("/api/v1/pods")
        .query_if("labelSelector", flags.text("pod-selector"))
        .query("fieldSelector", format!("spec.nodeName={node}"));
    let pods = describe::list(cluster, call).await?;
    let now = jiff::Timestamp::now().as_second();
    let mut chosen = Chosen::default();
    let (mut warnings, mut errors): (Groups, Groups) = (Vec::new(), Vec::new());
    for pod in pods {
        let controlled = match daemon_set(&pod) {
            Some(name) => is_there(cluster, &pod, name).await?,
            None => true,
        };
        let title = format!("{}/{}", meta::namespace(&pod), meta::name(&pod));
        match fate(&pod, allowed, controlled, now) {
            Fate::Goes(note) => {
                note.into_iter().for_each(|note| add(&mut warnings, note, &title));
                chosen.pods.push(pod);
            }
            Fate::Stays(note) => note.into_iter().for_each(|note| add(&mut warnings, note, &title)),
            Fate::Refused(reason) => add(&mut errors, reason, &title),
        }
    }
    let texts = |groups: Groups| groups.into_iter().map(|(m, pods)| format!("{m}: {}", pods.join(", "))).collect();
    (chosen.warnings, chosen.errors) = (texts(warnings), texts(errors));
    Ok(chosen)
}

type Groups = Vec<(&'static str, Vec<String>)>;

fn add(groups: &mut Groups, message: &'static str, pod: &str) {
    match groups.iter_mut().find(|(m, _)| *m == message) {
        Some((_, pods)) => pods.push(pod.to_owned()),
        None => groups.push((message, vec![pod.to_owned()])),
    }
}

fn controller(pod: &Value) -> Option<&Value> {
    pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

fn daemon_set(pod: &Value) -> Option<&str> {
    controller(pod).filter(|owner| owner["kind"] == "DaemonSet")?["name"].as_str()
}

async fn is_there(cluster: &Cluster, pod: &Value, name: &str) -> Result<bool, CommandError> {
    let path = format!("/apis/apps/v1/namespaces/{}/daemonsets/{name}", meta::namespace(pod));
    match cluster.get(&path).await {
        Ok(_) => Ok(true),
        Err(error) if error.status().is_some_and(|status| status.reason == "NotFound") => Ok(false),
        Err(error) => Err(error),
    }
}

/// What becomes of a Pod; `daemon_set_exists` is about the DaemonSet that controls it, if one does.
fn fate(pod: &Value, allowed: Allowed, daemon_set_exists: bool, now: i64) -> Fate {
    let deleted = meta::text(pod, "deletionTimestamp").parse::<jiff::Timestamp>().ok();
    if let Some(deleted) = deleted.filter(|_| allowed.skip_deleted > 0)
        && now - deleted.as_second() > allowed.skip_deleted
    {
        return Fate::Stays(None);
    }
    let finished = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or(""));
    let mut note = None;
    if daemon_set(pod).is_some() && !finished {
        if !daemon_set_exists {
            if !allowed.force {
                return Fate::Refused(ALONE);
            }
            note = Some(ALONE_DELETED);
        } else if allowed.ignore_daemon_sets {
            return Fate::Stays(Some(DAEMON_SETS_IGNORED));
        } else {
            return Fate::Refused(DAEMON_SETS);
        }
    }
    if pod["metadata"]["annotations"][MIRROR].is_string() {
        return Fate::Stays(None);
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    if !finished && volumes.into_iter().any(|volume| !volume["emptyDir"].is_null()) {
        if !allowed.delete_local {
            return Fate::Refused(LOCAL);
        }
        note = Some(LOCAL_DELETED);
    }
    if !finished && controller(pod).is_none() {
        if !allowed.force {
            return Fate::Refused(ALONE);
        }
        note = Some(ALONE_DELETED);
    }
    Fate::Goes(note)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_go_stay_or_are_refused() {
        let owned =
            |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "name": "x", "controller": true}]}});
        let bare = json!({"metadata": {}});
        let done = json!({"metadata": {}, "status": {"phase": "Succeeded"}});
        let mirror = json!({"metadata": {"annotations": {MIRROR: "x"}}});
        let mut local = owned("ReplicaSet");
        local["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        let none = Allowed::default();
        let all = Allowed { force: true, ignore_daemon_sets: true, delete_local: true, skip_deleted: 0 };
        for (pod, strict, lax) in [
            (owned("ReplicaSet"), Fate::Goes(None), Fate::Goes(None)),
            (owned("DaemonSet"), Fate::Refused(DAEMON_SETS), Fate::Stays(Some(DAEMON_SETS_IGNORED))),
            (bare, Fate::Refused(ALONE), Fate::Goes(Some(ALONE_DELETED))),
            (done, Fate::Goes(None), Fate::Goes(None)),
            (mirror, Fate::Stays(None), Fate::Stays(None)),
            (local, Fate::Refused(LOCAL), Fate::Goes(Some(LOCAL_DELETED))),
        ] {
            assert_eq!((fate(&pod, none, true, 0), fate(&pod, all, true, 0)), (strict, lax), "{pod}");
        }
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let skipping = Allowed { skip_deleted: 10, ..none };
        assert_eq!(fate(&deleted, skipping, true, i64::MAX), Fate::Stays(None));
    }
}
