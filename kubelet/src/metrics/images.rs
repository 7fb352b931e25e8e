//! Series about images and those who give credentials for them.

use prometheus::{Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Builder;

const PULL: [f64; 14] = [1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 180.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0];
const MEGABYTE: u64 = 1 << 20;
const GIGABYTE: u64 = 1 << 30;
/// Sizes from which on an image has a label.
const SIZES: [(u64, &str); 12] = [
    (0, "0-10MB"),
    (10 * MEGABYTE, "10MB-100MB"),
    (100 * MEGABYTE, "100MB-500MB"),
    (500 * MEGABYTE, "500MB-1GB"),
    (GIGABYTE, "1GB-5GB"),
    (5 * GIGABYTE, "5GB-10GB"),
    (10 * GIGABYTE, "10GB-20GB"),
    (20 * GIGABYTE, "20GB-30GB"),
    (30 * GIGABYTE, "30GB-40GB"),
    (40 * GIGABYTE, "40GB-60GB"),
    (60 * GIGABYTE, "60GB-100GB"),
    (100 * GIGABYTE, "GT100GB"),
];

/// The label of an image's size.
pub fn size_label(bytes: u64) -> &'static str {
    match bytes {
        0 => "N/A",
        _ => SIZES.iter().rev().find(|(from, _)| bytes > *from).map_or("N/A", |(_, label)| label),
    }
}

/// The series.
pub struct ImageSeries {
    /// `kubelet_image_pull_duration_seconds`
    pub pull: HistogramVec,
    /// `kubelet_image_manager_ensure_image_requests_total`
    pub requests: IntCounterVec,
    /// `kubelet_imagemanager_image_mustpull_checks_total`
    pub checks: IntCounterVec,
    /// `kubelet_imagemanager_ondisk_pullintents`
    pub intents: IntGauge,
    /// `kubelet_imagemanager_ondisk_pulledrecords`
    pub records: IntGauge,
    /// `kubelet_imagemanager_inmemory_*_usage_percent`: of pull intents and records. Both are read from files each
    /// time, so nothing of the memory set apart for them is ever used.
    pub in_memory: [Gauge; 2],
    /// `kubelet_image_volume_requested_total`
    pub volumes_requested: IntCounter,
    /// `kubelet_image_volume_mounted_succeed_total`
    pub volumes_mounted: IntCounter,
    /// `kubelet_image_volume_mounted_errors_total`
    pub volume_errors: IntCounter,
    /// `kubelet_credential_provider_plugin_duration`
    pub provider_duration: HistogramVec,
    /// `kubelet_credential_provider_plugin_errors_total`
    pub provider_errors: IntCounterVec,
    /// `kubelet_credential_provider_config_info`
    pub provider_config: IntGaugeVec,
}

impl ImageSeries {
    pub(super) fn new(make: &Builder) -> Self {
        Self {
            pull: make.histograms(
                "kubelet_image_pull_duration_seconds",
                "Duration in seconds to pull an image.",
                &["image_size_in_bytes"],
                &PULL,
            ),
            requests: make.counters(
                "kubelet_image_manager_ensure_image_requests_total",
                "Number of ensure-image requests processed by the kubelet.",
                &["present_locally", "pull_policy", "pull_required"],
            ),
            checks: make.counters(
                "kubelet_imagemanager_image_mustpull_checks_total",
                "Counter for how many times kubelet checked whether credentials need to be re-verified to access an image",
                &["result"],
            ),
            intents: make
                .int_gauge("kubelet_imagemanager_ondisk_pullintents", "Number of ImagePullIntents stored on disk."),
            records: make
                .int_gauge("kubelet_imagemanager_ondisk_pulledrecords", "Number of ImagePulledRecords stored on disk."),
            in_memory: [("pullintents", "ImagePullIntents"), ("pulledrecords", "ImagePulledRecords")].map(
                |(name, kind)| {
                    make.gauge(
                        &format!("kubelet_imagemanager_inmemory_{name}_usage_percent"),
                        &format!("The {kind} in-memory cache usage in percent."),
                    )
                },
            ),
            volumes_requested: make
                .beta_counter("kubelet_image_volume_requested_total", "Number of requested image volumes."),
            volumes_mounted: make
                .beta_counter("kubelet_image_volume_mounted_succeed_total", "Number of successful image volume mounts."),
            volume_errors: make
                .beta_counter("kubelet_image_volume_mounted_errors_total", "Number of failed image volume mounts."),
            provider_duration: make.histograms(
                "kubelet_credential_provider_plugin_duration",
                "Duration of execution in seconds for credential provider plugin",
                &["plugin_name"],
                prometheus::DEFAULT_BUCKETS,
            ),
            provider_errors: make.counters(
                "kubelet_credential_provider_plugin_errors_total",
                "Number of errors from credential provider plugin",
                &["plugin_name"],
            ),
            provider_config: make.int_gauges(
                "kubelet_credential_provider_config_info",
                "Information about the last applied credential provider configuration with hash as label",
                &["hash"],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_labels() {
        for (bytes, label) in [
            (0, "N/A"),
            (1, "0-10MB"),
            (10 * MEGABYTE, "0-10MB"),
            (10 * MEGABYTE + 1, "10MB-100MB"),
            (3 * GIGABYTE, "1GB-5GB"),
            (200 * GIGABYTE, "GT100GB"),
        ] {
            assert_eq!(size_label(bytes), label, "{bytes}");
        }
    }
}
