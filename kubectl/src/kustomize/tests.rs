use std::path::Path;

use super::build;

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn built(files: &[(&str, &str)]) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    let objects = build(directory.path().join("top").to_str().unwrap()).map_err(|e| e.to_string())?.objects;
    Ok(objects.iter().map(crate::print::yaml::encode).collect::<Vec<_>>().join("---\n"))
}

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'r:5000/a:1'}]}}";

#[test]
fn hashes_are_those_of_kustomize() {
    let file = "namePrefix: p-\nconfigMapGenerator: [{name: c, literals: [a=1]}, {name: e}]\n\
                secretGenerator: [{name: s, literals: [a=1]}]\n";
    let text = built(&[("top/kustomization.yaml", file)]).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  name: ")).collect();
    assert_eq!(names, HASHED);
}

/// As kubectl 1.36 prints them.
const HASHED: [&str; 3] = ["p-c-h29d89cmmt", "p-e-6ct58987ht", "p-s-25khgmg44c"];

#[test]
fn images_keep_their_registry_and_port() {
    let file = "resources: [pod.yaml]\nimages: [{name: 'r:5000/a', newTag: '2'}, {name: a, newTag: '3'}]\n";
    let text = built(&[("top/kustomization.yaml", file), ("top/pod.yaml", POD)]).unwrap();
    assert!(text.contains("image: r:5000/a:2\n"), "{text}");
}

#[test]
fn files_outside_are_refused() {
    let file = "configMapGenerator: [{name: c, files: [../secret]}]\n";
    let error = built(&[("top/kustomization.yaml", file), ("secret", "x")]).unwrap_err();
    assert!(error.contains("security; file '") && error.contains("is not in or below"), "{error}");
}

#[test]
fn circles_are_found() {
    let error = built(&[
        ("top/kustomization.yaml", "resources: [../other]\n"),
        ("other/kustomization.yaml", "resources: [../top]\n"),
    ])
    .unwrap_err();
    assert!(error.contains("cycle detected"), "{error}");
}

#[test]
fn unknown_fields_are_refused() {
    let error = built(&[("top/kustomization.yaml", "helmCharts: []\n")]).unwrap_err();
    assert_eq!(error, "invalid Kustomization: json: unknown field \"helmCharts\"");
}
