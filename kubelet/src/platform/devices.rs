//! File systems of block devices, by the programs that every distribution has.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

/// What the probe says of a device that holds nothing.
const NOTHING_FOUND: i32 = 2;

pub(super) fn format_and_mount(device: &Path, target: &Path, fs_type: &str, options: &[String]) -> io::Result<()> {
    if is_empty(device)? {
        let mut make = Command::new(format!("mkfs.{fs_type}"));
        match fs_type {
            "ext3" | "ext4" => make.args(["-F", "-m0"]),
            "xfs" => make.arg("-f"),
            _ => &mut make,
        };
        check(make.arg(device))?;
    }
    let mut mount = Command::new("mount");
    mount
        .args(["-t", fs_type, "-o"])
        .arg(std::iter::once("defaults").chain(options.iter().map(String::as_str)).collect::<Vec<_>>().join(","));
    check(mount.arg("--").arg(device).arg(target)).map(drop)
}

/// Whether a device holds neither a file system nor partitions; what cannot be told is not empty.
fn is_empty(device: &Path) -> io::Result<bool> {
    let output =
        Command::new("blkid").args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export"]).arg(device).output()?;
    match output.status.code() {
        Some(0) => Ok(false),
        Some(NOTHING_FOUND) => Ok(true),
        _ => Err(failed("blkid", &output)),
    }
}

fn check(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(output),
        false => Err(failed(&command.get_program().to_string_lossy(), &output)),
    }
}

fn failed(program: &str, output: &Output) -> io::Error {
    io::Error::other(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
