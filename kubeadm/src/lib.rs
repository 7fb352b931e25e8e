//! kubeadm: makes and joins clusters.
