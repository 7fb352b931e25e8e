//! kube-controller-manager: the built-in control loops.
