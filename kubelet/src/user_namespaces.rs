//! Ranges of user ids for Pods whose root is not the node's.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::cri::v1;
use crate::paths::Paths;
use crate::platform::{Program, run_program};
use crate::pods;

/// Ranges begin at multiples of this, and their lengths are multiples of it.
const UNIT: u32 = 65_536;
const LOOKUP: Duration = Duration::from_secs(10);
const MAX_ANSWER: u64 = 1 << 16;
/// The user whose subordinate ids are the Pods'.
const OWNER: &str = "kubelet";

/// The file of one Pod.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Mapping {
    fn to_runtime(&self) -> v1::IdMapping {
        v1::IdMapping { host_id: self.host_id, container_id: self.container_id, length: self.length }
    }
}

/// Ids of the host that Pods may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIds {
    /// The first.
    pub first: u32,
    /// How many.
    pub length: u32,
}

impl HostIds {
    /// Those of the user `kubelet`, if there is one, else enough for every Pod.
    pub async fn find(ids_per_pod: u32, max_pods: u32) -> Result<Self, String> {
        let length = ids_per_pod.checked_mul(max_pods).ok_or("there are not enough ids for so many pods")?;
        let fallback = Self { first: UNIT, length };
        if !crate::platform::user_exists(OWNER) {
            return Ok(fallback);
        }
        let mut found = Vec::new();
        for args in [vec![OWNER.to_owned()], vec!["-g".to_owned(), OWNER.to_owned()]] {
            let env = Default::default();
            let program =
                Program { path: Path::new("getsubids"), args: &args, env: &env, deadline: LOOKUP, limit: MAX_ANSWER };
            match run_program(program, b"").await {
                Ok(answer) => found.push(parse(&String::from_utf8_lossy(&answer))?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::info!("no getsubids: user namespaces have the ids of the default range");
                    return Ok(fallback);
                }
                Err(error) => return Err(format!("subordinate ids of the user {OWNER:?}: {error}")),
            }
        }
        let [uids, gids] = found.as_slice() else { return Ok(fallback) };
        if uids != gids {
            return Err(format!("mismatched subuids and subgids for user {OWNER:?}"));
        }
        if uids.length / ids_per_pod.max(1) < max_pods {
            return Err(format!(
                "kubelet user assigned ids ({}) are not enough to support maxPods ({max_pods})",
                uids.length
            ));
        }
        Ok(*uids)
    }
}

/// `0: kubelet 65536 7208960`
fn parse(answer: &str) -> Result<HostIds, String> {
    let lines: Vec<&str> = answer.lines().filter(|line| !line.trim().is_empty()).collect();
    let [line] = lines.as_slice() else {
        return Err(format!("there must be one range of subordinate ids for the user {OWNER:?}"));
    };
    let mut numbers = line.split_whitespace().skip(2).map(str::parse::<u32>);
    let (Some(Ok(first)), Some(Ok(length)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Err(format!("subordinate ids of the user {OWNER:?} cannot be read: {line:?}"));
    };
    if first < UNIT || first % UNIT != 0 {
        return Err(format!("kubelet user assigned ids must start at a multiple of {UNIT} that is not 0: {first}"));
    }
    if length == 0 || length % UNIT != 0 || first.checked_add(length - 1).is_none() {
        return Err(format!("kubelet user assigned ids must be a multiple of {UNIT}: {length}"));
    }
    Ok(HostIds { first, length })
}

/// Which range each Pod has.
pub struct UserNamespaces {
    paths: Paths,
    ids: HostIds,
    per_pod: u32,
    /// First ids by UID.
    taken: Mutex<HashMap<String, u32>>,
}

impl UserNamespaces {
    /// Finds again what Pods of an earlier kubelet have.
    pub fn open(paths: Paths, ids: HostIds, per_pod: u32) -> Self {
        let mut taken = HashMap::new();
        for entry in fs::read_dir(paths.pods()).into_iter().flatten().flatten() {
            let Ok(uid) = entry.file_name().into_string() else { continue };
            match read(&paths, &uid) {
                Ok(Some(file)) => drop(file.uid_mappings.first().map(|mapping| taken.insert(uid, mapping.host_id))),
                Ok(None) => {}
                Err(error) => tracing::error!(uid, %error, "ids of a pod's user namespace"),
            }
        }
        Self { paths, ids, per_pod: per_pod.max(1), taken: Mutex::new(taken) }
    }

    /// What the runtime is told about a Pod's users.
    pub fn of(&self, pod: &Pod, handler: &str, known: &[v1::RuntimeHandler]) -> Result<v1::UserNamespace, String> {
        if pods::spec(pod).host_users != Some(false) {
            return Ok(v1::UserNamespace { mode: v1::NamespaceMode::Node as i32, ..Default::default() });
        }
        let own = known.iter().find(|one| one.name == handler);
        if !own.and_then(|one| one.features).is_some_and(|features| features.user_namespaces) {
            return Err(match handler {
                "" => "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned(),
                _ => format!(
                    "can't set `spec.hostUsers: false`, RuntimeClass handler {handler:?} does not support user namespaces"
                ),
            });
        }
        let uid = pods::uid(pod);
        let file = match read(&self.paths, uid).map_err(|error| error.to_string())? {
            Some(file) => file,
            None => self.take(uid)?,
        };
        Ok(v1::UserNamespace {
            mode: v1::NamespaceMode::Pod as i32,
            uids: file.uid_mappings.iter().map(Mapping::to_runtime).collect(),
            gids: file.gid_mappings.iter().map(Mapping::to_runtime).collect(),
        })
    }

    /// Gives a Pod the first free range, and writes it down.
    fn take(&self, uid: &str) -> Result<File, String> {
        let mut taken = self.taken.lock();
        let count = self.ids.length / self.per_pod;
        let ranges = (0..count).map(|index| self.ids.first + index * self.per_pod);
        let free = ranges.into_iter().find(|first| !taken.values().any(|other| other == first));
        let first = free.ok_or("could not find an empty slot to allocate a user namespace")?;
        let mapping = Mapping { host_id: first, container_id: 0, length: self.per_pod };
        let file = File { uid_mappings: vec![mapping.clone()], gid_mappings: vec![mapping] };
        let dir = self.paths.pod(uid);
        let written = serde_json::to_vec(&file)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::create_dir_all(&dir).and_then(|()| checkpoint::write(&dir.join("userns"), &bytes)));
        written.map_err(|error| format!("user namespace of the pod is not written down: {error}"))?;
        taken.insert(uid.to_owned(), first);
        Ok(file)
    }

    /// The Pod is over.
    pub fn release(&self, uid: &str) {
        let mut taken = self.taken.lock();
        if taken.remove(uid).is_some()
            && let Err(error) = fs::remove_file(self.paths.pod(uid).join("userns"))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(uid, %error, "file of a pod's user namespace");
        }
    }

    /// Forgets Pods that are not known any more.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.taken.lock().keys().filter(|uid| !is_known(uid)).cloned().collect();
        gone.iter().for_each(|uid| self.release(uid));
    }
}

