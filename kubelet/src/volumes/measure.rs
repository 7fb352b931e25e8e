//! Series about volumes.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::{Failure, Ready, Volumes, used_volumes};
use crate::metrics::METRICS;
use crate::pods;

/// Plugins of one Pod's volumes that are ready, by volume.
pub(super) type Plugins = BTreeMap<String, String>;

/// The plugin that a volume's definition alone names.
fn plugin(volume: &Volume) -> Option<String> {
    let name = match volume {
        Volume { csi: Some(source), .. } => return Some(csi(&source.driver)),
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { projected: Some(_), .. } => "projected",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { host_path: Some(_), .. } => "host-path",
        Volume { image: Some(_), .. } => "image",
        _ => return None,
    };
    Some(format!("kubernetes.io/{name}"))
}

fn csi(driver: &str) -> String {
    format!("kubernetes.io/csi:{driver}")
}

/// The plugin of a volume behind a claim that has no place of its own.
fn unnamed(ready: &Ready) -> &'static str {
    match ready {
        Ready::Device { .. } => "kubernetes.io/csi",
        _ => "kubernetes.io/host-path",
    }
}

/// Tells how long an operation took and how it ended.
fn operation(plugin: &str, name: &str, is_done: bool, start: Instant) {
    let status = if is_done { "success" } else { "fail-unknown" };
    let labels = [plugin, name, status, "false"];
    METRICS.storage_operations.with_label_values(&labels).observe(start.elapsed().as_secs_f64());
}

impl Volumes {
    /// The plugin of a volume; that of a claim is known once it is set up.
    fn plugin_of(&self, pod: &Pod, volume: &Volume) -> Option<String> {
        plugin(volume).or_else(|| {
            let placed = self.placed(pods::uid(pod), &volume.name)?;
            placed.driver.map(|(driver, ..)| csi(&driver)).or_else(|| {
                let path = placed.path?;
                let is_local = path.components().any(|part| part.as_os_str() == "kubernetes.io~local-volume");
                Some(if is_local { "kubernetes.io/local-volume" } else { "kubernetes.io/host-path" }.to_owned())
            })
        })
    }

    /// A volume was set up, or was not. Looking again at one that is ready is no operation.
    pub(super) fn measure(&self, pod: &Pod, volume: &Volume, start: Instant, result: &Result<Ready, Failure>) {
        let plugin = self.plugin_of(pod, volume);
        match result {
            Ok(ready) => {
                let plugin = plugin.unwrap_or_else(|| unnamed(ready).to_owned());
                let mut all = self.ready.lock();
                let own = all.entry(pods::uid(pod).to_owned()).or_default();
                if own.insert(volume.name.clone(), plugin.clone()).is_none() {
                    operation(&plugin, "volume_mount", true, start);
                }
            }
            Err(Failure::Step { .. }) => {
                operation(plugin.as_deref().unwrap_or("kubernetes.io/csi"), "volume_mount", false, start);
            }
            Err(Failure::Processing(_) | Failure::Waiting(_) | Failure::Limit(_)) => {}
        }
    }

    /// A Pod's volumes were taken down, or were not.
    pub(super) fn measure_end(&self, uid: &str, start: Instant, is_done: bool) {
        let mut ready = self.ready.lock();
        let own = if is_done { ready.remove(uid) } else { ready.get(uid).cloned() };
        own.iter().flat_map(Plugins::values).for_each(|plugin| operation(plugin, "volume_unmount", is_done, start));
    }

    /// Tells how many volumes these Pods want, and how many there are.
    pub fn count<'a>(&self, wanting: impl Iterator<Item = &'a Pod>) {
        let mut counts: BTreeMap<(String, &str), f64> = BTreeMap::new();
        for pod in wanting {
            let used = used_volumes(pod);
            let volumes = pods::spec(pod).volumes.iter().flatten().filter(|volume| used.contains(&volume.name));
            for plugin in volumes.filter_map(|volume| self.plugin_of(pod, volume)) {
                *counts.entry((plugin, "desired_state_of_world")).or_default() += 1.0;
            }
        }
        for plugin in self.ready.lock().values().flat_map(Plugins::values) {
            *counts.entry((plugin.clone(), "actual_state_of_world")).or_default() += 1.0;
        }
        let mut told = self.told.lock();
        for ((plugin, state), count) in &counts {
            METRICS.volumes.with_label_values(&[plugin.as_str(), state]).set(*count);
        }
        for (plugin, state) in told.iter().filter(|key| !counts.contains_key(*key)) {
            // It is gone already if somebody else has removed it.
            drop(METRICS.volumes.remove_label_values(&[plugin.as_str(), state]));
        }
        *told = counts.into_keys().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_have_full_names() {
        let volume = |value| serde_json::from_value::<Volume>(value).unwrap();
        for (value, expected) in [
            (serde_json::json!({ "name": "v", "emptyDir": {} }), Some("kubernetes.io/empty-dir")),
            (serde_json::json!({ "name": "v", "csi": { "driver": "d.io" } }), Some("kubernetes.io/csi:d.io")),
            (serde_json::json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }), None),
        ] {
            assert_eq!(plugin(&volume(value)).as_deref(), expected);
        }
    }
}
