//! Reads and writes of a group by device.

use std::collections::BTreeMap;
use std::path::Path;

use super::read;
use crate::platform::DeviceIo;

/// By `major:minor`.
pub(super) type ByDevice = BTreeMap<String, DeviceIo>;

/// Version 1: `8:0 Read 4096` in one file of operations and one of bytes.
pub(super) fn v1(dir: &Path) -> ByDevice {
    let mut all = ByDevice::new();
    add_v1(&mut all, &read(&dir.join("blkio.throttle.io_serviced_recursive")), |io| (&mut io.reads, &mut io.writes));
    let bytes = read(&dir.join("blkio.throttle.io_service_bytes_recursive"));
    add_v1(&mut all, &bytes, |io| (&mut io.read_bytes, &mut io.written_bytes));
    all
}

fn add_v1(all: &mut ByDevice, text: &str, fields: fn(&mut DeviceIo) -> (&mut u64, &mut u64)) {
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, operation, count] = words.as_slice() else { continue };
        let (Ok(count), true) = (count.parse::<u64>(), device.contains(':')) else { continue };
        let (reads, writes) = fields(all.entry((*device).to_owned()).or_default());
        match *operation {
            "Read" => *reads = count,
            "Write" => *writes = count,
            _ => {}
        }
    }
}

/// Version 2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4`.
pub(super) fn v2(dir: &Path) -> ByDevice {
    read(&dir.join("io.stat")).lines().filter_map(line_v2).collect()
}

fn line_v2(line: &str) -> Option<(String, DeviceIo)> {
    let (device, rest) = line.split_once(' ')?;
    let value = |key: &str| {
        let mut pairs = rest.split(' ').filter_map(|word| word.split_once('='));
        pairs.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    };
    let io = DeviceIo {
        device: String::new(),
        reads: value("rios"),
        writes: value("wios"),
        read_bytes: value("rbytes"),
        written_bytes: value("wbytes"),
    };
    Some((device.to_owned(), io))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_devices_apart() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Write 4\n8:0 Sync 9\n9:1 Read 1\nTotal 8\n");
        write("blkio.throttle.io_service_bytes_recursive", "8:0 Read 300\n8:0 Write 400\nTotal 700\n");
        write(
            "io.stat",
            "8:0 rbytes=300 wbytes=400 rios=3 wios=4 dbytes=0 dios=0\n9:1 rbytes=0 wbytes=0 rios=1 wios=0\n",
        );
        let (one, two) = (v1(dir.path()), v2(dir.path()));
        assert_eq!(one, two);
        let device = String::new();
        assert_eq!(one["8:0"], DeviceIo { device, reads: 3, writes: 4, read_bytes: 300, written_bytes: 400 });
        assert_eq!(one.len(), 2);
    }
}
