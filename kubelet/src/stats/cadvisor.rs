//! `/metrics/cadvisor`.

use jiff::Timestamp;

use super::exposition::Exposition;
use super::{ContainerStats, GroupStats, NodeStats, PodStats};
use crate::platform::{DeviceIo, DiskUse, FsUsage, Interface, OpenFiles, Pressure, Stall};

/// Whose a control group is.
struct Row<'a> {
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
    group: GroupStats,
    started: Timestamp,
    open: OpenFiles,
    io: Vec<DeviceIo>,
    rootfs: Option<DiskUse>,
}

impl<'a> Row<'a> {
    fn labels(&self) -> [(&'static str, &'a str); 6] {
        [
            ("container", self.container),
            ("id", self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ]
    }
}

/// A family whose value comes from a control group alone.
type Simple = (&'static str, &'static str, &'static str, fn(&Row<'_>) -> f64);

const SIMPLE: [Simple; 21] = [
    ("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", "counter", |row| {
        seconds(row.group.usage.cpu_user_nanos)
    }),
    ("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", "counter", |row| {
        seconds(row.group.usage.cpu_system_nanos)
    }),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        "gauge",
        |row| row.group.usage.memory as f64,
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", "gauge", |row| {
        row.group.usage.working_set() as f64
    }),
    ("container_memory_rss", "Size of RSS in bytes.", "gauge", |row| row.group.usage.rss as f64),
    ("container_memory_cache", "Number of bytes of page cache memory.", "gauge", |row| row.group.usage.cache as f64),
    ("container_memory_mapped_file", "Size of memory mapped files in bytes.", "gauge", |row| {
        row.group.usage.mapped_file as f64
    }),
    ("container_memory_swap", "Container swap usage in bytes.", "gauge", |row| row.group.usage.swap as f64),
    ("container_memory_failcnt", "Number of memory usage hits limits", "counter", |row| row.group.usage.failcnt as f64),
    ("container_oom_events_total", "Count of out of memory events observed for the container", "counter", |row| {
        row.group.usage.oom_kills as f64
    }),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "gauge", |row| {
        row.group.usage.memory_peak as f64
    }),
    ("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", "gauge", |row| {
        row.group.usage.swap_limit.unwrap_or(0) as f64
    }),
    ("container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.", "gauge", |row| {
        row.group.usage.memory_reservation as f64
    }),
    ("container_processes", "Number of processes running inside the container.", "gauge", |row| {
        row.open.processes as f64
    }),
    ("container_threads", "Number of threads running inside the container", "gauge", |row| row.group.usage.pids as f64),
    ("container_file_descriptors", "Number of open file descriptors for the container.", "gauge", |row| {
        row.open.descriptors as f64
    }),
    ("container_sockets", "Number of open sockets for the container.", "gauge", |row| row.open.sockets as f64),
    ("container_spec_cpu_shares", "CPU share of the container.", "gauge", |row| row.group.usage.cpu_shares as f64),
    ("container_spec_cpu_period", "CPU period of the container.", "gauge", |row| row.group.usage.cpu_period as f64),
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", "gauge", |row| {
        row.group.usage.memory_limit.unwrap_or(0) as f64
    }),
    ("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", "gauge", |row| {
        row.started.as_second() as f64
    }),
];

/// Interface counters by direction.
type Traffic = (&'static str, &'static str, fn(&Interface) -> u64);

const TRAFFIC: [Traffic; 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| {
        i.rx_errors
    }),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |i| {
        i.rx_dropped
    }),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |i| i.rx_packets),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| {
        i.tx_errors
    }),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |i| i.tx_dropped,
    ),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |i| i.tx_packets),
];

/// What is asked of groups for this exposition alone.
pub trait Groups {
    /// Open files.
    fn open(&self, path: &str) -> OpenFiles;
    /// Reads and writes.
    fn io(&self, path: &str) -> Vec<DeviceIo>;
}

