//! Dead containers and sandboxes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::cri::{CriError, labels, v1};
use crate::services::Services;
use crate::workers::Workers;

const RUNNING: i32 = v1::ContainerState::ContainerRunning as i32;
const READY: i32 = v1::PodSandboxState::SandboxReady as i32;

/// How many dead containers are kept.
#[derive(Clone, Debug)]
pub struct ContainerPolicy {
    /// Younger ones are kept.
    pub min_age: Duration,
    /// Per container of a Pod; negative: no limit.
    pub max_per_container: i32,
    /// In all; negative: no limit.
    pub max_total: i32,
    /// None is kept.
    pub all: bool,
}

/// What is to be removed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    containers: Vec<String>,
    sandboxes: Vec<String>,
}

/// Removes what the policy does not keep.
pub(super) async fn collect(services: &Services, workers: &Workers, policy: &ContainerPolicy) -> Result<(), CriError> {
    let containers = services.cri.list_containers(None).await?;
    let sandboxes = services.cri.list_pod_sandbox(None).await?;
    let plan = plan(&containers, &sandboxes, policy, |uid| workers.is_removed(uid), Timestamp::now());
    for id in &plan.containers {
        services.remove_container(id).await?;
    }
    for id in &plan.sandboxes {
        services.cri.remove_pod_sandbox(id).await?;
    }
    if !plan.containers.is_empty() || !plan.sandboxes.is_empty() {
        let (containers, sandboxes) = (plan.containers.len(), plan.sandboxes.len());
        tracing::info!(v = 2, containers, sandboxes, "removed dead containers and sandboxes");
    }
    Ok(())
}

fn plan(
    containers: &[v1::Container],
    sandboxes: &[v1::PodSandbox],
    policy: &ContainerPolicy,
    is_gone: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Plan {
    let label = |container: &v1::Container, key: &str| container.labels.get(key).cloned().unwrap_or_default();
    let newest_removable = now.as_nanosecond() - i128::try_from(policy.min_age.as_nanos()).unwrap_or(i128::MAX);
    let mut groups: BTreeMap<(String, String), Vec<&v1::Container>> = BTreeMap::new();
    for container in containers {
        let old = i128::from(container.created_at) <= newest_removable;
        if container.state != RUNNING && old {
            let key = (label(container, labels::POD_UID), label(container, labels::CONTAINER_NAME));
            groups.entry(key).or_default().push(container);
        }
    }
    let mut removed: Vec<&v1::Container> = Vec::new();
    for ((uid, _), group) in &mut groups {
        // Newest last.
        group.sort_by_key(|container| container.created_at);
        let keep = match usize::try_from(policy.max_per_container) {
            _ if policy.all || is_gone(uid) => 0,
            Ok(limit) => limit,
            Err(_) => usize::MAX,
        };
        removed.extend(group.drain(..group.len().saturating_sub(keep)));
    }
    if let Ok(total) = usize::try_from(policy.max_total) {
        removed.extend(over_total(&mut groups, total));
    }
    let removed: Vec<String> = removed.into_iter().map(|container| container.id.clone()).collect();
    let gone: HashSet<&str> = removed.iter().map(String::as_str).collect();
    let left = containers.iter().filter(|container| !gone.contains(container.id.as_str()));
    let used: HashSet<&str> = left.map(|container| container.pod_sandbox_id.as_str()).collect();
    let sandboxes = dead_sandboxes(sandboxes, &used, is_gone);
    Plan { containers: removed, sandboxes }
}

/// First the same number from each group, then the oldest.
fn over_total<'a>(
    groups: &mut BTreeMap<(String, String), Vec<&'a v1::Container>>,
    total: usize,
) -> Vec<&'a v1::Container> {
    let count: usize = groups.values().map(Vec::len).sum();
    if count <= total {
        return Vec::new();
    }
    let each = (total / groups.len().max(1)).max(1);
    let mut removed = Vec::new();
    for group in groups.values_mut() {
        removed.extend(group.drain(..group.len().saturating_sub(each)));
    }
    let mut rest: Vec<&v1::Container> = groups.values().flatten().copied().collect();
    rest.sort_by_key(|container| container.created_at);
    let over = rest.len().saturating_sub(total);
    removed.extend(rest.into_iter().take(over));
    removed
}