fn read(paths: &Paths, uid: &str) -> io::Result<Option<File>> {
    let whole = |file: &File| {
        let is_range = |all: &[Mapping]| matches!(all, [one] if one.container_id == 0 && one.host_id >= UNIT);
        is_range(&file.uid_mappings) && file.uid_mappings == file.gid_mappings
    };
    checkpoint::read(&paths.pod(uid).join("userns"), whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod.spec.get_or_insert_default().host_users = host_users;
        pod
    }

    fn handler(name: &str, user_namespaces: bool) -> v1::RuntimeHandler {
        let features = v1::RuntimeHandlerFeatures { user_namespaces, ..Default::default() };
        v1::RuntimeHandler { name: name.into(), features: Some(features) }
    }

    #[test]
    fn pods_have_ranges_of_their_own_and_keep_them() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path(), dir.path());
        let ids = HostIds { first: UNIT, length: 2 * UNIT };
        let open = || UserNamespaces::open(paths.clone(), ids, UNIT);
        let known = [handler("", true), handler("vm", false)];
        let first_id = |users: &UserNamespaces, uid: &str| {
            let told = users.of(&pod(uid, Some(false)), "", &known)?;
            assert_eq!((told.mode, &told.uids), (v1::NamespaceMode::Pod as i32, &told.gids));
            assert_eq!(told.uids[0].length, UNIT);
            Ok(told.uids[0].host_id)
        };
        let users = open();
        let node = users.of(&pod("n", None), "", &[]).unwrap();
        assert_eq!((node.mode, node.uids.len()), (v1::NamespaceMode::Node as i32, 0));
        assert_eq!(first_id(&users, "a"), Ok(UNIT));
        assert_eq!(first_id(&users, "b"), Ok(2 * UNIT));
        let again = open();
        assert_eq!(first_id(&again, "b"), Ok(2 * UNIT));
        let full = "could not find an empty slot to allocate a user namespace".to_owned();
        assert_eq!(first_id(&again, "c"), Err(full));
        again.release("a");
        assert_eq!(first_id(&again, "c"), Ok(UNIT));
        again.retain(|_| false);
        assert!(!dir.path().join("pods/b/userns").exists());
    }

    #[test]
    fn runtimes_that_cannot_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path(), dir.path());
        let users = UserNamespaces::open(paths, HostIds { first: UNIT, length: UNIT }, UNIT);
        let told =
            |handler: &str, known: &[v1::RuntimeHandler]| users.of(&pod("a", Some(false)), handler, known).unwrap_err();
        assert_eq!(told("", &[]), "can't set `spec.hostUsers: false`, runtime does not support user namespaces");
        assert_eq!(
            told("vm", &[handler("vm", false), handler("", true)]),
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"vm\" does not support user namespaces"
        );
    }

    #[test]
    fn subordinate_ids_are_whole_ranges() {
        assert_eq!(parse("0: kubelet 65536 7208960\n"), Ok(HostIds { first: 65_536, length: 7_208_960 }));
        for bad in
            ["", "0: kubelet 1 65536", "0: kubelet 65536 5", "0: kubelet 65536 65536\n1: kubelet 131072 65536", "x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("0: kubelet 4294901760 131072").is_err());
    }
}
