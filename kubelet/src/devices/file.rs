//! The file in which allocations are kept.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::device::ContainerAllocateResponse;
use serde::{Deserialize, Serialize};

use super::state::{Allocation, Resource, State};
use crate::checkpoint::{self, Printed};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeMap<i64, Vec<String>>,
    alloc_resp: String,
}

impl Data {
    fn checksum(&self) -> u64 {
        let entry = |entry: &Entry| {
            let ids = entry.device_ids.iter().map(|(node, ids)| (Printed::Number(*node), Printed::texts(ids)));
            let bytes = STANDARD.decode(&entry.alloc_resp).unwrap_or_default();
            let bytes = bytes.into_iter().map(|byte| Printed::Number(i64::from(byte))).collect();
            Printed::Fields(vec![
                ("PodUID", "string", Printed::text(&entry.pod_uid)),
                ("ContainerName", "string", Printed::text(&entry.container_name)),
                ("ResourceName", "string", Printed::text(&entry.resource_name)),
                ("DeviceIDs", "checkpoint.DevicesPerNUMA", Printed::Map(ids.collect())),
                ("AllocResp", "[]uint8", Printed::List(bytes)),
            ])
        };
        let entries = self.pod_device_entries.as_ref();
        let entries = entries.map_or(Printed::Nothing, |all| Printed::List(all.iter().map(entry).collect()));
        let registered = self.registered_devices.iter().map(|(name, ids)| (Printed::text(name), Printed::texts(ids)));
        Printed::Fields(vec![
            ("PodDeviceEntries", "[]checkpoint.PodDevicesEntry", entries),
            ("RegisteredDevices", "map[string][]string", Printed::Map(registered.collect())),
        ])
        .checksum("checkpoint.checkpointData")
    }
}

/// Writes what must outlive this kubelet.
pub(super) fn write(path: &Path, state: &State) -> io::Result<()> {
    let mut entries = Vec::new();
    for ((uid, container), all) in &state.allocations {
        for (resource, one) in all {
            let Some(response) = &one.response else { continue };
            entries.push(Entry {
                pod_uid: uid.clone(),
                container_name: container.clone(),
                resource_name: resource.clone(),
                device_ids: one.places.clone(),
                alloc_resp: STANDARD.encode(response.encode_to_vec()),
            });
        }
    }
    let healthy = |resource: &Resource| {
        resource.devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id.clone()).collect()
    };
    let data = Data {
        pod_device_entries: (!entries.is_empty()).then_some(entries),
        registered_devices: state.resources.iter().map(|(name, one)| (name.clone(), healthy(one))).collect(),
    };
    let checksum = data.checksum();
    checkpoint::write(path, &serde_json::to_vec(&File { data, checksum })?)
}

/// What an earlier kubelet left: allocations hold, plugins have to come back.
pub(super) fn read(path: &Path) -> io::Result<State> {
    let found = checkpoint::read(path, |file: &File| file.checksum == file.data.checksum())?;
    let Some(file) = found else { return Ok(State::default()) };
    let mut state = State::default();
    for entry in file.data.pod_device_entries.unwrap_or_default() {
        let bytes = STANDARD.decode(&entry.alloc_resp).map_err(io::Error::other)?;
        let response = ContainerAllocateResponse::decode(bytes.as_slice()).map_err(io::Error::other)?;
        let ids = entry.device_ids.values().flatten().cloned().collect();
        let allocation = Allocation { ids, places: entry.device_ids, response: Some(response) };
        let holder = (entry.pod_uid, entry.container_name);
        state.allocations.entry(holder).or_default().insert(entry.resource_name, allocation);
    }
    for name in file.data.registered_devices.into_keys() {
        let absent = Resource { absent_since: Some(Instant::now()), ..Resource::default() };
        state.resources.insert(name, absent);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::state::Device;

    #[test]
    fn allocations_survive_and_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet_internal_checkpoint");
        assert!(read(&path).unwrap().allocations.is_empty());
        let mut state = State::default();
        let device = Device { healthy: true, nodes: vec![1] };
        let resource = Resource { devices: [("d".to_owned(), device)].into(), absent_since: None };
        state.resources.insert("x/y".into(), resource);
        let holder = ("u".to_owned(), "c".to_owned());
        state.take(&holder, "x/y", ["d".to_owned()].into());
        let envs = [("A".to_owned(), "b".to_owned())].into();
        state.confirm(&holder, "x/y", ContainerAllocateResponse { envs, ..Default::default() });
        write(&path, &state).unwrap();
        let later = read(&path).unwrap();
        assert_eq!(later.allocations, state.allocations);
        assert!(later.resources["x/y"].absent_since.is_some());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""DeviceIDs":{"1":["d"]}"#), "{text}");
        std::fs::write(&path, text.replace("\"d\"", "\"e\"")).unwrap();
        assert!(read(&path).is_err());
    }
}
