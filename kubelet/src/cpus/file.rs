//! The file in which exclusive processors are kept.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::set::CpuSet;
use crate::checkpoint::{self, Printed};

/// Exclusive processors by Pod UID and container.
pub(super) type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    policy_name: String,
    default_cpu_set: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, String>>,
    checksum: u64,
}

impl File {
    fn checksum(&self) -> u64 {
        let pod = |all: &BTreeMap<String, String>| {
            Printed::Map(all.iter().map(|(name, cpus)| (Printed::text(name), Printed::text(cpus))).collect())
        };
        let entries = self.entries.iter().map(|(uid, all)| (Printed::text(uid), pod(all))).collect();
        Printed::Fields(vec![
            ("PolicyName", "string", Printed::text(&self.policy_name)),
            ("DefaultCPUSet", "string", Printed::text(&self.default_cpu_set)),
            ("Entries", "map[string]map[string]string", Printed::Map(entries)),
            ("Checksum", "checksum.Checksum", Printed::Number(0)),
        ])
        .checksum("*state.CPUManagerCheckpoint")
    }
}

/// Writes the state of a policy.
pub(super) fn write(path: &Path, policy: &str, shared: &CpuSet, assignments: &Assignments) -> io::Result<()> {
    let text = |all: &BTreeMap<String, CpuSet>| all.iter().map(|(name, set)| (name.clone(), set.to_string())).collect();
    let mut file = File {
        policy_name: policy.to_owned(),
        default_cpu_set: shared.to_string(),
        entries: assignments.iter().map(|(uid, all)| (uid.clone(), text(all))).collect(),
        checksum: 0,
    };
    file.checksum = file.checksum();
    checkpoint::write(path, &serde_json::to_vec(&file)?)
}

/// Reads what a kubelet of the same policy wrote.
pub(super) fn read(path: &Path, policy: &str) -> Result<Option<(CpuSet, Assignments)>, String> {
    let found = checkpoint::read(path, |file: &File| file.checksum == file.checksum());
    let Some(file) = found.map_err(|error| error.to_string())? else { return Ok(None) };
    if file.policy_name != policy {
        return Err(format!(
            "configured policy {policy:?} differs from state checkpoint policy {:?}",
            file.policy_name
        ));
    }
    let shared = file.default_cpu_set.parse::<CpuSet>().map_err(|error| error.to_string())?;
    let mut assignments = Assignments::new();
    for (uid, all) in file.entries {
        for (name, cpus) in all {
            let cpus = cpus.parse::<CpuSet>().map_err(|error| error.to_string())?;
            assignments.entry(uid.clone()).or_default().insert(name, cpus);
        }
    }
    Ok(Some((shared, assignments)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_other_kubelets_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu_manager_state");
        write(&path, "none", &CpuSet::default(), &Assignments::new()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#);
        let refused = read(&path, "static").unwrap_err();
        assert_eq!(refused, "configured policy \"static\" differs from state checkpoint policy \"none\"");
        let shared: CpuSet = "0,2-3".parse().unwrap();
        let own = [("c".to_owned(), "1".parse().unwrap())].into();
        let assignments: Assignments = [("u".to_owned(), own)].into();
        write(&path, "static", &shared, &assignments).unwrap();
        assert_eq!(read(&path, "static"), Ok(Some((shared, assignments))));
    }
}