/// The exposition. Without Pods it tells that they could not be read.
pub fn exposition(node: &NodeStats, pods: Option<&[PodStats]>, cores: usize, groups: &dyn Groups) -> String {
    let failed = f64::from(u8::from(pods.is_none()));
    let pods = pods.unwrap_or_default();
    let mut out = Exposition::new("");
    out.family("cadvisor_version_info", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.", "gauge");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", kernel.trim()),
        ("osVersion", "linux"),
    ];
    out.sample(&version, 1.0, None);
    let rows = rows(node, pods, groups);
    cpu(&mut out, &rows);
    for (name, help, kind, value) in SIMPLE {
        out.family(name, help, kind);
        for row in &rows {
            out.sample(&row.labels(), value(row), Some(row.group.at));
        }
    }
    faults(&mut out, &rows);
    pressure(&mut out, &rows);
    reads_and_writes(&mut out, &rows);
    disks(&mut out, &rows, node);
    network(&mut out, node, pods);
    out.family("container_last_seen", "Last time a container was seen by the exporter", "gauge");
    for row in &rows {
        out.sample(&row.labels(), row.group.at.as_second() as f64, Some(row.group.at));
    }
    out.family(
        "container_scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
        "gauge",
    );
    out.sample(&[], failed, None);
    out.family("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.", "gauge");
    out.sample(&[], f64::from(u8::from(node.memory_capacity == 0)), None);
    out.family("machine_cpu_cores", "Number of logical CPU cores.", "gauge");
    out.sample(&[], cores as f64, None);
    out.family("machine_memory_bytes", "Amount of memory installed on the machine.", "gauge");
    out.sample(&[], node.memory_capacity as f64, None);
    out.family("machine_swap_bytes", "Amount of swap memory available on the machine.", "gauge");
    out.sample(&[], node.swap.0 as f64, None);
    out.into_text()
}

fn rows<'a>(node: &'a NodeStats, pods: &'a [PodStats], groups: &dyn Groups) -> Vec<Row<'a>> {
    let bare = |id: &'a str, group: GroupStats, started| Row {
        container: "",
        id,
        image: "",
        name: "",
        namespace: "",
        pod: "",
        group,
        started,
        open: OpenFiles::default(),
        io: groups.io(id),
        rootfs: None,
    };
    let mut out = vec![bare("/", node.group, node.booted)];
    out.extend(node.slices.iter().map(|(path, group)| bare(path, *group, node.booted)));
    for pod in pods {
        let owned = |row: Row<'a>| Row { namespace: &pod.namespace, pod: &pod.name, ..row };
        out.extend(pod.group.map(|group| owned(bare(&pod.cgroup, group, pod.started))));
        for container in pod.containers.iter().chain(&pod.sandbox) {
            let Some(group) = container.group else { continue };
            let row = owned(bare(&container.cgroup, group, container.started));
            out.push(of_container(row, container, groups));
        }
    }
    out
}

fn of_container<'a>(row: Row<'a>, container: &'a ContainerStats, groups: &dyn Groups) -> Row<'a> {
    Row {
        container: &container.name,
        image: &container.image,
        name: &container.id,
        open: groups.open(&container.cgroup),
        rootfs: container.rootfs,
        ..row
    }
}

fn cpu(out: &mut Exposition, rows: &[Row<'_>]) {
    out.family("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "counter");
    for row in rows {
        let labels = with(&row.labels(), ("cpu", "total"));
        out.sample(&labels, seconds(row.group.usage.cpu_nanos), Some(row.group.at));
    }
    let families: [Simple; 4] = [
        ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", "counter", |row| {
            row.group.usage.periods as f64
        }),
        ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", "counter", |row| {
            row.group.usage.throttled_periods as f64
        }),
        (
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
            "counter",
            |row| seconds(row.group.usage.throttled_nanos),
        ),
        ("container_spec_cpu_quota", "CPU quota of the container.", "gauge", |row| {
            row.group.usage.cpu_quota.unwrap_or(0) as f64
        }),
    ];
    for (name, help, kind, value) in families {
        out.family(name, help, kind);
        for row in rows.iter().filter(|row| row.group.usage.cpu_quota.is_some()) {
            out.sample(&row.labels(), value(row), Some(row.group.at));
        }
    }
}

