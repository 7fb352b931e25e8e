//! kube-scheduler: places Pods on Nodes.
