//! Layers: directories with a kustomization file, from the innermost outwards.

use std::path::{Component, Path, PathBuf};

use super::{KustomizeError, file::Kustomization, generate, item::Item, transform};

/// Layers below each other; a circle is found before.
const DEEPEST: usize = 64;
/// A file that is longer is refused.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Content of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, KustomizeError> {
    let fail = |e: std::io::Error| {
        KustomizeError::plain(format!(
            "evalsymlink failure on '{0}' : lstat {0}: {1}",
            path.display(),
            crate::kubeconfig::files::go_io_text(&e)
        ))
    };
    if std::fs::metadata(path).map_err(fail)?.len() > LARGEST {
        return Err(KustomizeError::plain(format!("'{}' is too large", path.display())));
    }
    std::fs::read(path).map_err(fail)
}

/// A directory that is built.
#[derive(Clone, Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// Whether files of other directories may be named.
    anywhere: bool,
}

impl std::ops::Deref for Root {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// The real path of a directory that is to be built.
pub(super) fn directory(path: &Path, shown: &str, anywhere: bool) -> Result<Root, KustomizeError> {
    let full = absolute(path)?;
    match full.canonicalize() {
        Ok(path) if path.is_dir() => Ok(Root { path, anywhere }),
        Ok(real) => {
            Err(KustomizeError::plain(format!("must build at directory: '{}': file is not directory", real.display())))
        }
        Err(error) => Err(KustomizeError::plain(format!(
            "must build at directory: not a valid directory: evalsymlink failure on '{shown}' : lstat {}: {}",
            full.display(),
            crate::kubeconfig::files::go_io_text(&error)
        ))),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, KustomizeError> {
    let full = std::path::absolute(path).map_err(|e| KustomizeError::plain(e.to_string()))?;
    let mut clean = PathBuf::new();
    for part in full.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

/// A file that a kustomization names. Only what is inside of its directory is read, unless it was said otherwise.
pub(super) fn inside(root: &Root, name: &str) -> Result<Vec<u8>, KustomizeError> {
    let full = absolute(&root.join(name))?;
    let real = full.canonicalize().map_err(|error| {
        KustomizeError::plain(format!(
            "evalsymlink failure on '{0}' : lstat {0}: {1}",
            full.display(),
            crate::kubeconfig::files::go_io_text(&error)
        ))
    })?;
    if !root.anywhere && !real.starts_with(&root.path) {
        return Err(KustomizeError::plain(format!(
            "security; file '{}' is not in or below '{}'",
            real.display(),
            root.display()
        )));
    }
    read(&real)
}

/// Objects of a directory and all that it names, with everything of its file done to them.
pub(super) fn layer(
    root: &Root,
    above: &mut Vec<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Item>, Kustomization), KustomizeError> {
    let mut items = Vec::new();
    let file = onto(root, &mut items, above, warnings)?;
    Ok((items, file))
}

/// The same onto objects that are there: what a component is.
fn onto(
    root: &Root,
    items: &mut Vec<Item>,
    above: &mut Vec<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<Kustomization, KustomizeError> {
    if above.contains(&root.to_path_buf()) || above.len() >= DEEPEST {
        return Err(KustomizeError::plain(format!(
            "cycle detected: candidate root '{}' contains visited root '{0}'",
            root.display()
        )));
    }
    let file = Kustomization::read(root)?;
    warn(&file, warnings);
    above.push(root.to_path_buf());
    for name in file.resources.iter().chain(&file.bases) {
        for item in resource(root, name, above, warnings)? {
            add(items, item).map_err(|e| {
                KustomizeError::plain(format!(
                    "accumulating resources: accumulation err='accumulating resources from '{name}': '{}' must resolve to a \
                     file': recursed merging from path '{0}': {e}",
                    absolute(&root.join(name)).unwrap_or_default().display()
                ))
            })?;
        }
    }
    generate::run(&file, root, items)?;
    for name in &file.components {
        let below = directory(&root.join(name), name, root.anywhere)
            .map_err(|e| KustomizeError::plain(format!("accumulating components: accumulateDirectory: \"{e}\"")))?;
        onto(&below, items, above, warnings)?;
    }
    transform::run(&file, root, items)?;
    above.pop();
    Ok(file)
}

/// Adds an object of a name that is not taken.
pub(super) fn add(items: &mut Vec<Item>, item: Item) -> Result<(), KustomizeError> {
    if items.iter().any(|other| other.is(&item)) {
        return Err(KustomizeError::plain(format!(
            "may not add resource with an already registered id: {}",
            item.id()
        )));
    }
    items.push(item);
    Ok(())
}

/// A file with objects, or another layer.
fn resource(
    root: &Root,
    name: &str,
    above: &mut Vec<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Item>, KustomizeError> {
    let full = absolute(&root.join(name))?;
    if full.is_dir() {
        return Ok(layer(&directory(&full, name, root.anywhere)?, above, warnings)?.0);
    }
    let text = inside(root, name).map_err(|e| {
        KustomizeError::plain(format!(
            "accumulating resources: accumulation err='accumulating resources from '{name}': {e}': must build at directory: \
             not a valid directory: {e}"
        ))
    })?;
    let documents = crate::resolve::files::documents(&text, name).map_err(|e| KustomizeError::plain(e.to_string()))?;
    let mut found = Vec::new();
    for object in documents {
        flatten(object, &mut found);
    }
    Ok(found)
}

fn flatten(object: serde_json::Value, found: &mut Vec<Item>) {
    let is_list = object.get("kind").and_then(|kind| kind.as_str()).is_some_and(|kind| kind.ends_with("List"));
    match object.get("items").and_then(|items| items.as_array()) {
        Some(items) if is_list => items.iter().for_each(|item| flatten(item.clone(), found)),
        _ => found.push(Item::new(object)),
    }
}

fn warn(file: &Kustomization, warnings: &mut Vec<String>) {
    let fields = [
        (!file.bases.is_empty(), "bases", "resources"),
        (!file.common_labels.is_empty(), "commonLabels", "labels"),
        (!file.patches_json.is_empty(), "patchesJson6902", "patches"),
        (!file.patches_strategic_merge.is_empty(), "patchesStrategicMerge", "patches"),
    ];
    for (_, old, new) in fields.iter().filter(|(used, _, _)| *used) {
        let text = format!(
            "# Warning: '{old}' is deprecated. Please use '{new}' instead. Run 'kustomize edit fix' to update your \
             Kustomization automatically."
        );
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
}
