//! Test harness: processes, clusters, namespaces, waiting.
