//! Shared arithmetic of the API: pod requests, QoS, taints, affinity, owners, conditions, hashes.
