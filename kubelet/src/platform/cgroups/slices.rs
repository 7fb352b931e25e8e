//! Slices of systemd. What it does not know of a group it undoes: limits are therefore told to it, through `busctl`, which
//! comes with it.

use std::{
    collections::HashMap,
    io,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use super::{CgroupLimits, CgroupVersion, weight};
use crate::pods::resources::QUOTA_PERIOD;

/// Seconds that systemd is given for an answer.
const PATIENCE: u32 = 10;
const UNIT_EXISTS: &str = "already loaded or has a fragment file";

/// Name, type and value of a property, as `busctl` takes them.
type Property = [String; 3];

/// The slices that this process has told systemd of.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices(Arc<Mutex<HashMap<String, Vec<Property>>>>);

impl Slices {
    /// Starts the slice of a group, or changes its limits.
    pub(super) fn apply(&self, path: &str, version: CgroupVersion, limits: &CgroupLimits) -> io::Result<()> {
        let unit = unit(path);
        if unit.is_empty() {
            return Ok(());
        }
        let wanted = properties(version, limits);
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).get(unit) == Some(&wanted) {
            return Ok(());
        }
        let told = match start(unit, &wanted) {
            Err(error) if error.to_string().contains(UNIT_EXISTS) => change(unit, &wanted),
            other => other,
        };
        told.map_err(|error| io::Error::new(error.kind(), format!("systemd slice {unit}: {error}")))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned(), wanted);
        Ok(())
    }

    /// Stops the slice of a group that is removed.
    pub(super) fn stop(&self, path: &str) {
        let unit = unit(path);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(unit);
        if let Err(error) = call("StopUnit", "ss", &[unit.to_owned(), "replace".to_owned()]) {
            tracing::debug!(unit, %error, "slice not stopped");
        }
    }
}

/// The unit is the last name of the path.
fn unit(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn start(unit: &str, wanted: &[Property]) -> io::Result<()> {
    let fixed = [
        ["Description", "s", "Pods of the kubelet"],
        ["DefaultDependencies", "b", "false"],
        ["MemoryAccounting", "b", "true"],
        ["CPUAccounting", "b", "true"],
        ["TasksAccounting", "b", "true"],
    ];
    let fixed: Vec<Property> = fixed.iter().map(|words| words.map(str::to_owned)).collect();
    let mut words = vec![unit.to_owned(), "replace".to_owned()];
    words.push((fixed.len() + wanted.len()).to_string());
    words.extend(fixed.iter().chain(wanted).flatten().cloned());
    words.push("0".to_owned());
    call("StartTransientUnit", "ssa(sv)a(sa(sv))", &words)
}

fn change(unit: &str, wanted: &[Property]) -> io::Result<()> {
    let mut words = vec![unit.to_owned(), "true".to_owned(), wanted.len().to_string()];
    words.extend(wanted.iter().flatten().cloned());
    call("SetUnitProperties", "sba(sv)", &words)
}

fn call(method: &str, signature: &str, words: &[String]) -> io::Result<()> {
    let timeout = format!("--timeout={PATIENCE}");
    let (service, object) = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1");
    let manager = "org.freedesktop.systemd1.Manager";
    let ended = Command::new("busctl")
        .args([timeout.as_str(), "--quiet", "call", service, object, manager, method, signature, "--"])
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    if ended.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
}

/// What systemd calls the limits (systemd.resource-control(5)).
fn properties(version: CgroupVersion, limits: &CgroupLimits) -> Vec<Property> {
    const INFINITE: u64 = u64::MAX;
    let mut found = Vec::new();
    let mut add = |name: &str, value: u64| found.push([name.to_owned(), "t".to_owned(), value.to_string()]);
    let amount = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0).unwrap_or(INFINITE);
    if let Some(shares) = limits.cpu_shares {
        match version {
            CgroupVersion::V1 => add("CPUShares", amount(shares)),
            CgroupVersion::V2 => add("CPUWeight", amount(weight(shares))),
        }
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let period = limits.cpu_period.filter(|period| *period > 0).unwrap_or(QUOTA_PERIOD);
        add("CPUQuotaPerSecUSec", per_second(limits.cpu_quota.unwrap_or(-1), period).unwrap_or(INFINITE));
        add("CPUQuotaPeriodUSec", amount(period));
    }
    if let Some(memory) = limits.memory {
        let name = if version == CgroupVersion::V1 { "MemoryLimit" } else { "MemoryMax" };
        add(name, amount(memory));
    }
    if let Some(pids) = limits.pids {
        add("TasksMax", amount(pids));
    }
    found
}

/// Microseconds of processor time in a second, in the steps of 10 ms that systemd rounds to. `None` is no limit.
fn per_second(quota: i64, period: i64) -> Option<u64> {
    const STEP: i64 = 10_000;
    if quota <= 0 {
        return None;
    }
    let exact = quota.saturating_mul(1_000_000) / period;
    u64::try_from((exact + STEP - 1) / STEP * STEP).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_other_names_in_systemd() {
        let limits = CgroupLimits {
            cpu_shares: Some(204),
            cpu_quota: Some(20_000),
            cpu_period: Some(100_000),
            memory: Some(64 << 20),
            pids: Some(-1),
            ..CgroupLimits::default()
        };
        let shown = |version| -> Vec<String> {
            properties(version, &limits).iter().map(|[name, _, value]| format!("{name}={value}")).collect()
        };
        let both = ["CPUQuotaPerSecUSec=200000", "CPUQuotaPeriodUSec=100000"];
        let v2 = shown(CgroupVersion::V2);
        assert_eq!(v2, ["CPUWeight=8", both[0], both[1], "MemoryMax=67108864", "TasksMax=18446744073709551615"]);
        let v1 = shown(CgroupVersion::V1);
        assert_eq!(v1[..1], ["CPUShares=204"]);
        assert_eq!(v1[3], "MemoryLimit=67108864");
    }

    #[test]
    fn quotas_are_rounded_up() {
        for (quota, expected) in [(20_000, Some(200_000)), (1_234, Some(20_000)), (-1, None), (0, None)] {
            assert_eq!(per_second(quota, 100_000), expected, "{quota}");
        }
    }

    #[test]
    fn the_unit_is_the_last_slice() {
        assert_eq!(unit("/kubepods.slice/kubepods-pod1_2.slice"), "kubepods-pod1_2.slice");
        assert_eq!(unit("/"), "");
    }
}
