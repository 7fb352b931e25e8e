//! PersistentVolumes, claims and what storage is made by.

use serde_json::Value;

use super::{
    Facts, events,
    page::{Page, put},
    read::{access_modes, flag, label_text, list, or, quantity, sorted, text, texts},
    volume,
};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn class(object: &Value) -> &str {
    let annotation = text(&object["metadata"]["annotations"][BETA_CLASS]);
    if annotation.is_empty() { text(&object["spec"]["storageClassName"]) } else { annotation }
}

fn phase(page: &Page, object: &Value) -> String {
    let deleted = text(&object["metadata"]["deletionTimestamp"]);
    match deleted.is_empty() {
        true => text(&object["status"]["phase"]).to_owned(),
        false => format!("Terminating (lasts {})", page.clock.since(deleted)),
    }
}

/// A PersistentVolume.
pub(crate) fn persistent_volume(page: &mut Page, volume: &Value, facts: &Facts) {
    let spec = &volume["spec"];
    put!(page, 0, "Name:\t{}", text(&volume["metadata"]["name"]));
    events::metadata(page, volume);
    put!(page, 0, "Finalizers:\t[{}]", texts(&volume["metadata"]["finalizers"]).join(" "));
    put!(page, 0, "StorageClass:\t{}", class(volume));
    let phase = phase(page, volume);
    put!(page, 0, "Status:\t{phase}");
    let claim = &spec["claimRef"];
    match claim.is_null() {
        true => put!(page, 0, "Claim:\t"),
        false => put!(page, 0, "Claim:\t{}/{}", text(&claim["namespace"]), text(&claim["name"])),
    }
    put!(page, 0, "Reclaim Policy:\t{}", text(&spec["persistentVolumeReclaimPolicy"]));
    put!(page, 0, "Access Modes:\t{}", access_modes(&spec["accessModes"]));
    if !spec["volumeMode"].is_null() {
        put!(page, 0, "VolumeMode:\t{}", text(&spec["volumeMode"]));
    }
    put!(page, 0, "Capacity:\t{}", quantity(&spec["capacity"]["storage"]));
    node_affinity(page, &spec["nodeAffinity"]);
    put!(page, 0, "Message:\t{}", text(&volume["status"]["message"]));
    put!(page, 0, "Source:");
    if spec["azureFile"].is_null() {
        volume::source(page, spec);
    } else {
        let file = &spec["azureFile"];
        put!(page, 2, "Type:\tAzureFile (an Azure File Service mount on the host and bind mount to the pod)");
        put!(page, 2, "SecretName:\t{}", text(&file["secretName"]));
        if !file["secretNamespace"].is_null() {
            put!(page, 2, "SecretNamespace:\t{}", text(&file["secretNamespace"]));
        }
        put!(page, 2, "ShareName:\t{}", text(&file["shareName"]));
        put!(page, 2, "ReadOnly:\t{}", flag(&file["readOnly"]));
    }
    events::events(page, facts.events());
}

fn node_affinity(page: &mut Page, affinity: &Value) {
    if affinity.is_null() {
        put!(page, 0, "Node Affinity:\t<none>");
        return;
    }
    put!(page, 0, "Node Affinity:\t");
    if affinity["required"].is_null() {
        put!(page, 1, "Required Terms:\t<none>");
        return;
    }
    let terms = list(&affinity["required"]["nodeSelectorTerms"]);
    put!(page, 1, "Required Terms:\t{}", if terms.is_empty() { "<none>" } else { "" });
    for (at, term) in terms.iter().enumerate() {
        let rows: Vec<String> = list(&term["matchExpressions"]).iter().map(requirement).collect();
        term_rows(page, 2, at, &rows);
    }
}

fn term_rows(page: &mut Page, level: usize, at: usize, rows: &[String]) {
    let Some((first, rest)) = rows.split_first() else {
        put!(page, level, "Term {at}:\t<none>");
        return;
    };
    put!(page, level, "Term {at}:\t{first}");
    for row in rest {
        put!(page, level, "\t{row}");
    }
}

