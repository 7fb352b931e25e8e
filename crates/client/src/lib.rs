//! Thin layer over kube: kubeconfig and in-cluster set-up, discovery, dynamic access.
