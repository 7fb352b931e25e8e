//! `/stats/summary`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{ContainerStats, GroupStats, NodeStats, PodStats, VolumeStats};
use crate::platform::{DiskUse, FsUsage, Interface, Stall};

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything.
    All,
    /// Cpu and memory only.
    CpuAndMemory,
}

/// The document.
pub fn summary(node_name: &str, node: &NodeStats, pods: &[PodStats], now: Timestamp, detail: Detail) -> Value {
    let all = detail == Detail::All;
    let mut out = json!({
        "nodeName": node_name,
        "startTime": time(node.booted),
        "systemContainers": node.system.iter().map(|(name, group)| json!({
            "name": name, "startTime": time(node.booted), "cpu": cpu(group), "memory": memory(group, None),
        })).collect::<Vec<_>>(),
        "cpu": cpu(&node.group),
        "memory": memory(&node.group, Some(node.memory_capacity)),
    });
    if all {
        if let Some(io) = io(&node.group) {
            out["io"] = io;
        }
        out["network"] = network(&node.network, now);
        out["swap"] = json!({
            "time": time(node.group.at),
            "swapAvailableBytes": node.swap.1,
            "swapUsageBytes": node.swap.0.saturating_sub(node.swap.1),
        });
        if let Some(usage) = &node.fs {
            out["fs"] = fs(usage, own(usage), now);
        }
        let images = node.image_fs.as_ref().map(|(usage, used)| fs(usage, *used, now));
        let layers = node.container_fs.as_ref().map(|(usage, used)| fs(usage, *used, now));
        let layers = layers.or_else(|| images.clone());
        out["runtime"] = json!({ "imageFs": images, "containerFs": layers });
        if let Some(ids) = node.processes {
            out["rlimit"] = json!({ "time": time(now), "maxpid": ids.max, "curproc": ids.used });
        }
    }
    json!({ "node": out, "pods": pods.iter().map(|one| pod(one, node, now, all)).collect::<Vec<_>>() })
}

fn pod(stats: &PodStats, node: &NodeStats, now: Timestamp, all: bool) -> Value {
    let mut out = json!({
        "podRef": { "name": stats.name, "namespace": stats.namespace, "uid": stats.uid },
        "startTime": time(stats.started),
        "containers": stats.containers.iter().map(|one| container(one, node, now, all)).collect::<Vec<_>>(),
    });
    if let Some(group) = &stats.group {
        out["cpu"] = cpu(group);
        out["memory"] = memory(group, group.usage.memory_limit);
    }
    if !all {
        return out;
    }
    if let Some(interfaces) = &stats.network {
        out["network"] = network(interfaces, now);
    }
    if !stats.volumes.is_empty() {
        out["volume"] = stats.volumes.iter().map(|one| volume(stats, one, now)).collect();
    }
    if let Some(usage) = &node.fs {
        out["ephemeral-storage"] = fs(usage, stats.ephemeral_storage(), now);
    }
    out["process_stats"] = json!({ "process_count": stats.processes() });
    if let Some(group) = &stats.group {
        out["swap"] = json!({ "time": time(group.at), "swapUsageBytes": group.usage.swap });
        if let Some(io) = io(group) {
            out["io"] = io;
        }
    }
    out
}

fn container(stats: &ContainerStats, node: &NodeStats, now: Timestamp, all: bool) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(stats.name));
    out.insert("startTime".to_owned(), time(stats.started));
    if let Some(group) = &stats.group {
        out.insert("cpu".to_owned(), cpu(group));
        out.insert("memory".to_owned(), memory(group, group.usage.memory_limit));
    }
    if all {
        let layers = node.container_fs.as_ref().or(node.image_fs.as_ref()).map(|(usage, _)| *usage);
        if let (Some(usage), Some(used)) = (layers.or(node.fs), stats.rootfs) {
            out.insert("rootfs".to_owned(), fs(&usage, used, now));
        }
        if let (Some(usage), Some(used)) = (&node.fs, stats.logs) {
            out.insert("logs".to_owned(), fs(usage, used, now));
        }
        if let Some(group) = &stats.group {
            let swap = json!({ "time": time(group.at), "swapUsageBytes": group.usage.swap });
            out.insert("swap".to_owned(), swap);
            out.extend(io(group).map(|io| ("io".to_owned(), io)));
        }
    }
    Value::Object(out)
}

fn volume(pod: &PodStats, stats: &VolumeStats, now: Timestamp) -> Value {
    let mut out = fs(&stats.fs, stats.used, now);
    out["name"] = json!(stats.name);
    if let Some(abnormal) = stats.abnormal {
        out["volumeHealthStats"] = json!({ "abnormal": abnormal });
    }
    if let Some(claim) = &stats.claim {
        out["pvcRef"] = json!({ "name": claim, "namespace": pod.namespace });
    }
    out
}

fn time(at: Timestamp) -> Value {
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Time lost waiting, as documents show it.
fn pressure([some, full]: [Stall; 2]) -> Value {
    let one = |stall: Stall| {
        let [avg10, avg60, avg300] = stall.hundredths.map(|share| share as f64 / 100.0);
        json!({ "total": stall.total_micros * 1000, "avg10": avg10, "avg60": avg60, "avg300": avg300 })
    };
    json!({ "full": one(full), "some": one(some) })
}

fn io(group: &GroupStats) -> Option<Value> {
    let found = group.usage.pressure?;
    Some(json!({ "time": time(group.at), "psi": pressure(found.io) }))
}

fn cpu(group: &GroupStats) -> Value {
    let mut out = json!({ "time": time(group.at), "usageCoreNanoSeconds": group.usage.cpu_nanos });
    if let Some(rate) = group.nano_cores {
        out["usageNanoCores"] = json!(rate);
    }
    if let Some(found) = group.usage.pressure {
        out["psi"] = pressure(found.cpu);
    }
    out
}

fn memory(group: &GroupStats, limit: Option<u64>) -> Value {
    let usage = &group.usage;
    let mut out = json!({
        "time": time(group.at),
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set(),
        "rssBytes": usage.rss,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    if let Some(found) = usage.pressure {
        out["psi"] = pressure(found.memory);
    }
    if let Some(limit) = limit {
        out["availableBytes"] = json!(limit.saturating_sub(usage.working_set()));
    }
    out
}

fn network(interfaces: &[Interface], now: Timestamp) -> Value {
    let one = |interface: &Interface| {
        json!({
            "name": interface.name,
            "rxBytes": interface.rx_bytes, "rxErrors": interface.rx_errors,
            "txBytes": interface.tx_bytes, "txErrors": interface.tx_errors,
        })
    };
    // The first interface's numbers stand at the top, `eth0` before others.
    let main = interfaces.iter().find(|interface| interface.name == "eth0").or(interfaces.first());
    let mut out = main.map_or_else(|| json!({}), one);
    out["time"] = time(now);
    out["interfaces"] = interfaces.iter().map(one).collect();
    out
}

fn fs(usage: &FsUsage, used: DiskUse, now: Timestamp) -> Value {
    json!({
        "time": time(now),
        "availableBytes": usage.available,
        "capacityBytes": usage.capacity,
        "usedBytes": used.bytes,
        "inodesFree": usage.inodes_free,
        "inodes": usage.inodes,
        "inodesUsed": used.inodes,
    })
}

fn own(usage: &FsUsage) -> DiskUse {
    DiskUse { bytes: usage.used, inodes: usage.inodes.saturating_sub(usage.inodes_free) }
}
