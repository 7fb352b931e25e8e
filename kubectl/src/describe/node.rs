//! Nodes.

use std::collections::BTreeMap;

use machinery::quantity::Quantity;
use semantics::resources::{pod_total, read};
use serde_json::Value;

use super::{
    Facts,
    events::{self, conditions, lines},
    page::{Page, put},
    read::{flag, list, quantity, sorted, text, texts},
};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
/// Resources that are shown with their share of the node.
const SHARED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

type Amounts = BTreeMap<String, Quantity>;

/// A Node.
pub(crate) fn node(page: &mut Page, node: &Value, facts: &Facts) {
    let (meta, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    put!(page, 0, "Name:\t{}", text(&meta["name"]));
    let roles = roles(&meta["labels"]);
    put!(page, 0, "Roles:\t{}", if roles.is_empty() { "<none>".into() } else { roles.join(",") });
    events::metadata(page, node);
    let created = page.clock.time(text(&meta["creationTimestamp"]));
    put!(page, 0, "CreationTimestamp:\t{created}");
    taints(page, &spec["taints"]);
    put!(page, 0, "Unschedulable:\t{}", flag(&spec["unschedulable"]));
    lease(page, facts);
    let columns = [
        ("Type", "type"),
        ("Status", "status"),
        ("LastHeartbeatTime", "lastHeartbeatTime"),
        ("LastTransitionTime", "lastTransitionTime"),
        ("Reason", "reason"),
        ("Message", "message"),
    ];
    conditions(page, "Conditions", &columns, &status["conditions"], true);
    put!(page, 0, "Addresses:");
    for address in list(&status["addresses"]) {
        put!(page, 1, "{}:\t{}", text(&address["type"]), text(&address["address"]));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        let rows = sorted(&status[field]);
        if rows.is_empty() {
            continue;
        }
        put!(page, 0, "{title}:");
        for (name, amount) in rows {
            put!(page, 1, "{name}:\t{}", quantity(amount));
        }
    }
    slices(page, &facts.resource_slices);
    system(page, node);
    match &facts.forbidden {
        true => put!(page, 0, "Pods:\tnot authorized"),
        false => pods(page, node, facts),
    }
    events::events(page, facts.events());
}

/// Roles by the labels of a Node.
fn roles(labels: &Value) -> Vec<String> {
    let mut roles: Vec<String> = sorted(labels)
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role).filter(|r| !r.is_empty()),
            None => Some(text(value)).filter(|v| *key == ROLE_LABEL && !v.is_empty()),
        })
        .map(str::to_owned)
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

fn taints(page: &mut Page, taints: &Value) {
    let mut taints: Vec<&Value> = list(taints).iter().collect();
    taints.sort_by_key(|taint| (text(&taint["effect"]), text(&taint["key"])));
    let rows: Vec<String> = taints
        .iter()
        .map(|taint| {
            let (key, value, effect) = (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]));
            match (value, effect) {
                ("", "") => key.to_owned(),
                ("", effect) => format!("{key}:{effect}"),
                (value, "") => format!("{key}={value}:"),
                (value, effect) => format!("{key}={value}:{effect}"),
            }
        })
        .collect();
    lines(page, 0, "Taints", &rows);
}

fn lease(page: &mut Page, facts: &Facts) {
    let lease = match &facts.lease {
        Ok(lease) => lease,
        Err(error) => {
            put!(page, 0, "Lease:\tFailed to get lease: {error}");
            return;
        }
    };
    let spec = &lease["spec"];
    put!(page, 0, "Lease:");
    let shown = |value: &str| if value.is_empty() { "<unset>".to_owned() } else { value.to_owned() };
    put!(page, 1, "HolderIdentity:\t{}", shown(text(&spec["holderIdentity"])));
    for (title, field) in [("AcquireTime", "acquireTime"), ("RenewTime", "renewTime")] {
        let at = if spec[field].is_null() { "<unset>".into() } else { page.clock.time(text(&spec[field])) };
        put!(page, 1, "{title}:\t{at}");
    }
}