/// Sandboxes that are neither used nor ready; the newest of a Pod that stays is kept.
fn dead_sandboxes(sandboxes: &[v1::PodSandbox], used: &HashSet<&str>, is_gone: impl Fn(&str) -> bool) -> Vec<String> {
    let mut by_pod: HashMap<&str, Vec<&v1::PodSandbox>> = HashMap::new();
    for sandbox in sandboxes {
        let uid = sandbox.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
        by_pod.entry(uid).or_default().push(sandbox);
    }
    let mut out = Vec::new();
    for (uid, mut all) in by_pod {
        all.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        let kept = usize::from(!is_gone(uid));
        let dead = all.into_iter().skip(kept).filter(|s| s.state != READY && !used.contains(s.id.as_str()));
        out.extend(dead.map(|sandbox| sandbox.id.clone()));
    }
    out.sort();
    out
}

impl Services {
    /// Removes a dead container with its logs.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let status = match self.cri.container_status(id, false).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let label = |key: &str| status.labels.get(key).map(String::as_str).unwrap_or_default();
        let link = self.paths.log_link(
            label(labels::POD_NAME),
            label(labels::POD_NAMESPACE),
            label(labels::CONTAINER_NAME),
            id,
        );
        let log = Path::new(&status.log_path);
        if log.starts_with(self.paths.pod_logs()) {
            remove_logs(log);
        }
        remove_file(&link);
        self.cri.remove_container(id).await
    }
}

/// The log and its rotated forms.
fn remove_logs(log: &Path) {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|found| found.starts_with(name)) {
            remove_file(&entry.path());
        }
    }
}

fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "removing logs of a container");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, uid: &str, name: &str, created_at: i64, state: v1::ContainerState) -> v1::Container {
        let labels = [(labels::POD_UID, uid), (labels::CONTAINER_NAME, name)];
        v1::Container {
            id: id.into(),
            pod_sandbox_id: format!("s-{uid}"),
            created_at,
            state: state as i32,
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Default::default()
        }
    }

    fn sandbox(id: &str, uid: &str, created_at: i64, ready: bool) -> v1::PodSandbox {
        let metadata = Some(v1::PodSandboxMetadata { uid: uid.into(), ..Default::default() });
        v1::PodSandbox { id: id.into(), metadata, created_at, state: i32::from(!ready), ..Default::default() }
    }

    fn policy(max_per_container: i32, max_total: i32) -> ContainerPolicy {
        ContainerPolicy { min_age: Duration::ZERO, max_per_container, max_total, all: false }
    }

    #[test]
    fn policies_keep_the_newest() {
        use v1::ContainerState::{ContainerExited as Dead, ContainerRunning as Alive};
        let containers = [
            container("a1", "a", "c", 1, Dead),
            container("a2", "a", "c", 2, Dead),
            container("a3", "a", "c", 3, Alive),
            container("b1", "b", "c", 1, Dead),
            container("g1", "gone", "c", 9, Dead),
        ];
        let now = Timestamp::from_second(100).unwrap();
        let run = |policy: &ContainerPolicy| plan(&containers, &[], policy, |uid| uid == "gone", now).containers;
        assert_eq!(run(&policy(1, -1)), ["a1", "g1"]);
        assert_eq!(run(&policy(-1, -1)), ["g1"]);
        assert_eq!(run(&policy(0, -1)), ["a1", "a2", "b1", "g1"]);
        assert_eq!(run(&policy(1, 1)), ["a1", "g1", "b1"]);
        assert_eq!(run(&ContainerPolicy { all: true, ..policy(5, -1) }), ["a1", "a2", "b1", "g1"]);
        let young = ContainerPolicy { min_age: Duration::from_secs(100), ..policy(0, -1) };
        assert!(run(&young).is_empty());
    }

    #[test]
    fn dead_sandboxes_go_unless_they_are_the_last_of_a_pod() {
        let sandboxes = [
            sandbox("a-old", "a", 1, false),
            sandbox("a-used", "a", 2, false),
            sandbox("a-new", "a", 3, true),
            sandbox("b", "b", 1, false),
            sandbox("g", "gone", 1, false),
            sandbox("g-ready", "gone", 2, true),
        ];
        let used = HashSet::from(["a-used"]);
        assert_eq!(dead_sandboxes(&sandboxes, &used, |uid| uid == "gone"), ["a-old", "g"]);
    }
}
