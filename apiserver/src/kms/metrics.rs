//! What is told of key management services and their keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use runtime::metrics::{Stability, counter_vec, exponential_buckets, float_gauge_vec, gauge_vec, histogram_vec};
use sha2::{Digest, Sha256};

/// `apiserver_envelope_encryption_*`.
#[derive(Clone, Debug)]
pub(crate) struct KmsMetrics {
    seconds: HistogramVec,
    uses: IntCounterVec,
    last_use: GaugeVec,
    last_status: GaugeVec,
    invalid: IntCounterVec,
    seeds: IntGaugeVec,
    /// The server.
    id: String,
}

fn hash(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes()))) }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl KmsMetrics {
    /// Registers the metrics; `id` names the server.
    pub(crate) fn register(registry: &Registry, id: &str) -> Result<Self, prometheus::Error> {
        use Stability::Alpha;
        let name = |name: &str| format!("apiserver_envelope_encryption_{name}");
        let of_key = ["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];
        Ok(Self {
            seconds: histogram_vec(
                registry,
                Alpha,
                &name("kms_operations_latency_seconds"),
                "KMS operation duration with gRPC error code status total.",
                &["provider_name", "method_name", "grpc_status_code"],
                &exponential_buckets(0.0001, 2.0, 20),
            )?,
            uses: counter_vec(
                registry,
                Alpha,
                &name("key_id_hash_total"),
                "Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
                &of_key,
            )?,
            last_use: float_gauge_vec(
                registry,
                Alpha,
                &name("key_id_hash_last_timestamp_seconds"),
                "The last time in seconds when a keyID was used.",
                &of_key,
            )?,
            last_status: float_gauge_vec(
                registry,
                Alpha,
                &name("key_id_hash_status_last_timestamp_seconds"),
                "The last time in seconds when a keyID was returned by the Status RPC call.",
                &of_key[1..],
            )?,
            invalid: counter_vec(
                registry,
                Alpha,
                &name("invalid_key_id_from_status_total"),
                "Number of times an invalid keyID is returned by the Status RPC call split by error.",
                &["provider_name", "error"],
            )?,
            seeds: gauge_vec(
                registry,
                Alpha,
                &name("dek_source_cache_size"),
                "Number of records in data encryption key (DEK) source cache. On a restart, this value is an \
                 approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
                &["provider_name"],
            )?,
            id: hash(id),
        })
    }

    /// A call of a plugin has ended.
    pub(super) fn called(&self, provider: &str, method: &str, code: &str, took: Duration) {
        let method = format!("/v2.KeyManagementService/{method}");
        self.seconds.with_label_values(&[provider, method.as_str(), code]).observe(took.as_secs_f64());
    }

    /// A value was sealed with a key, or opened.
    pub(super) fn used(&self, provider: &str, key: &str, sealed: bool) {
        let (kind, key) = (if sealed { "to_storage" } else { "from_storage" }, hash(key));
        let labels = [kind, provider, key.as_str(), self.id.as_str()];
        self.uses.with_label_values(&labels).inc();
        self.last_use.with_label_values(&labels).set(now());
    }

    /// A plugin says that this is its key.
    pub(super) fn told(&self, provider: &str, key: &str) {
        self.last_status.with_label_values(&[provider, hash(key).as_str(), self.id.as_str()]).set(now());
    }

    /// A plugin says something that is no key.
    pub(super) fn told_wrongly(&self, provider: &str, error: &str) {
        self.invalid.with_label_values(&[provider, error]).inc();
    }

    /// So many seeds are known.
    pub(super) fn knows(&self, provider: &str, seeds: usize) {
        self.seeds.with_label_values(&[provider]).set(i64::try_from(seeds).unwrap_or(i64::MAX));
    }
}
