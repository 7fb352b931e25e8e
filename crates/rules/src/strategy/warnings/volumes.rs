//! Volumes of kinds that are gone, and files that hide each other.

use serde_json::Value;

use super::{Warnings, is_set, list, text};

/// What to say about volumes of a deprecated kind.
const KINDS: [(&str, &str); 9] = [
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Warns about the sources of a volume or PersistentVolume.
pub(super) fn source(volume: &Value, path: &str, warnings: &mut Warnings) {
    for (kind, told) in KINDS {
        if is_set(volume, kind) {
            let name = if kind == "storageos" { "storageOS" } else { kind };
            warnings.add(format!("{path}.{name}: {told}"));
        }
    }
}

/// Warns about files of one volume that hide each other.
pub(super) fn files(volume: &Value, warnings: &mut Warnings) {
    let name = text(volume, "name");
    let items = |source: &Value| -> Vec<(String, String)> {
        list(source, "items").iter().map(|item| (text(item, "path").to_owned(), String::new())).collect()
    };
    for (kind, word, field) in
        [("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name"), ("downwardAPI", "DownwardAPI", "")]
    {
        let Some(source) = volume.get(kind).filter(|source| source.is_object()) else { continue };
        let about = if field.is_empty() { word.to_owned() } else { format!("{word} \"{}\"", text(source, field)) };
        overlaps(name, &about, items(source), warnings);
    }
    let Some(projected) = volume.get("projected").filter(|source| source.is_object()) else { return };
    let sources = list(projected, "sources");
    if sources.is_empty() {
        warnings.add(format!("volume \"{name}\" (Projected) has no sources provided"));
        return;
    }
    overlaps(name, "Projected", sources.iter().flat_map(projected_files).collect(), warnings);
}

fn projected_files(source: &Value) -> Vec<(String, String)> {
    let named = |word: &str, of: &Value| format!(" ({word} \"{}\")", text(of, "name"));
    let mut found = Vec::new();
    for (kind, word) in [("secret", "Secret"), ("configMap", "ConfigMap"), ("downwardAPI", "DownwardAPI")] {
        let Some(of) = source.get(kind).filter(|of| of.is_object()) else { continue };
        let about = if kind == "downwardAPI" { " (DownwardAPI)".to_owned() } else { named(word, of) };
        found.extend(list(of, "items").iter().map(|item| (text(item, "path").to_owned(), about.clone())));
    }
    if let Some(token) = source.get("serviceAccountToken").filter(|of| of.is_object()) {
        found.push((text(token, "path").to_owned(), " (ServiceAccountToken)".to_owned()));
    }
    found
}

fn overlaps(volume: &str, about: &str, files: Vec<(String, String)>, warnings: &mut Warnings) {
    let inside = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    let mut told = Vec::new();
    for (at, (path, of)) in files.iter().enumerate() {
        let earlier = files.iter().take(at).find(|(other, _)| inside(path, other) || inside(other, path));
        if let Some((other, other_of)) = earlier {
            told.push(format!("\"{path}\"{of} with \"{other}\"{other_of}"));
        }
    }
    if !told.is_empty() {
        warnings.add(format!("volume \"{volume}\" ({about}): overlapping paths: {}", told.join(", ")));
    }
}
