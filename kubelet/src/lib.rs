//! kubelet: runs Pods through the container runtime interface.
