//! Leader migration: controllers that move between this program and another run under a Lease that both know.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use crate::{COMPONENT, StartError};

const API_VERSIONS: [&str; 3] = [
    "controllermanager.config.k8s.io/v1",
    "controllermanager.config.k8s.io/v1beta1",
    "controllermanager.config.k8s.io/v1alpha1",
];
/// The Lease, unless the file says another.
const LEADER_NAME: &str = "cloud-provider-extraction-migration";
/// Who runs what moved, unless the file says otherwise: the controllers of clouds, which are not here.
const MOVED: [&str; 3] = ["route-controller", "service-controller", "cloud-node-lifecycle-controller"];

/// Flags.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Leader-migration flags")]
pub struct MigrationOptions {
    /// Whether to enable controller leader migration.
    #[arg(long, default_value_t = false)]
    pub enable_leader_migration: bool,
    /// Path to the config file for controller leader migration, or empty to use the value that reflects default
    /// configuration of the controller manager. The config file should be of type LeaderMigrationConfiguration, group
    /// controllermanager.config.k8s.io, version v1.
    #[arg(long)]
    pub leader_migration_config: Option<PathBuf>,
}

/// Where a controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under the Lease of this program.
    Main,
    /// Under the Lease of the migration.
    Migration,
    /// In another program.
    Elsewhere,
}

/// Which controllers moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Migration {
    /// Name of the Lease.
    pub(crate) leader_name: String,
    controllers: Vec<ControllerLeader>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    leader_name: String,
    #[serde(default)]
    resource_lock: String,
    #[serde(default)]
    controller_leaders: Vec<ControllerLeader>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct ControllerLeader {
    #[serde(default)]
    name: String,
    #[serde(default)]
    component: String,
}

impl MigrationOptions {
    /// What the flags and the file say; `None` if nothing migrates.
    pub(crate) fn load(&self) -> Result<Option<Migration>, StartError> {
        if !self.enable_leader_migration {
            return Ok(None);
        }
        match self.leader_migration_config.as_deref().filter(|file| !file.as_os_str().is_empty()) {
            None => Ok(Some(Migration::usual())),
            Some(file) => Migration::read(file).map(Some).map_err(StartError::Flags),
        }
    }
}

impl Migration {
    fn usual() -> Self {
        let moved = |name: &str| ControllerLeader { name: name.to_owned(), component: COMPONENT.to_owned() };
        Self { leader_name: LEADER_NAME.to_owned(), controllers: MOVED.map(moved).into() }
    }

    fn read(file: &Path) -> Result<Self, String> {
        let fail = |error: runtime::config_file::ConfigError| {
            format!("failed to read leader migration configuration: {}", util::chain(&error))
        };
        Self::parse(&runtime::config_file::read(file).map_err(fail)?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let decoded = runtime::config_file::decode(text, &API_VERSIONS, "LeaderMigrationConfiguration");
        let document: Document = decoded
            .map_err(|error| format!("failed to read leader migration configuration: {}", util::chain(&error)))?;
        let mut problems = Vec::new();
        if document.leader_name.is_empty() {
            problems.push("leaderName: Required value: leaderName must be set for migration".to_owned());
        }
        if !matches!(document.resource_lock.as_str(), "" | "leases") {
            problems.push(format!(
                "resourceLock: Invalid value: {:?}: resource Lock must be one of 'leases'",
                document.resource_lock
            ));
        }
        for (index, leader) in document.controller_leaders.iter().enumerate() {
            for (field, value) in [("component", &leader.component), ("name", &leader.name)] {
                if value.is_empty() {
                    problems.push(format!("controllerLeaders[{index}].{field}: Required value: {field} must be set"));
                }
            }
        }
        match problems.as_slice() {
            [] => Ok(Self { leader_name: document.leader_name, controllers: document.controller_leaders }),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }

    /// Where the controller of one of these names runs.
    pub(crate) fn place(&self, names: [&str; 2]) -> Place {
        let named = |leader: &&ControllerLeader| names.contains(&leader.name.as_str());
        match self.controllers.iter().find(named) {
            None => Place::Main,
            Some(leader) if leader.component == COMPONENT || leader.component == "*" => Place::Migration,
            Some(_) => Place::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: controllermanager.config.k8s.io/v1\nkind: LeaderMigrationConfiguration\n";

    #[test]
    fn controllers_have_places() {
        let text = "leaderName: m\ncontrollerLeaders:\n- {name: nodeipam, component: '*'}\n- {name: ttl-controller, component: other}\n";
        let migration = Migration::parse(&format!("{HEAD}{text}")).unwrap();
        for (names, place) in [
            (["node-ipam-controller", "nodeipam"], Place::Migration),
            (["ttl-controller", "ttl"], Place::Elsewhere),
            (["job-controller", "job"], Place::Main),
        ] {
            assert_eq!(migration.place(names), place, "{names:?}");
        }
        assert_eq!(Migration::usual().place(["job-controller", "job"]), Place::Main);
    }

    #[test]
    fn files_are_checked() {
        for (text, problem) in [
            ("controllerLeaders: []\n", "leaderName: Required value"),
            ("leaderName: m\nresourceLock: endpoints\n", "resource Lock must be one of"),
            ("leaderName: m\ncontrollerLeaders: [{name: x}]\n", "controllerLeaders[0].component: Required value"),
            ("leaderName: m\nsize: 1\n", "unknown field"),
        ] {
            let error = Migration::parse(&format!("{HEAD}{text}")).expect_err("wrong");
            assert!(error.contains(problem), "{error}");
        }
    }
}
