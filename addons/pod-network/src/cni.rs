//! What the container runtime reads: the configuration of the network, and the plugins.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde_json::{Value, json};

/// Plugins that the configuration cannot do without.
const NEEDED: [&str; 4] = ["bridge", "host-local", "portmap", "loopback"];
/// A plugin that is used where it is.
const BANDWIDTH: &str = "bandwidth";
const VERSION: &str = "1.0.0";

/// Where files are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Configuration.
    pub(crate) configuration: PathBuf,
    /// Name of the file there.
    pub(crate) name: String,
    /// Plugins.
    pub(crate) plugins: PathBuf,
    /// Plugins to install where they are missing.
    pub(crate) source: Option<PathBuf>,
}

/// The configuration of the network for Pods.
pub(crate) fn conflist(bridge: &str, own: &[IpNet], mtu: u32, with_bandwidth: bool) -> Value {
    let ranges: Vec<Value> = own.iter().map(|n| json!([{"subnet": n.to_string()}])).collect();
    let mut plugins = vec![
        json!({
            "type": "bridge",
            "bridge": bridge,
            "mtu": mtu,
            "isGateway": true,
            "isDefaultGateway": true,
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {"type": "host-local", "ranges": ranges},
        }),
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}),
    ];
    if with_bandwidth {
        plugins.push(json!({"type": BANDWIDTH, "capabilities": {"bandwidth": true}}));
    }
    json!({"cniVersion": VERSION, "name": "timonel", "plugins": plugins})
}

impl Places {
    fn has(&self, plugin: &str) -> bool {
        self.plugins.join(plugin).is_file()
    }

    /// Copies plugins that are missing; returns the names of those that are missing still.
    pub(crate) fn install_plugins(&self) -> io::Result<Vec<&'static str>> {
        if let Some(source) = self.source.as_ref().filter(|s| s.is_dir() && **s != self.plugins) {
            for name in NEEDED.iter().chain([&BANDWIDTH]) {
                let from = source.join(name);
                if !self.has(name) && from.is_file() {
                    write_atomically(&self.plugins, name, &std::fs::read(&from)?, 0o755)?;
                    tracing::info!(plugin = name, "Installed a CNI plugin");
                }
            }
        }
        Ok(NEEDED.into_iter().filter(|n| !self.has(n)).collect())
    }

    /// Writes the configuration if it is not there as it must be. Returns whether it was written.
    pub(crate) fn configure(&self, bridge: &str, own: &[IpNet], mtu: u32) -> io::Result<bool> {
        let value = conflist(bridge, own, mtu, self.has(BANDWIDTH));
        let text = format!("{value:#}\n");
        match std::fs::read(self.configuration.join(&self.name)) {
            Ok(now) if now == text.as_bytes() => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        write_atomically(&self.configuration, &self.name, text.as_bytes(), 0o644)?;
        Ok(true)
    }

    /// Removes the configuration.
    pub(crate) fn cleanup(&self) -> io::Result<()> {
        match std::fs::remove_file(self.configuration.join(&self.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The runtime never sees half a file: it is complete before it gets its name. The other name has an ending that the
/// runtime does not read.
fn write_atomically(directory: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".{name}.new"));
    std::fs::write(&temporary, content)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_networks_of_both_families() {
        let own = ["10.244.1.0/24", "fd00:1::/64"].map(|n| n.parse().expect("network"));
        let list = conflist("cni0", &own, 1450, false);
        let bridge = list.pointer("/plugins/0").expect("a plugin");
        assert_eq!(bridge.pointer("/ipam/ranges/1/0/subnet"), Some(&json!("fd00:1::/64")));
        assert_eq!(
            (&bridge["mtu"], &bridge["hairpinMode"], &bridge["ipMasq"]),
            (&json!(1450), &json!(true), &json!(false))
        );
        assert_eq!(list.pointer("/plugins/1/capabilities/portMappings"), Some(&json!(true)));
        assert_eq!(list.pointer("/plugins/2"), None);
    }

    #[test]
    fn files_are_written_once_and_plugins_installed_where_missing() {
        let root = tempfile::TempDir::new().expect("a directory");
        let (source, plugins) = (root.path().join("image"), root.path().join("bin"));
        std::fs::create_dir_all(&source).expect("a directory");
        for name in ["bridge", "host-local", "portmap", "bandwidth"] {
            std::fs::write(source.join(name), name).expect("a plugin");
        }
        std::fs::create_dir_all(&plugins).expect("a directory");
        std::fs::write(plugins.join("bridge"), "own").expect("a plugin");
        let places = Places {
            configuration: root.path().join("net.d"),
            name: "10-timonel.conflist".into(),
            plugins: plugins.clone(),
            source: Some(source),
        };
        assert_eq!(places.install_plugins().expect("installed"), ["loopback"]);
        assert_eq!(std::fs::read_to_string(plugins.join("bridge")).expect("a plugin"), "own", "never replaced");
        let mode = std::fs::metadata(plugins.join("portmap")).expect("a plugin").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let own = ["10.244.1.0/24".parse().expect("network")];
        assert!(places.configure("cni0", &own, 1450).expect("written"));
        assert!(!places.configure("cni0", &own, 1450).expect("written"));
        assert!(places.configure("cni0", &own, 1400).expect("written"));
        let files: Vec<_> = std::fs::read_dir(&places.configuration).expect("files").flatten().collect();
        assert_eq!(files.len(), 1, "nothing is left over");
        places.cleanup().expect("removed");
        places.cleanup().expect("removed already");
    }
}
