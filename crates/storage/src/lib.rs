//! Versioned store contract, embedded and etcd backends, watch cache, shared test suite.
