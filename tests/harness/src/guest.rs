//! Virtual machines with Debian's kernel, for what the kernel or the init system of this machine may lack.
//!
//! `GUEST_KERNEL` names a directory with an unpacked Debian kernel package (`boot`, `lib/modules`).

use std::path::{Path, PathBuf};

use crate::process::Process;

/// The directory of the guests' kernel and its modules.
pub fn kernel() -> PathBuf {
    PathBuf::from(std::env::var("GUEST_KERNEL").expect("GUEST_KERNEL names a directory with a kernel"))
}

fn vmlinuz() -> PathBuf {
    let boot = std::fs::read_dir(kernel().join("boot")).expect("GUEST_KERNEL has a boot directory");
    let files = boot.filter_map(Result::ok).map(|entry| entry.path());
    let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"));
    files.into_iter().find(is_kernel).expect("a kernel")
}

/// The program that emulates a machine.
pub(crate) const EMULATOR: &str = "qemu-system-x86_64";

/// Its arguments for so many MiB of memory.
pub(crate) fn emulator(memory: u32, initramfs: &Path, command_line: &str) -> Vec<String> {
    // On a busy machine the emulated timer comes too late for the kernel's check of it, which would be the end.
    let command_line = format!("{command_line} no_timer_check");
    let mut arguments: Vec<String> =
        ["-accel", "tcg", "-display", "none", "-append", &command_line].map(str::to_owned).into();
    arguments.extend(["-m".to_owned(), memory.to_string()]);
    arguments.extend(["-kernel".to_owned(), vmlinuz().display().to_string()]);
    arguments.extend(["-initrd".to_owned(), initramfs.display().to_string()]);
    arguments
}

/// Two processors, and a disk that need not outlive the machine this runs on.
pub(crate) fn processors_and_disk(disk: &Path) -> [String; 4] {
    let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
    ["-smp".to_owned(), "2".to_owned(), "-drive".to_owned(), drive]
}

/// A running virtual machine; it ends when dropped.
#[derive(Debug)]
pub struct Guest {
    process: Process,
}

impl Guest {
    /// Boots a machine of so many MiB. Processors are emulated, so it does not depend on the machine it runs on.
    /// A disk is its `/dev/vda`. With one it boots again when it asks to; without, that is its end.
    pub fn boot(memory: u32, initramfs: &Path, disk: Option<&Path>, log: PathBuf) -> Self {
        let mut arguments = emulator(memory, initramfs, "console=ttyS0 quiet panic=-1");
        let net = ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", "-serial", "stdio"];
        arguments.extend(net.map(str::to_owned));
        match disk {
            Some(disk) => arguments.extend(processors_and_disk(disk)),
            None => arguments.push("-no-reboot".to_owned()),
        }
        Self { process: Process::start(Path::new(EMULATOR), &arguments, log) }
    }

    /// What its console has shown.
    pub fn console(&self) -> String {
        self.process.output().replace('\r', "")
    }

    /// The parts of the console under each heading `=== name`.
    pub fn part(&self, heading: &str) -> String {
        let console = self.console();
        let after = console.split(&format!("=== {heading}\n")).nth(1).unwrap_or_default();
        after.split("=== ").next().unwrap_or_default().to_owned()
    }

    /// Waits until the console shows the last heading, `=== end`.
    pub async fn ended(&self, limit: std::time::Duration) {
        crate::wait_within(limit, "the guest to end", || {
            let console = self.console();
            assert!(!console.contains("Kernel panic"), "{console}");
            async move { if console.contains("=== end\n") { Ok(()) } else { Err(console) } }
        })
        .await;
    }
}
