//! `kubectl kustomize` and `-k`: builds what a directory with a kustomization file describes.
//!
//! [`load`] reads layers from the innermost outwards; each layer's [`generate`], components and [`transform`] (with
//! [`merge`] for patches and [`replace`]) work on all objects so far. At the end hashes go into names and [`references`] to
//! renamed objects follow; [`order`] sorts the output. Nothing is fetched but single files over http(s); plugins, Helm
//! charts and transformer configurations are refused by name, as any unknown field is.

mod file;
mod generate;
mod item;
mod load;
mod merge;
mod order;
mod paths;
mod references;
mod replace;
#[cfg(test)]
mod tests;
mod transform;

use std::path::Path;

use serde_json::Value;

/// Why a directory cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum KustomizeError {
    /// There is no kustomization file.
    #[error("unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{0}'")]
    Missing(String),
    /// There is more than one.
    #[error("Found multiple kustomization files: {0}")]
    Several(String),
    /// Anything else, in kustomize's words.
    #[error("{0}")]
    Plain(String),
}

impl KustomizeError {
    fn plain(text: impl Into<String>) -> Self {
        Self::Plain(text.into())
    }
}

/// What was built.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The objects in the order in which they are printed.
    pub objects: Vec<Value>,
    /// Fields that are used but deprecated.
    pub warnings: Vec<String>,
}

/// Builds a directory; files are read inside of it and of those that it names.
pub fn build(directory: &str) -> Result<Built, KustomizeError> {
    build_with(directory, false)
}

/// Builds a directory whose files may be `anywhere`.
pub fn build_with(directory: &str, anywhere: bool) -> Result<Built, KustomizeError> {
    let root = load::directory(Path::new(directory), directory, anywhere)?;
    let mut warnings = Vec::new();
    let (mut items, top) = load::layer(&root, &mut Vec::new(), &mut warnings)?;
    generate::add_hashes(&mut items);
    references::follow(&mut items);
    order::sort(&mut items, top.sort_options.as_ref());
    Ok(Built { objects: items.into_iter().map(|item| item.object).collect(), warnings })
}