fn faults(out: &mut Exposition, rows: &[Row<'_>]) {
    out.family("container_memory_failures_total", "Cumulative count of memory allocation failures.", "counter");
    for row in rows {
        let usage = &row.group.usage;
        for (kind, value) in [("pgfault", usage.page_faults), ("pgmajfault", usage.major_page_faults)] {
            let labels = with(&with(&row.labels(), ("failure_type", kind)), ("scope", "hierarchy"));
            out.sample(&labels, value as f64, Some(row.group.at));
        }
    }
}

/// Which of the two stalls of a resource.
type Wait = fn(&Pressure) -> Stall;

fn pressure(out: &mut Exposition, rows: &[Row<'_>]) {
    const FAMILIES: [(&str, &str, Wait); 6] = [
        (
            "container_pressure_cpu_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to CPU congestion.",
            |p| p.cpu[1],
        ),
        (
            "container_pressure_cpu_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to CPU congestion.",
            |p| p.cpu[0],
        ),
        (
            "container_pressure_io_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to IO congestion.",
            |p| p.io[1],
        ),
        (
            "container_pressure_io_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to IO congestion.",
            |p| p.io[0],
        ),
        (
            "container_pressure_memory_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to memory congestion.",
            |p| p.memory[1],
        ),
        (
            "container_pressure_memory_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to memory congestion.",
            |p| p.memory[0],
        ),
    ];
    for (name, help, wait) in FAMILIES {
        out.family(name, help, "counter");
        for row in rows {
            if let Some(found) = &row.group.usage.pressure {
                out.sample(&row.labels(), wait(found).total_micros as f64 / 1e6, Some(row.group.at));
            }
        }
    }
}

/// Reads or writes on a device.
type Io = (&'static str, &'static str, fn(&DeviceIo) -> u64);

fn reads_and_writes(out: &mut Exposition, rows: &[Row<'_>]) {
    const FAMILIES: [Io; 4] = [
        ("container_fs_reads_total", "Cumulative count of reads completed", |io| io.reads),
        ("container_fs_writes_total", "Cumulative count of writes completed", |io| io.writes),
        ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |io| io.read_bytes),
        ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |io| io.written_bytes),
    ];
    for (name, help, value) in FAMILIES {
        out.family(name, help, "counter");
        for row in rows {
            for io in &row.io {
                let labels = with(&row.labels(), ("device", &io.device));
                out.sample(&labels, value(io) as f64, Some(row.group.at));
            }
        }
    }
}

/// A family of disk use.
type Disk = (&'static str, &'static str, fn(&FsUsage, DiskUse) -> u64);

fn disks(out: &mut Exposition, rows: &[Row<'_>], node: &NodeStats) {
    let layers = node.container_fs.as_ref().or(node.image_fs.as_ref()).map(|(usage, _)| *usage).or(node.fs);
    let Some(layers) = layers else { return };
    let families: [Disk; 4] = [
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            |_, used| used.bytes,
        ),
        ("container_fs_inodes_free", "Number of available Inodes", |fs, _| fs.inodes_free),
        ("container_fs_inodes_total", "Number of Inodes", |fs, _| fs.inodes),
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            |fs, _| fs.capacity,
        ),
    ];
    for (name, help, value) in families {
        out.family(name, help, "gauge");
        for row in rows {
            let whole = DiskUse { bytes: layers.used, inodes: layers.inodes.saturating_sub(layers.inodes_free) };
            let used = if row.id == "/" { Some(whole) } else { row.rootfs };
            if let Some(used) = used {
                let labels = with(&row.labels(), ("device", &node.device));
                out.sample(&labels, value(&layers, used) as f64, Some(row.group.at));
            }
        }
    }
}

