//! Network namespaces: a host of its own for a test, gone when dropped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{kubectl::Output, process::Process};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace with its loopback up and a default route. Needs root.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one.
    pub fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("timonel-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ok("ip", &["link", "set", "lo", "up"]);
        // Cluster IPs need a route before they are translated; where it leads does not matter.
        namespace.ok("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "far"]);
        namespace.ok("ip", &["address", "add", "10.60.0.1/24", "dev", "uplink"]);
        namespace.ok("ip", &["link", "set", "uplink", "up"]);
        namespace.ok("ip", &["link", "set", "far", "up"]);
        namespace.ok("ip", &["route", "add", "default", "via", "10.60.0.2"]);
        namespace
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the loopback another address.
    pub fn add_address(&self, address: &str) {
        self.ok("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }

    /// Runs a program in it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, program])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("ip netns exec {program}: {e}"));
        Output {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Runs a program in it that must succeed.
    pub fn ok(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert_eq!(output.code, 0, "{program} {arguments:?}: {}{}", output.out, output.err);
        output.out
    }

    /// Starts a program in it.
    pub fn start(&self, program: &Path, arguments: &[String], log: PathBuf) -> Process {
        let mut all: Vec<String> = ["netns", "exec", &self.name].iter().map(|a| (*a).to_owned()).collect();
        all.push(program.display().to_string());
        all.extend_from_slice(arguments);
        Process::start(Path::new("ip"), &all, log)
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap_or_else(|e| panic!("ip: {e}"));
    assert!(status.success(), "ip {arguments:?} failed; the tests need root");
}
