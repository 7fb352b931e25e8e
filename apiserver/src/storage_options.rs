//! Flags of the store: where it is, in which form objects are in it, and what is kept of it in memory.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use generic::resource::{Keeping, StoredMedia};
use machinery::GroupResource;
use runtime::flags::duration;
use storage::cache::CacheMetrics;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Flags of the store.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Etcd flags")]
pub struct StorageOptions {
    /// etcd servers, comma-separated URLs. Without any the embedded store is used.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// etcd servers of single resources: group/resource#server;server, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers_overrides: Vec<String>,
    /// CA of the etcd servers.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Client key for etcd.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Key prefix of everything stored.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Kind of store that etcd servers are: etcd3.
    #[arg(long, default_value = "etcd3")]
    pub storage_backend: String,
    /// Form of objects in the store: application/vnd.kubernetes.protobuf (the default in etcd), application/json (the
    /// default in the embedded store), application/yaml. Objects that are there in another form are read all the same.
    #[arg(long)]
    pub storage_media_type: Option<String>,
    /// Time between compactions of etcd; 0 leaves them to others.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub etcd_compaction_interval: Duration,
    /// How often the metrics are told how many objects of each resource there are; 0 for never.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    pub etcd_count_metric_poll_period: Duration,
    /// How often the size of the store is asked for metrics; 0 for never.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub etcd_db_metric_poll_interval: Duration,
    /// Time that the store has to answer the health checks.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub etcd_healthcheck_timeout: Duration,
    /// Time that the store has to answer the check of readiness.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub etcd_readycheck_timeout: Duration,
    /// Time for which objects with a life share a lease of etcd, seconds.
    #[arg(long, default_value_t = 60)]
    pub lease_reuse_duration_seconds: u64,
    /// Objects that a delete of a collection deletes at a time.
    #[arg(long, default_value_t = 1)]
    pub delete_collection_workers: usize,
    /// Whether deletes may leave dependents to a garbage collector. Must be as the controller manager has it.
    #[arg(long, default_value_t = true)]
    pub enable_garbage_collector: bool,
    /// Whether reads may be answered from what is in memory, without asking the store how things stand.
    #[arg(long, default_value_t = true)]
    pub watch_cache: bool,
    /// The same of single resources: resource[.group]#size, where 0 is off; caches have the size that they need.
    #[arg(long, value_delimiter = ',')]
    pub watch_cache_sizes: Vec<String>,
    /// Size of the other caches, of which only 0 means something: off. Deprecated.
    #[arg(long, default_value_t = 100)]
    pub default_watch_cache_size: i64,
    /// Which resources are encrypted in the store, and with which keys.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Whether that file is read again when it changes.
    #[arg(long, default_value_t = false)]
    pub encryption_provider_config_automatic_reload: bool,
    /// Directory of the embedded store, used when no etcd server is given.
    #[arg(long, default_value = "/var/lib/timonel/store")]
    pub embedded_store_dir: PathBuf,
}

/// A resource with etcd servers of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) resource: GroupResource,
    pub(crate) servers: Vec<String>,
}

fn parse_override(text: &str) -> Result<Override, String> {
    let bad = || {
        "--etcd-servers-overrides invalid, must be of format: group/resource#servers, where servers are URLs, \
         semicolon separated"
            .to_owned()
    };
    let (place, servers) = text.split_once('#').filter(|(_, servers)| !servers.contains('#')).ok_or_else(bad)?;
    let (group, resource) = place.split_once('/').filter(|(_, name)| !name.contains('/')).ok_or_else(bad)?;
    let servers: Vec<String> = servers.split(';').map(str::to_owned).collect();
    let is_url = |server: &String| server.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some());
    if resource.is_empty() || !servers.iter().all(is_url) {
        return Err(bad());
    }
    Ok(Override { resource: GroupResource::new(group, resource), servers })
}

/// `resource[.group]#size`.
fn parse_size(text: &str) -> Result<(GroupResource, i64), String> {
    let (place, size) = text.split_once('#').ok_or_else(|| format!("invalid value of watch cache size: {text}"))?;
    let number: i64 = size.parse().map_err(|_| format!("invalid size of watch cache size: {text}"))?;
    if number < 0 {
        return Err(format!("watch cache size cannot be negative: {text}"));
    }
    let (resource, group) = place.split_once('.').unwrap_or((place, ""));
    Ok((GroupResource::new(group, resource), number))
}

fn media(text: &str) -> Option<StoredMedia> {
    match text {
        JSON => Some(StoredMedia::Json),
        YAML => Some(StoredMedia::Yaml),
        PROTOBUF => Some(StoredMedia::Protobuf),
        _ => None,
    }
}

