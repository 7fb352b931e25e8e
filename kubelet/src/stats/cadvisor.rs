//! `/metrics/cadvisor`.

use jiff::Timestamp;

use super::exposition::Exposition;
use super::{ContainerStats, GroupStats, NodeStats, PodStats};
use crate::platform::{FsUsage, Interface, OpenFiles};

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
    rootfs: Option<u64>,
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

const SIMPLE: [Simple; 22] = [
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
    ("container_fs_reads_total", "Cumulative count of reads completed", "counter", |row| {
        row.group.usage.io_operations.0 as f64
    }),
    ("container_fs_writes_total", "Cumulative count of writes completed", "counter", |row| {
        row.group.usage.io_operations.1 as f64
    }),
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", "counter", |row| {
        row.group.usage.io_bytes.0 as f64
    }),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", "counter", |row| {
        row.group.usage.io_bytes.1 as f64
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

/// The exposition. `open` counts open files of a group.
pub fn exposition(node: &NodeStats, pods: &[PodStats], cores: usize, open: &dyn Fn(&str) -> OpenFiles) -> String {
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
    let rows = rows(node, pods, open);
    cpu(&mut out, &rows);
    for (name, help, kind, value) in SIMPLE {
        out.family(name, help, kind);
        for row in &rows {
            out.sample(&row.labels(), value(row), Some(row.group.at));
        }
    }
    faults(&mut out, &rows);
    disks(&mut out, &rows, node);
    network(&mut out, node, pods);
    out.family("container_last_seen", "Last time a container was seen by the exporter", "gauge");
    for row in &rows {
        out.sample(&row.labels(), row.group.at.as_second() as f64, Some(row.group.at));
    }
    out.family("machine_cpu_cores", "Number of logical CPU cores.", "gauge");
    out.sample(&[], cores as f64, None);
    out.family("machine_memory_bytes", "Amount of memory installed on the machine.", "gauge");
    out.sample(&[], node.memory_capacity as f64, None);
    out.family("machine_swap_bytes", "Amount of swap memory available on the machine.", "gauge");
    out.sample(&[], node.swap.0 as f64, None);
    out.into_text()
}

fn rows<'a>(node: &'a NodeStats, pods: &'a [PodStats], open: &dyn Fn(&str) -> OpenFiles) -> Vec<Row<'a>> {
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
        rootfs: None,
    };
    let mut out = vec![bare("/", node.group, node.booted)];
    for pod in pods {
        let owned = |row: Row<'a>| Row { namespace: &pod.namespace, pod: &pod.name, ..row };
        out.extend(pod.group.map(|group| owned(bare(&pod.cgroup, group, pod.started))));
        for container in pod.containers.iter().chain(&pod.sandbox) {
            let Some(group) = container.group else { continue };
            let row = owned(bare(&container.cgroup, group, container.started));
            out.push(of_container(row, container, open));
        }
    }
    out
}

fn of_container<'a>(row: Row<'a>, container: &'a ContainerStats, open: &dyn Fn(&str) -> OpenFiles) -> Row<'a> {
    Row {
        container: &container.name,
        image: &container.image,
        name: &container.id,
        open: open(&container.cgroup),
        rootfs: container.rootfs.map(|used| used.bytes),
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

/// A family of disk use.
type Disk = (&'static str, &'static str, fn(&FsUsage, u64) -> u64);

fn disks(out: &mut Exposition, rows: &[Row<'_>], node: &NodeStats) {
    let layers = node.container_fs.as_ref().or(node.image_fs.as_ref()).map(|(usage, _)| *usage).or(node.fs);
    let Some(layers) = layers else { return };
    let families: [Disk; 2] = [
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            |_, used| used,
        ),
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            |fs, _| fs.capacity,
        ),
    ];
    for (name, help, value) in families {
        out.family(name, help, "gauge");
        for row in rows {
            let used = if row.id == "/" { Some(layers.used) } else { row.rootfs };
            if let Some(used) = used {
                let labels = with(&row.labels(), ("device", ""));
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
                    ("image", ""),
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