fn network(out: &mut Exposition, node: &NodeStats, pods: &[PodStats]) {
    for (name, help, value) in TRAFFIC {
        out.family(name, help, "counter");
        for interface in &node.network {
            let labels = [
                ("container", ""),
                ("id", "/"),
                ("image", ""),
                ("interface", interface.name.as_str()),
                ("name", ""),
                ("namespace", ""),
                ("pod", ""),
            ];
            out.sample(&labels, value(interface) as f64, Some(node.group.at));
        }
        for pod in pods {
            let Some(sandbox) = &pod.sandbox else { continue };
            for interface in pod.network.iter().flatten() {
                let labels = [
                    ("container", ""),
                    ("id", sandbox.cgroup.as_str()),
                    ("image", sandbox.image.as_str()),
                    ("interface", interface.name.as_str()),
                    ("name", sandbox.id.as_str()),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                out.sample(&labels, value(interface) as f64, sandbox.group.map(|group| group.at));
            }
        }
    }
}

fn with<'a>(labels: &[(&'static str, &'a str)], more: (&'static str, &'a str)) -> Vec<(&'static str, &'a str)> {
    let mut all = labels.to_vec();
    all.push(more);
    all.sort_unstable();
    all
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Groups for Fixed {
        fn open(&self, _: &str) -> OpenFiles {
            OpenFiles { processes: 1, descriptors: 7, sockets: 2 }
        }

        fn io(&self, _: &str) -> Vec<DeviceIo> {
            vec![DeviceIo { device: "/dev/sda".to_owned(), reads: 5, ..DeviceIo::default() }]
        }
    }

    fn shown(pods: Option<&[PodStats]>) -> String {
        let fs = FsUsage { capacity: 100, available: 40, used: 60, inodes: 10, inodes_free: 4 };
        let node = NodeStats {
            memory_capacity: 1,
            fs: Some(fs),
            device: "/dev/sda1".to_owned(),
            slices: vec![("/kubepods".to_owned(), GroupStats::default())],
            ..NodeStats::default()
        };
        exposition(&node, pods, 2, &Fixed)
    }

    /// The sample of a family with these labels.
    fn sample<'a>(text: &'a str, name: &str, labels: &[&str]) -> &'a str {
        let has = |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|one| line.contains(one));
        text.lines().find(has).and_then(|line| line.split("} ").nth(1)?.split(' ').next()).unwrap_or("none")
    }

    #[test]
    fn panels_find_what_they_look_for() {
        let stall = Stall { total_micros: 1_500_000, hundredths: [0; 3] };
        let usage = crate::platform::CgroupUsage {
            memory_peak: 9,
            pressure: Some(Pressure { cpu: [stall, Stall::default()], ..Pressure::default() }),
            ..Default::default()
        };
        let container = |name: &str, image: &str| ContainerStats {
            name: name.to_owned(),
            image: image.to_owned(),
            group: Some(GroupStats { usage, ..GroupStats::default() }),
            rootfs: Some(DiskUse { bytes: 12, inodes: 3 }),
            ..ContainerStats::default()
        };
        let pods = [PodStats {
            name: "p".to_owned(),
            namespace: "ns".to_owned(),
            containers: vec![container("c", "img")],
            sandbox: Some(container("", "pause")),
            ..PodStats::default()
        }];
        let text = shown(Some(&pods));
        let own = ["container=\"c\"", "image=\"img\"", "pod=\"p\"", "namespace=\"ns\""];
        for (name, more, expected) in [
            ("container_memory_max_usage_bytes", "", "9"),
            ("container_pressure_cpu_waiting_seconds_total", "", "1.5"),
            ("container_fs_reads_total", "device=\"/dev/sda\"", "5"),
            ("container_fs_usage_bytes", "device=\"/dev/sda1\"", "12"),
            ("container_fs_inodes_free", "device=\"/dev/sda1\"", "4"),
            ("container_file_descriptors", "", "7"),
        ] {
            let labels: Vec<&str> = own.into_iter().chain([more]).collect();
            assert_eq!(sample(&text, name, &labels), expected, "{name}");
        }
        assert_eq!(sample(&text, "container_memory_max_usage_bytes", &["image=\"pause\"", "container=\"\""]), "9");
        assert_eq!(sample(&text, "container_memory_rss", &["id=\"/kubepods\""]), "0");
        assert!(text.contains("\ncontainer_scrape_error 0\n") && text.contains("\nmachine_scrape_error 0\n"));
        assert!(shown(None).contains("\ncontainer_scrape_error 1\n"));
    }
}
