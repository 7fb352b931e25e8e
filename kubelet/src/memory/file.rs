//! The file in which memory of containers is kept.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tables::{Block, Machine, NodeState, Table};
use crate::checkpoint::{self, Printed};

/// Blocks by Pod UID and container.
pub(super) type Assignments = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    policy_name: String,
    machine_state: Machine,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: Assignments,
    checksum: u64,
}

fn number(value: u64) -> Printed {
    Printed::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn nodes(all: &[u32]) -> Printed {
    Printed::List(all.iter().map(|node| Printed::Number(i64::from(*node))).collect())
}

fn table(table: &Table) -> Printed {
    Printed::Pointer(Box::new(Printed::Fields(vec![
        ("TotalMemSize", "uint64", number(table.total)),
        ("SystemReserved", "uint64", number(table.system_reserved)),
        ("Allocatable", "uint64", number(table.allocatable)),
        ("Reserved", "uint64", number(table.reserved)),
        ("Free", "uint64", number(table.free)),
    ])))
}

fn node(state: &NodeState) -> Printed {
    let tables = state.memory_map.iter().map(|(kind, one)| (Printed::text(kind), table(one))).collect();
    Printed::Pointer(Box::new(Printed::Fields(vec![
        ("NumberOfAssignments", "int", Printed::Number(state.number_of_assignments)),
        ("MemoryMap", "map[v1.ResourceName]*state.MemoryTable", Printed::Map(tables)),
        ("Cells", "[]int", nodes(&state.cells)),
    ])))
}

fn block(block: &Block) -> Printed {
    Printed::Fields(vec![
        ("NUMAAffinity", "[]int", nodes(&block.numa_affinity)),
        ("Type", "v1.ResourceName", Printed::text(&block.r#type)),
        ("Size", "uint64", number(block.size)),
    ])
}

impl File {
    fn checksum(&self) -> u64 {
        let machine = self.machine_state.iter().map(|(id, one)| (Printed::Number(i64::from(*id)), node(one))).collect();
        let pod = |all: &BTreeMap<String, Vec<Block>>| {
            let blocks = |all: &Vec<Block>| Printed::List(all.iter().map(block).collect());
            Printed::Map(all.iter().map(|(name, all)| (Printed::text(name), blocks(all))).collect())
        };
        let entries = self.entries.iter().map(|(uid, all)| (Printed::text(uid), pod(all))).collect();
        Printed::Fields(vec![
            ("PolicyName", "string", Printed::text(&self.policy_name)),
            ("MachineState", "state.NUMANodeMap", Printed::Map(machine)),
            ("Entries", "state.ContainerMemoryAssignments", Printed::Map(entries)),
            ("Checksum", "checksum.Checksum", Printed::Number(0)),
        ])
        .checksum("*state.MemoryManagerCheckpoint")
    }
}

pub(super) fn write(path: &Path, policy: &str, machine: &Machine, assignments: &Assignments) -> io::Result<()> {
    let mut file = File {
        policy_name: policy.to_owned(),
        machine_state: machine.clone(),
        entries: assignments.clone(),
        checksum: 0,
    };
    file.checksum = file.checksum();
    checkpoint::write(path, &serde_json::to_vec(&file)?)
}

pub(super) fn read(path: &Path, policy: &str) -> Result<Option<(Machine, Assignments)>, String> {
    let found = checkpoint::read(path, |file: &File| file.checksum == file.checksum());
    let Some(file) = found.map_err(|error| error.to_string())? else { return Ok(None) };
    if file.policy_name != policy {
        return Err(format!(
            "[memorymanager] configured policy {policy:?} differs from state checkpoint policy {:?}",
            file.policy_name
        ));
    }
    Ok(Some((file.machine_state, file.entries)))
}
