use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::suite::Subject;

fn small() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 64 << 10, reserve_bytes: 1 << 20, ..EmbeddedOptions::default() }
}

async fn open(directory: &TempDir) -> EmbeddedStore {
    EmbeddedStore::open(directory.path(), small()).await.expect("open")
}

async fn subject(name: &str) -> (Subject, TempDir) {
    let directory = TempDir::new().expect("directory");
    let store = Arc::new(open(&directory).await);
    (Subject::new(store, format!("/registry/{name}/")), directory)
}

mod suite {
    crate::store_suite!(super::subject);
}

mod crash;
mod durability;
mod full;
