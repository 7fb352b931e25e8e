//! kube-proxy: forwards Service traffic.
