//! kube-apiserver: the Kubernetes API over etcd or an embedded store.
