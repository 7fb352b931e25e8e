//! Cluster DNS addon: names of Services and Pods.
