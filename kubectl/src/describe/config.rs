//! Secrets, ConfigMaps, Namespaces, quotas, limits and ServiceAccounts.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    Facts,
    events::{self, conditions, lines},
    page::{Page, put},
    read::{list, quantity, scalar, sorted, text, texts},
};

const LIMIT_HEADS: &str = "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio";
const LIMIT_DASHES: &str = "----\t--------\t---\t---\t---------------\t-------------\t-----------------------";

fn names(page: &mut Page, object: &Value) {
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&object["metadata"]["namespace"]));
}

/// A Secret: sizes, not values.
pub(crate) fn secret(page: &mut Page, secret: &Value) {
    names(page, secret);
    events::metadata(page, secret);
    let kind = text(&secret["type"]);
    put!(page, 0, "\nType:\t{kind}\n\nData\n====");
    for (key, value) in sorted(&secret["data"]) {
        let bytes = STANDARD.decode(text(value)).unwrap_or_default();
        match key == "token" && kind == "kubernetes.io/service-account-token" {
            true => put!(page, 0, "{key}:\t{}", String::from_utf8_lossy(&bytes)),
            false => put!(page, 0, "{key}:\t{} bytes", bytes.len()),
        }
    }
}

/// A ConfigMap.
pub(crate) fn config_map(page: &mut Page, map: &Value, facts: &Facts) {
    names(page, map);
    events::metadata(page, map);
    put!(page, 0, "\nData\n====");
    for (key, value) in sorted(&map["data"]) {
        put!(page, 0, "{key}:\n----\n{}\n", text(value));
    }
    put!(page, 0, "\nBinaryData\n====");
    for (key, value) in sorted(&map["binaryData"]) {
        put!(page, 0, "{key}: {} bytes", STANDARD.decode(text(value)).unwrap_or_default().len());
    }
    put!(page, 0, "");
    events::events(page, facts.events());
}

/// A Namespace with its quotas and limits.
pub(crate) fn namespace(page: &mut Page, namespace: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&namespace["metadata"]["name"]));
    events::metadata(page, namespace);
    put!(page, 0, "Status:\t{}", text(&namespace["status"]["phase"]));
    let columns = [
        ("Type", "type"),
        ("Status", "status"),
        ("LastTransitionTime", "lastTransitionTime"),
        ("Reason", "reason"),
        ("Message", "message"),
    ];
    conditions(page, "Conditions", &columns, &namespace["status"]["conditions"], false);
    if facts.quotas.is_empty() {
        put!(page, 0, "\nNo resource quota.");
    } else {
        put!(page, 0, "\nResource Quotas");
    }
    for quota in &facts.quotas {
        put!(page, 1, "Name:\t{}", text(&quota["metadata"]["name"]));
        scopes(page, "  ", "  ", quota);
        put!(page, 1, "Resource\tUsed\tHard");
        put!(page, 1, "--------\t---\t---");
        usage(page, 1, quota);
    }
    if facts.limits.is_empty() {
        put!(page, 0, "\nNo LimitRange resource.");
        return;
    }
    put!(page, 0, "\nResource Limits");
    page.raw(" ", format_args!("{LIMIT_HEADS}"));
    page.raw(" ", format_args!("{LIMIT_DASHES}"));
    for range in &facts.limits {
        limits(page, " ", range);
    }
}

fn scopes(page: &mut Page, indent: &str, help_indent: &str, quota: &Value) {
    let mut scopes = texts(&quota["spec"]["scopes"]);
    if scopes.is_empty() {
        return;
    }
    scopes.sort_unstable();
    page.raw(indent, format_args!("Scopes:\t{}", scopes.join(", ")));
    for help in scopes.iter().filter_map(|scope| scope_help(scope)) {
        page.raw(help_indent, format_args!("* {help}"));
    }
}

fn scope_help(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "Terminating" => {
            "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being \
             actively terminated by the system."
        }
        "NotTerminating" => {
            "Matches all pods that do not have an active deadline. These pods usually include long running pods whose \
             container command is not expected to terminate."
        }
        "BestEffort" => {
            "Matches all pods that do not have resource requirements set. These pods have a best effort quality of \
             service."
        }
        "NotBestEffort" => {
            "Matches all pods that have at least one resource requirement set. These pods have a burstable or \
             guaranteed quality of service."
        }
        _ => return None,
    })
}

fn usage(page: &mut Page, level: usize, quota: &Value) {
    for (name, hard) in sorted(&quota["status"]["hard"]) {
        put!(page, level, "{name}\t{}\t{}", quantity(&quota["status"]["used"][name]), quantity(hard));
    }
}

/// A ResourceQuota.
pub(crate) fn quota(page: &mut Page, quota: &Value) {
    names(page, quota);
    scopes(page, "", " ", quota);
    put!(page, 0, "Resource\tUsed\tHard");
    put!(page, 0, "--------\t----\t----");
    usage(page, 0, quota);
}

/// A LimitRange.
pub(crate) fn limit_range(page: &mut Page, range: &Value) {
    names(page, range);
    put!(page, 0, "{LIMIT_HEADS}");
    put!(page, 0, "{LIMIT_DASHES}");
    limits(page, "", range);
}

fn limits(page: &mut Page, indent: &str, range: &Value) {
    let fields = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for item in list(&range["spec"]["limits"]) {
        let mut resources: Vec<&str> = fields.iter().flat_map(|field| sorted(&item[*field]).into_keys()).collect();
        resources.sort_unstable();
        resources.dedup();
        for resource in resources {
            let cells: Vec<String> = fields
                .iter()
                .map(|field| match &item[*field][resource] {
                    Value::Null => "-".to_owned(),
                    amount => quantity(amount),
                })
                .collect();
            page.raw(indent, format_args!("{}\t{resource}\t{}", text(&item["type"]), cells.join("\t")));
        }
    }
}

/// A ServiceAccount.
pub(crate) fn service_account(page: &mut Page, account: &Value, facts: &Facts) {
    names(page, account);
    events::metadata(page, account);
    let secrets: Vec<String> =
        list(&account["imagePullSecrets"]).iter().map(|secret| text(&secret["name"]).to_owned()).collect();
    lines(page, 0, "Image pull secrets", &secrets);
    events::events(page, facts.events());
}

/// A PriorityClass.
pub(crate) fn priority_class(page: &mut Page, class: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&class["metadata"]["name"]));
    put!(page, 0, "Value:\t{}", scalar(&class["value"]));
    put!(page, 0, "GlobalDefault:\t{}", class["globalDefault"].as_bool().unwrap_or(false));
    put!(page, 0, "PreemptionPolicy:\t{}", text(&class["preemptionPolicy"]));
    put!(page, 0, "Description:\t{}", text(&class["description"]));
    put!(page, 0, "Annotations:\t{}", super::read::label_text(&class["metadata"]["annotations"]));
    events::events(page, facts.events());
}