fn slices(page: &mut Page, slices: &[Value]) {
    if slices.is_empty() {
        return;
    }
    let mut pools: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for slice in slices {
        let spec = &slice["spec"];
        let pool = pools.entry((text(&spec["driver"]), text(&spec["pool"]["name"]))).or_default();
        pool.0 += 1;
        pool.1 += list(&spec["devices"]).len();
    }
    put!(page, 0, "Node-Local ResourceSlices:");
    put!(page, 1, "Driver\tPool\tSlices\tDevices");
    put!(page, 1, "------\t----\t------\t-------");
    for ((driver, pool), (slices, devices)) in pools {
        put!(page, 1, "{driver}\t{pool}\t{slices}\t{devices}");
    }
}

fn system(page: &mut Page, node: &Value) {
    let info = &node["status"]["nodeInfo"];
    put!(page, 0, "System Info:");
    let rows = [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ];
    for (title, field) in rows {
        put!(page, 1, "{title}:\t{}", text(&info[field]));
    }
    let spec = &node["spec"];
    if !text(&spec["podCIDR"]).is_empty() {
        put!(page, 0, "PodCIDR:\t{}", text(&spec["podCIDR"]));
    }
    let ranges = texts(&spec["podCIDRs"]);
    if !ranges.is_empty() {
        put!(page, 0, "PodCIDRs:\t{}", ranges.join(","));
    }
    if !text(&spec["providerID"]).is_empty() {
        put!(page, 0, "ProviderID:\t{}", text(&spec["providerID"]));
    }
}

fn amount(amounts: &Amounts, name: &str) -> Quantity {
    amounts.get(name).copied().unwrap_or_else(|| Quantity::from_units(0, machinery::quantity::Format::DecimalSi))
}

/// The whole percent of a node that an amount is.
fn share(amount: &Quantity, of: &Quantity, name: &str) -> i64 {
    let measure = |quantity: &Quantity| if name == "cpu" { quantity.milli_value() } else { quantity.value() };
    match measure(of) {
        0 => 0,
        // Truncated, as a share of a node need not be exact.
        whole => (measure(amount) as f64 / whole as f64 * 100.0) as i64,
    }
}

fn pods(page: &mut Page, node: &Value, facts: &Facts) {
    let status = &node["status"];
    let field = if sorted(&status["allocatable"]).is_empty() { "capacity" } else { "allocatable" };
    let room = read(status.get(field));
    put!(page, 0, "Non-terminated Pods:\t({} in total)", facts.pods.len());
    put!(page, 1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    put!(page, 1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let (mut requested, mut limited) = (Amounts::new(), Amounts::new());
    for pod in &facts.pods {
        let (requests, limits) = match pod["spec"].as_object() {
            Some(spec) => (pod_total(spec, "requests"), pod_total(spec, "limits")),
            None => Default::default(),
        };
        let cell = |amounts: &Amounts, name: &str| {
            let amount = amount(amounts, name);
            format!("{amount} ({}%)", share(&amount, &self::amount(&room, name), name))
        };
        let age = page.clock.since(text(&pod["metadata"]["creationTimestamp"]));
        put!(
            page,
            1,
            "{}\t{}\t\t{}\t{}\t{}\t{}\t{age}",
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
            cell(&requests, "cpu"),
            cell(&limits, "cpu"),
            cell(&requests, "memory"),
            cell(&limits, "memory"),
        );
        add(&mut requested, requests);
        add(&mut limited, limits);
    }
    allocated(page, &requested, &limited, &room);
}

fn add(to: &mut Amounts, amounts: Amounts) {
    for (name, amount) in amounts {
        let sum = to.get(&name).map_or(amount, |have| *have + amount);
        to.insert(name, sum);
    }
}

fn allocated(page: &mut Page, requested: &Amounts, limited: &Amounts, room: &Amounts) {
    put!(page, 0, "Allocated resources:");
    put!(page, 1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    put!(page, 1, "Resource\tRequests\tLimits");
    put!(page, 1, "--------\t--------\t------");
    let huge = room.keys().map(String::as_str).filter(|name| name.starts_with("hugepages-"));
    for name in SHARED.into_iter().chain(huge) {
        let (requests, limits, of) = (amount(requested, name), amount(limited, name), amount(room, name));
        let (r, l) = (share(&requests, &of, name), share(&limits, &of, name));
        put!(page, 1, "{name}\t{requests} ({r}%)\t{limits} ({l}%)");
    }
    let extended = room
        .keys()
        .map(String::as_str)
        .filter(|name| !SHARED.contains(name) && *name != "pods" && !name.starts_with("hugepages-"));
    for name in extended {
        put!(page, 1, "{name}\t{}\t{}", amount(requested, name), amount(limited, name));
    }
}