fn requirement(expression: &Value) -> String {
    let head = format!("{} {}", text(&expression["key"]), text(&expression["operator"]).to_lowercase());
    match texts(&expression["values"]) {
        values if values.is_empty() => head,
        values => format!("{head} [{}]", values.join(", ")),
    }
}

/// A PersistentVolumeClaim.
pub(crate) fn claim(page: &mut Page, claim: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&claim["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&claim["metadata"]["namespace"]));
    put!(page, 0, "StorageClass:\t{}", class(claim));
    let phase = phase(page, claim);
    put!(page, 0, "Status:\t{phase}");
    let spec = &claim["spec"];
    put!(page, 0, "Volume:\t{}", text(&spec["volumeName"]));
    events::metadata(page, claim);
    put!(page, 0, "Finalizers:\t[{}]", texts(&claim["metadata"]["finalizers"]).join(" "));
    let bound = !text(&spec["volumeName"]).is_empty();
    let status = &claim["status"];
    let capacity = if bound { quantity(&status["capacity"]["storage"]) } else { String::new() };
    let modes = if bound { access_modes(&status["accessModes"]) } else { String::new() };
    put!(page, 0, "Capacity:\t{capacity}");
    put!(page, 0, "Access Modes:\t{modes}");
    if !spec["volumeMode"].is_null() {
        put!(page, 0, "VolumeMode:\t{}", text(&spec["volumeMode"]));
    }
    let source = &spec["dataSource"];
    if !source.is_null() {
        put!(page, 0, "DataSource:");
        if !source["apiGroup"].is_null() {
            put!(page, 1, "APIGroup:\t{}", text(&source["apiGroup"]));
        }
        put!(page, 1, "Kind:\t{}", text(&source["kind"]));
        put!(page, 1, "Name:\t{}", text(&source["name"]));
    }
    let users: Vec<String> = facts
        .pods
        .iter()
        .filter(|pod| uses(pod, text(&claim["metadata"]["name"])))
        .map(|pod| text(&pod["metadata"]["name"]).to_owned())
        .collect();
    events::lines(page, 0, "Used By", &users);
    let columns = [
        ("Type", "type"),
        ("Status", "status"),
        ("LastProbeTime", "lastProbeTime"),
        ("LastTransitionTime", "lastTransitionTime"),
        ("Reason", "reason"),
        ("Message", "message"),
    ];
    events::conditions(page, "Conditions", &columns, &status["conditions"], true);
    events::events(page, facts.events());
}

/// Whether a Pod mounts a claim, its own ephemeral ones included.
fn uses(pod: &Value, claim: &str) -> bool {
    list(&pod["spec"]["volumes"]).iter().any(|volume| {
        let made = format!("{}-{}", text(&pod["metadata"]["name"]), text(&volume["name"]));
        text(&volume["persistentVolumeClaim"]["claimName"]) == claim
            || (!volume["ephemeral"].is_null() && made == claim)
    })
}

/// The claim that an ephemeral volume is made by.
pub(crate) fn template(page: &mut Page, template: &Value) {
    let spec = &template["spec"];
    put!(page, 2, "StorageClass:\t{}", class(template));
    put!(page, 2, "Volume:\t{}", text(&spec["volumeName"]));
    for (title, field) in [("Labels", "labels"), ("Annotations", "annotations")] {
        let pairs = label_text(&template["metadata"][field]);
        for (at, pair) in pairs.split(',').enumerate() {
            put!(page, 2, "{}\t    {pair}", if at == 0 { format!("{title}:") } else { String::new() });
        }
    }
    put!(page, 2, "Capacity:\t");
    put!(page, 2, "Access Modes:\t");
    if !spec["volumeMode"].is_null() {
        put!(page, 2, "VolumeMode:\t{}", text(&spec["volumeMode"]));
    }
}

/// A StorageClass.
pub(crate) fn storage_class(page: &mut Page, class: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&class["metadata"]["name"]));
    let annotations = &class["metadata"]["annotations"];
    let default = [DEFAULT_CLASS, BETA_DEFAULT_CLASS].iter().any(|key| text(&annotations[*key]) == "true");
    put!(page, 0, "IsDefaultClass:\t{}", if default { "Yes" } else { "No" });
    put!(page, 0, "Annotations:\t{}", label_text(annotations));
    put!(page, 0, "Provisioner:\t{}", text(&class["provisioner"]));
    put!(page, 0, "Parameters:\t{}", label_text(&class["parameters"]));
    let expansion = class["allowVolumeExpansion"].as_bool();
    put!(page, 0, "AllowVolumeExpansion:\t{}", expansion.map_or("<unset>", super::read::title_bool));
    let options = texts(&class["mountOptions"]);
    put!(page, 0, "MountOptions:{}", if options.is_empty() { "\t<none>" } else { "" });
    for option in options {
        put!(page, 1, "{option}");
    }
    put!(page, 0, "ReclaimPolicy:\t{}", text(&class["reclaimPolicy"]));
    put!(page, 0, "VolumeBindingMode:\t{}", text(&class["volumeBindingMode"]));
    let topologies = list(&class["allowedTopologies"]);
    if !topologies.is_empty() {
        put!(page, 0, "AllowedTopologies:\t");
    }
    for (at, term) in topologies.iter().enumerate() {
        let rows: Vec<String> = list(&term["matchLabelExpressions"])
            .iter()
            .map(|expression| format!("{} in [{}]", text(&expression["key"]), texts(&expression["values"]).join(", ")))
            .collect();
        term_rows(page, 1, at, &rows);
    }
    events::events(page, facts.events());
}

