//! Volumes of Pods and sources of PersistentVolumes.

use serde_json::Value;

use super::{
    claim,
    page::{Page, put},
    read::{flag, list, number, or, quantity, scalar, sorted, text, texts},
};

/// How a field of a volume is shown.
#[derive(Clone, Copy)]
enum Show {
    /// A string.
    Text(&'static str),
    /// A string, or another text when absent.
    TextOr(&'static str, &'static str),
    /// A whole number.
    Number(&'static str),
    /// A flag.
    Flag(&'static str),
    /// Strings in brackets.
    Texts(&'static str),
    /// The name of a Secret, or `nil`.
    Secret,
}

use Show::{Flag, Number, Secret, Text, TextOr, Texts};

type Row = (&'static str, Show);
type ShowSource = fn(&mut Page, &Value);

/// Volume sources that are a list of fields: field, type text, rows.
const PLAIN: &[(&str, &str, &[Row])] = &[
    (
        "nfs",
        "NFS (an NFS mount that lasts the lifetime of a pod)",
        &[("Server:", Text("server")), ("Path:", Text("path")), ("ReadOnly:", Flag("readOnly"))],
    ),
    (
        "hostPath",
        "HostPath (bare host directory volume)",
        &[("Path:", Text("path")), ("HostPathType:", TextOr("type", "<none>"))],
    ),
    (
        "gitRepo",
        "GitRepo (a volume that is pulled from git when the pod is created)",
        &[("Repository:", Text("repository")), ("Revision:", Text("revision"))],
    ),
    (
        "awsElasticBlockStore",
        "AWSElasticBlockStore (a Persistent Disk resource in AWS)",
        &[
            ("VolumeID:", Text("volumeID")),
            ("FSType:", Text("fsType")),
            ("Partition:", Number("partition")),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "gcePersistentDisk",
        "GCEPersistentDisk (a Persistent Disk resource in Google Compute Engine)",
        &[
            ("PDName:", Text("pdName")),
            ("FSType:", Text("fsType")),
            ("Partition:", Number("partition")),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "iscsi",
        "ISCSI (an ISCSI Disk resource that is attached to a kubelet's host machine and then exposed to the pod)",
        &[
            ("TargetPortal:", Text("targetPortal")),
            ("IQN:", Text("iqn")),
            ("Lun:", Number("lun")),
            ("ISCSIInterface", Text("iscsiInterface")),
            ("FSType:", Text("fsType")),
            ("ReadOnly:", Flag("readOnly")),
            ("Portals:", Texts("portals")),
            ("DiscoveryCHAPAuth:", Flag("chapAuthDiscovery")),
            ("SessionCHAPAuth:", Flag("chapAuthSession")),
            ("SecretRef:", Secret),
            ("InitiatorName:", TextOr("initiatorName", "<none>")),
        ],
    ),
    (
        "glusterfs",
        "Glusterfs (a Glusterfs mount on the host that shares a pod's lifetime)",
        &[("EndpointsName:", Text("endpoints")), ("Path:", Text("path")), ("ReadOnly:", Flag("readOnly"))],
    ),
    (
        "rbd",
        "RBD (a Rados Block Device mount on the host that shares a pod's lifetime)",
        &[
            ("CephMonitors:", Texts("monitors")),
            ("RBDImage:", Text("image")),
            ("FSType:", Text("fsType")),
            ("RBDPool:", Text("pool")),
            ("RadosUser:", Text("user")),
            ("Keyring:", Text("keyring")),
            ("SecretRef:", Secret),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "quobyte",
        "Quobyte (a Quobyte mount on the host that shares a pod's lifetime)",
        &[("Registry:", Text("registry")), ("Volume:", Text("volume")), ("ReadOnly:", Flag("readOnly"))],
    ),
    (
        "azureDisk",
        "AzureDisk (an Azure Data Disk mount on the host and bind mount to the pod)",
        &[
            ("DiskName:", Text("diskName")),
            ("DiskURI:", Text("diskURI")),
            ("Kind: ", Text("kind")),
            ("FSType:", Text("fsType")),
            ("CachingMode:", Text("cachingMode")),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "vsphereVolume",
        "vSphereVolume (a Persistent Disk resource in vSphere)",
        &[
            ("VolumePath:", Text("volumePath")),
            ("FSType:", Text("fsType")),
            ("StoragePolicyName:", Text("storagePolicyName")),
        ],
    ),
    (
        "cinder",
        "Cinder (a Persistent Disk resource in OpenStack)",
        &[
            ("VolumeID:", Text("volumeID")),
            ("FSType:", Text("fsType")),
            ("ReadOnly:", Flag("readOnly")),
            ("SecretRef:", Secret),
        ],
    ),
    (
        "photonPersistentDisk",
        "PhotonPersistentDisk (a Persistent Disk resource in photon platform)",
        &[("PdID:", Text("pdID")), ("FSType:", Text("fsType"))],
    ),
    ("portworxVolume", "PortworxVolume (a Portworx Volume resource)", &[("VolumeID:", Text("volumeID"))]),
    (
        "scaleIO",
        "ScaleIO (a persistent volume backed by a block device in ScaleIO)",
        &[
            ("Gateway:", Text("gateway")),
            ("System:", Text("system")),
            ("Protection Domain:", Text("protectionDomain")),
            ("Storage Pool:", Text("storagePool")),
            ("Storage Mode:", Text("storageMode")),
            ("VolumeName:", Text("volumeName")),
            ("FSType:", Text("fsType")),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "cephfs",
        "CephFS (a CephFS mount on the host that shares a pod's lifetime)",
        &[
            ("Monitors:", Texts("monitors")),
            ("Path:", Text("path")),
            ("User:", Text("user")),
            ("SecretFile:", Text("secretFile")),
            ("SecretRef:", Secret),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "storageos",
        "StorageOS (a StorageOS Persistent Disk resource)",
        &[
            ("VolumeName:", Text("volumeName")),
            ("VolumeNamespace:", Text("volumeNamespace")),
            ("FSType:", Text("fsType")),
            ("ReadOnly:", Flag("readOnly")),
        ],
    ),
    (
        "azureFile",
        "AzureFile (an Azure File Service mount on the host and bind mount to the pod)",
        &[("SecretName:", Text("secretName")), ("ShareName:", Text("shareName")), ("ReadOnly:", Flag("readOnly"))],
    ),
    (
        "flocker",
        "Flocker (a Flocker volume mounted by the Flocker agent)",
        &[("DatasetName:", Text("datasetName")), ("DatasetUUID:", Text("datasetUUID"))],
    ),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        &[("ClaimName:", Text("claimName")), ("ReadOnly:", Flag("readOnly"))],
    ),
    (
        "image",
        "Image (a container image or OCI artifact)",
        &[("Reference:", Text("reference")), ("PullPolicy:", Text("pullPolicy"))],
    ),
    (
        "secret",
        "Secret (a volume populated by a Secret)",
        &[("SecretName:", Text("secretName")), ("Optional:", Flag("optional"))],
    ),
    (
        "configMap",
        "ConfigMap (a volume populated by a ConfigMap)",
        &[("Name:", Text("name")), ("Optional:", Flag("optional"))],
    ),
    ("local", "LocalVolume (a persistent volume backed by local storage on a node)", &[("Path:", Text("path"))]),
];

fn shown(source: &Value, show: Show) -> String {
    match show {
        Text(field) => text(&source[field]).to_owned(),
        TextOr(field, other) => source[field].as_str().unwrap_or(other).to_owned(),
        Number(field) => number(&source[field]).to_string(),
        Flag(field) => flag(&source[field]).to_string(),
        Texts(field) => format!("[{}]", texts(&source[field]).join(" ")),
        Secret => secret(&source["secretRef"]),
    }
}

fn secret(reference: &Value) -> String {
    if reference.is_null() {
        return "nil".into();
    }
    format!("&SecretReference{{Name:{},Namespace:{},}}", text(&reference["name"]), text(&reference["namespace"]))
}

/// The volumes of a Pod or of a template.
pub(crate) fn volumes(page: &mut Page, volumes: &Value, in_template: bool) {
    let (indent, name_indent) = if in_template { ("  ", "   ") } else { ("", "  ") };
    if list(volumes).is_empty() {
        page.raw(indent, format_args!("Volumes:\t<none>"));
        return;
    }
    page.raw(indent, format_args!("Volumes:"));
    for volume in list(volumes) {
        page.raw(name_indent, format_args!("{}:", text(&volume["name"])));
        source(page, volume);
    }
}

/// The source of a volume, fields at four blanks.
pub(crate) fn source(page: &mut Page, volume: &Value) {
    let plain = PLAIN.iter().find(|(field, ..)| volume.get(field).is_some_and(|v| !v.is_null()));
    if let Some((field, kind, rows)) = plain {
        put!(page, 2, "Type:\t{kind}");
        for (title, show) in *rows {
            put!(page, 2, "{title}\t{}", shown(&volume[*field], *show));
        }
        return;
    }
    let known: [(&str, ShowSource); 7] = [
        ("emptyDir", empty_dir),
        ("downwardAPI", downward),
        ("fc", fibre),
        ("projected", projected),
        ("flexVolume", flex),
        ("ephemeral", ephemeral),
        ("csi", csi),
    ];
    match known.iter().find(|(field, _)| !volume[*field].is_null()) {
        Some((field, show)) => show(page, &volume[*field]),
        None => put!(page, 1, "<unknown>"),
    }
}

fn empty_dir(page: &mut Page, source: &Value) {
    put!(page, 2, "Type:\tEmptyDir (a temporary directory that shares a pod's lifetime)");
    put!(page, 2, "Medium:\t{}", text(&source["medium"]));
    let limit = if source["sizeLimit"].is_null() { "<unset>".into() } else { quantity(&source["sizeLimit"]) };
    put!(page, 2, "SizeLimit:\t{limit}");
}

fn downward(page: &mut Page, source: &Value) {
    put!(page, 2, "Type:\tDownwardAPI (a volume populated by information about the pod)");
    put!(page, 2, "Items:");
    for item in list(&source["items"]) {
        for (reference, field) in [("fieldRef", "fieldPath"), ("resourceFieldRef", "resource")] {
            if !item[reference].is_null() {
                put!(page, 3, "{} -> {}", text(&item[reference][field]), text(&item["path"]));
            }
        }
    }
}

fn fibre(page: &mut Page, source: &Value) {
    put!(page, 2, "Type:\tFC (a Fibre Channel disk)");
    put!(page, 2, "TargetWWNs:\t{}", texts(&source["targetWWNs"]).join(", "));
    put!(page, 2, "LUN:\t{}", or(&scalar(&source["lun"]), "<none>"));
    put!(page, 2, "FSType:\t{}", text(&source["fsType"]));
    put!(page, 2, "ReadOnly:\t{}", flag(&source["readOnly"]));
}

fn projected(page: &mut Page, volume: &Value) {
    put!(page, 2, "Type:\tProjected (a volume that contains injected data from multiple sources)");
    for source in list(&volume["sources"]) {
        if !source["secret"].is_null() {
            put!(page, 2, "SecretName:\t{}", text(&source["secret"]["name"]));
            put!(page, 2, "Optional:\t{}", flag(&source["secret"]["optional"]));
        } else if !source["downwardAPI"].is_null() {
            put!(page, 2, "DownwardAPI:\ttrue");
        } else if !source["configMap"].is_null() {
            put!(page, 2, "ConfigMapName:\t{}", text(&source["configMap"]["name"]));
            put!(page, 2, "Optional:\t{}", flag(&source["configMap"]["optional"]));
        } else if !source["serviceAccountToken"].is_null() {
            let seconds = number(&source["serviceAccountToken"]["expirationSeconds"]);
            put!(page, 2, "TokenExpirationSeconds:\t{seconds}");
        }
    }
}

fn flex(page: &mut Page, source: &Value) {
    put!(
        page,
        2,
        "Type:\tFlexVolume (a generic volume resource that is provisioned/attached using an exec based plugin)"
    );
    put!(page, 2, "Driver:\t{}", text(&source["driver"]));
    put!(page, 2, "FSType:\t{}", text(&source["fsType"]));
    put!(page, 2, "SecretRef:\t{}", secret(&source["secretRef"]));
    put!(page, 2, "ReadOnly:\t{}", flag(&source["readOnly"]));
    put!(page, 2, "Options:\t{}", super::generic::go_value(&source["options"], "map[]"));
}

fn ephemeral(page: &mut Page, source: &Value) {
    put!(
        page,
        2,
        "Type:\tEphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)"
    );
    let template = &source["volumeClaimTemplate"];
    if !template.is_null() {
        claim::template(page, template);
    }
}

fn csi(page: &mut Page, source: &Value) {
    put!(page, 2, "Type:\tCSI (a Container Storage Interface (CSI) volume source)");
    put!(page, 2, "Driver:\t{}", text(&source["driver"]));
    put!(page, 2, "FSType:\t{}", text(&source["fsType"]));
    if !source["volumeHandle"].is_null() {
        put!(page, 2, "VolumeHandle:\t{}", text(&source["volumeHandle"]));
    }
    put!(page, 2, "ReadOnly:\t{}", flag(&source["readOnly"]));
    let attributes = sorted(&source["volumeAttributes"]);
    if attributes.is_empty() {
        put!(page, 2, "VolumeAttributes:\t<none>");
    }
    for (at, (key, value)) in attributes.into_iter().enumerate() {
        let title = if at == 0 { "VolumeAttributes:" } else { "" };
        put!(page, 2, "{title}\t    {key}={}", scalar(value));
    }
}