impl StorageOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.storage_backend != "etcd3" {
            problems.push(
                "--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'".into(),
            );
        }
        if let Some(text) = self.storage_media_type.as_deref().filter(|text| media(text).is_none()) {
            problems.push(format!("--storage-media-type {text:?} invalid, allowed values: {JSON}, {PROTOBUF}, {YAML}"));
        }
        problems.extend(self.overrides().err());
        problems.extend(self.watch_cache_sizes.iter().filter_map(|text| parse_size(text).err()));
        if self.encryption_provider_config_automatic_reload && self.encryption_provider_config.is_none() {
            problems.push(
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config".into(),
            );
        }
        problems
    }

    /// Whether the store is one that others may use too.
    pub(crate) fn is_shared(&self) -> bool {
        !self.etcd_servers.is_empty()
    }

    /// Key prefix of everything, without the trailing slash.
    pub(crate) fn prefix(&self) -> &str {
        self.etcd_prefix.trim_end_matches('/')
    }

    /// Resources with etcd servers of their own. The first that names a resource counts.
    pub(crate) fn overrides(&self) -> Result<Vec<Override>, String> {
        let mut overrides: Vec<Override> = Vec::new();
        for text in &self.etcd_servers_overrides {
            let new = parse_override(text)?;
            if !overrides.iter().any(|known| known.resource == new.resource) {
                overrides.push(new);
            }
        }
        Ok(overrides)
    }

    /// How resources are kept.
    pub(crate) fn keeping(&self, metrics: CacheMetrics) -> Keeping {
        let default = if self.is_shared() { StoredMedia::Protobuf } else { StoredMedia::Json };
        let sizes = self.watch_cache_sizes.iter().filter_map(|text| parse_size(text).ok());
        let watch_caches: BTreeMap<GroupResource, bool> = sizes.map(|(resource, size)| (resource, size > 0)).collect();
        Keeping {
            metrics,
            watch_cache: self.watch_cache,
            watch_caches,
            unnamed_watch_caches: self.default_watch_cache_size > 0,
            collects_garbage: self.enable_garbage_collector,
            media: self.storage_media_type.as_deref().and_then(media).unwrap_or(default),
            count_period: self.etcd_count_metric_poll_period,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        storage: StorageOptions,
    }

    fn flags(flags: &[&str]) -> StorageOptions {
        <Flags as clap::Parser>::parse_from(["x"].iter().chain(flags)).storage
    }

    #[test]
    fn bad_settings_are_refused() {
        for (flag, text) in [
            ("--storage-backend=etcd2", "allowed values: etcd3"),
            ("--storage-media-type=text/plain", "--storage-media-type \"text/plain\" invalid, allowed values: "),
            ("--etcd-servers-overrides=events#http://a:1", "must be of format: group/resource#servers"),
            ("--etcd-servers-overrides=/events#a:1", "must be of format: group/resource#servers"),
            ("--etcd-servers-overrides=/events", "must be of format: group/resource#servers"),
            ("--watch-cache-sizes=pods", "invalid value of watch cache size: pods"),
            ("--watch-cache-sizes=pods#x", "invalid size of watch cache size: pods#x"),
            ("--watch-cache-sizes=pods#-1", "watch cache size cannot be negative: pods#-1"),
        ] {
            assert!(flags(&[flag]).validate().join("\n").contains(text), "{flag}");
        }
        for flag in ["--etcd-servers-overrides=apps/deployments#http://a:1;http://b:1", "--watch-cache-sizes=a.b.c#1"] {
            assert_eq!(flags(&[flag]).validate(), Vec::<String>::new(), "{flag}");
        }
    }

    #[test]
    fn resources_have_servers_of_their_own() {
        let options = flags(&["--etcd-servers-overrides=/events#http://a:1;http://b:1,/events#http://c:1"]);
        let events = GroupResource::new("", "events");
        let servers = vec!["http://a:1".to_owned(), "http://b:1".to_owned()];
        assert_eq!(options.overrides(), Ok(vec![Override { resource: events, servers }]));
    }

    #[test]
    fn the_form_depends_on_the_store() {
        let metrics = CacheMetrics::register(&prometheus::Registry::new()).unwrap();
        for (given, media) in [
            (vec![], StoredMedia::Json),
            (vec!["--etcd-servers=http://a:1"], StoredMedia::Protobuf),
            (vec!["--etcd-servers=http://a:1", "--storage-media-type=application/json"], StoredMedia::Json),
            (vec!["--storage-media-type=application/yaml"], StoredMedia::Yaml),
        ] {
            assert_eq!(flags(&given).keeping(metrics.clone()).media, media, "{given:?}");
        }
    }
}