/// A VolumeAttributesClass.
pub(crate) fn attributes_class(page: &mut Page, class: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&class["metadata"]["name"]));
    put!(page, 0, "Annotations:\t{}", label_text(&class["metadata"]["annotations"]));
    put!(page, 0, "DriverName:\t{}", text(&class["driverName"]));
    put!(page, 0, "Parameters:\t{}", label_text(&class["parameters"]));
    events::events(page, facts.events());
}

/// A CSINode.
pub(crate) fn csi_node(page: &mut Page, node: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&node["metadata"]["name"]));
    events::metadata(page, node);
    let created = page.clock.time(text(&node["metadata"]["creationTimestamp"]));
    put!(page, 0, "CreationTimestamp:\t{created}");
    put!(page, 0, "Spec:");
    let drivers = list(&node["spec"]["drivers"]);
    if !drivers.is_empty() {
        put!(page, 1, "Drivers:");
    }
    for driver in drivers {
        put!(page, 2, "{}:", text(&driver["name"]));
        put!(page, 3, "Node ID:\t{}", text(&driver["nodeID"]));
        if !driver["allocatable"]["count"].is_null() {
            put!(page, 3, "Allocatables:");
            put!(page, 4, "Count:\t{}", driver["allocatable"]["count"]);
        }
        put!(page, 3, "Topology Keys:\t[{}]", texts(&driver["topologyKeys"]).join(" "));
    }
    events::events(page, facts.events());
}

/// The claims that a StatefulSet makes.
pub(crate) fn claim_templates(page: &mut Page, templates: &Value) {
    if list(templates).is_empty() {
        put!(page, 0, "Volume Claims:\t<none>");
        return;
    }
    put!(page, 0, "Volume Claims:");
    for template in list(templates) {
        put!(page, 1, "Name:\t{}", text(&template["metadata"]["name"]));
        put!(page, 1, "StorageClass:\t{}", class(template));
        events::labels(page, 1, "Labels", &template["metadata"]["labels"]);
        let annotations: Vec<String> = sorted(&template["metadata"]["annotations"])
            .iter()
            .map(|(key, value)| format!("{key}={}", text(value)))
            .collect();
        events::lines(page, 1, "Annotations", &annotations);
        let storage = &template["spec"]["resources"]["requests"]["storage"];
        let capacity = if storage.is_null() { "<default>".to_owned() } else { quantity(storage) };
        put!(page, 1, "Capacity:\t{}", or(&capacity, "<default>"));
        put!(page, 1, "Access Modes:\t[{}]", texts(&template["spec"]["accessModes"]).join(" "));
    }
}
