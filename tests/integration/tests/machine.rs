//! The product on a machine as users have it: Debian with systemd and cgroup v2, booted in a virtual machine.
//!
//! `GUEST_ROOT` names a directory with Debian's root file system, `GUEST_PROGRAMS` one with programs built for release.

use std::{path::Path, process::Command, time::Duration};

use harness::{Guest, guest};

fn image(output: &Path) {
    let named = |variable: &str| std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no directory"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new("bash")
        .arg(here.join("tests/machine/image.sh"))
        .args([Path::new(&named("GUEST_ROOT")), &guest::kernel(), Path::new(&named("GUEST_PROGRAMS"))])
        .args([&here.join("../../deploy"), output])
        .status()
        .expect("bash");
    assert!(made.success(), "the machine's disk cannot be made");
}

/// Text of a part that holds files after headings of `head`.
fn files(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("==> ").skip(1);
    parts.filter_map(|part| part.split_once(" <==\n")).map(|(name, text)| (name, text.trim())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_lives_on_a_machine_with_systemd_and_cgroup_v2() {
    let directory = tempfile::tempdir().expect("a directory");
    image(directory.path());
    let initramfs = directory.path().join("initramfs");
    let disk = directory.path().join("disk");
    let guest = Guest::boot(3072, &initramfs, Some(&disk), directory.path().join("guest.log"));
    // Its processors are emulated: all takes ten times as long as on a machine.
    guest.ended(Duration::from_secs(2400)).await;
    let console = guest.console();

    assert_eq!(guest.part("cgroup file system").trim(), "cgroup2fs", "{console}");
    let start = guest.part("quick start");
    for way in ["(cluster IP)", "(node port)", "(name)"] {
        assert!(start.contains(&format!("{way}: hello from timonel")), "no answer by {way}: {console}");
    }
    let pod = guest.part("guaranteed pod");
    let expected = [("cpu.max", "20000 100000"), ("memory.max", "67108864"), ("cpu.weight", "8")];
    assert_eq!(files(&pod), expected, "{console}");
    let container = guest.part("guaranteed container");
    assert!(container.contains("20000 100000\n67108864\n"), "{console}");
    let pod = guest.part("burstable pod");
    let expected = [("cpu.max", "max 100000"), ("memory.max", "134217728"), ("cpu.weight", "4")];
    assert_eq!(files(&pod), expected, "{console}");
    assert_eq!(guest.part("seen from inside"), "20000 100000\n67108864\n", "{console}");
    assert!(guest.part("out of memory").contains("\n137\n"), "{console}");
    let units = guest.part("units");
    assert!(units.starts_with("active\nactive\nenabled\n") && units.contains("/opt/timonel/bin/kubelet"), "{console}");
    assert!(guest.part("kubelet killed").contains("the same container"), "{console}");
    let stats = guest.part("stats");
    let stats: serde_json::Value = serde_json::from_str(stats.trim()).unwrap_or_default();
    for number in ["/node/cpu/usageCoreNanoSeconds", "/node/memory/workingSetBytes", "/pods/0/memory/workingSetBytes"] {
        assert!(stats.pointer(number).and_then(serde_json::Value::as_u64).unwrap_or(0) > 0, "no {number}: {console}");
    }
    let after = guest.part("after the reboot");
    assert!(after.contains("hello from timonel\n") && !after.contains("timed out"), "{after}\n{console}");
    let left = guest.part("left");
    assert_eq!(left, "", "what `delete` leaves: {console}");
}
