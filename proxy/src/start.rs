//! From flags to running proxies of both families.

use std::{path::Path, sync::Arc, time::Duration};

use client::{ClientMetrics, Connection};
use controller::{Change, EventRecorder, EventType, Informer, ObjectKey, start_informer};
use k8s_openapi::api::{
    core::v1::{ObjectReference, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client};
use runtime::{Runtime, tls::WatchedFile};
use tokio_util::sync::CancellationToken;

use crate::{
    Options, ProxyError,
    backend::{Backend, BackendError, sysctl},
    config::{
        Configuration,
        settings::{Detection, Detector, Mode, Settings},
    },
    conntrack::limits,
    family::Family,
    health::Health,
    healthcheck::HealthPorts,
    iptables::{self, Iptables},
    ipvs,
    metrics::Metrics,
    nftables::{self, Nftables},
    node::{self, Home, NodePorts, NodeView},
    servers::Servers,
    sync::{Periods, Proxier, seconds},
    track::{Tracker, Watched},
    view::{SLICE_INDICES, ServiceView, SliceView},
};

/// What needs full root privileges: kernel settings.
fn set_up(settings: &Settings, config: &Configuration) {
    limits::apply(Path::new("/"), &config.conntrack);
    if settings.mode == Mode::Iptables
        && settings.localhost_node_ports
        && let Err(error) = sysctl("net/ipv4/conf/all/route_localnet", 1)
    {
        tracing::warn!(%error, "route_localnet cannot be set; node ports do not answer on loopback");
    }
    if settings.mode == Mode::Ipvs {
        ipvs::set_up(&settings.ipvs);
    }
}

/// Removes the rules of all modes.
async fn cleanup() -> Result<(), BackendError> {
    let done = [iptables::cleanup(ipvs::leftovers).await, ipvs::cleanup().await, nftables::cleanup().await];
    done.into_iter().collect()
}

/// Removes what a proxy in another mode left. Rules of iptables and ipvs mode do not exclude each other.
async fn clean_other_modes(mode: Mode, metrics: &Metrics) {
    let done = match mode {
        Mode::Nftables => iptables::cleanup(ipvs::leftovers).await.and(ipvs::cleanup().await),
        Mode::Iptables | Mode::Ipvs => {
            let done = nftables::cleanup().await;
            if done.is_err() {
                Family::ALL.iter().for_each(|family| metrics.of(*family).nftables_cleanup_failures.inc());
            }
            done
        }
    };
    if let Err(error) = done {
        tracing::error!(error = util::chain(&error), "rules of another mode stay");
    }
}

/// Whether this machine speaks IPv6.
fn has_v6() -> bool {
    let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    Path::new("/proc/net/if_inet6").exists() && disabled.is_ok_and(|text| text.trim() != "1")
}

/// The families that can be served.
async fn families(mode: Mode, primary: Family) -> Result<Vec<Family>, ProxyError> {
    let mut usable = Vec::new();
    for family in Family::ALL {
        let speaks = family == Family::V4 || has_v6();
        let able = speaks && (mode == Mode::Nftables || iptables::usable(family).await);
        if able {
            usable.push(family);
        }
    }
    if usable.contains(&primary) {
        return Ok(usable);
    }
    let text = format!("no support for primary IP family {primary}");
    Err(BackendError::Unsupported(text).into())
}

/// Runs the proxy until it is told to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), ProxyError> {
    if options.cleanup {
        return Ok(cleanup().await?);
    }
    let (config, settings, gates) = options.configuration()?;
    runtime::metrics::feature_gates(&runtime.registry, &gates)?;
    if let Some(path) = &options.write_config_to {
        let text = serde_yaml::to_string(&config.document()).map_err(std::io::Error::other);
        return text.and_then(|text| std::fs::write(path, text)).map_err(ProxyError::Write);
    }
    if let Some(verbosity) = config.logging["verbosity"].as_i64().and_then(|v| i32::try_from(v).ok())
        && verbosity > runtime::logging::verbosity()
    {
        runtime::logging::set_verbosity(verbosity);
    }
    set_up(&settings, &config);
    if options.init_only {
        return Ok(());
    }
    if let Some(score) = config.oom_score_adj
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        tracing::info!(v = 2, %error, "Failed to set oom_score_adj");
    }
    let stop = runtime.shutdown.clone();
    let ranges_changed = CancellationToken::new();
    let proxy = Start { runtime: &runtime, settings: &settings, config: &config };
    proxy.start(&options, &ranges_changed).await?;
    runtime::env::notify_ready();
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = ranges_changed.cancelled() => Err(ProxyError::RangesChanged),
        () = changed(options.config.as_deref()) => Err(ProxyError::ConfigurationChanged),
    }
}

struct Start<'a> {
    runtime: &'a Runtime,
    settings: &'a Settings,
    config: &'a Configuration,
}

impl Start<'_> {
    async fn start(&self, options: &Options, ranges_changed: &CancellationToken) -> Result<(), ProxyError> {
        let (runtime, settings) = (self.runtime, self.settings);
        let name = match self.config.hostname_override.as_str() {
            "" => runtime::env::hostname().map_err(ProxyError::Host)?,
            name => name.to_owned(),
        };
        let name = name.trim().to_lowercase();
        let client = self.connect(options).await?;
        let events =
            EventRecorder::new(client.clone(), "kube-proxy", &name, Arc::clone(&runtime.clock), &runtime.tasks);
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..ObjectReference::default()
        };
        let nodes = node::follow(client.clone(), runtime, &name);
        let home = node::wait(&nodes, &name, settings, runtime).await?;
        if runtime.shutdown.is_cancelled() {
            return Ok(());
        }
        tracing::info!(node = name, ips = ?home.ips, primary = %home.primary, "Using node IPs");
        let metrics = Metrics::new(&runtime.registry)?;
        clean_other_modes(settings.mode, &metrics).await;
        let families = families(settings.mode, home.primary).await?;
        let health = Health::new(&families, settings.sync_period, runtime.clock.now());
        let servers = Servers {
            settings,
            runtime,
            health: &health,
            metrics: &metrics,
            events: &events,
            node: &about,
            document: self.config.document(),
        };
        servers.start().await?;
        let accounts = match settings.mode {
            Mode::Iptables => iptables::Accounts::ensure().await,
            _ => iptables::Accounts::default(),
        };
        accounts.show(&runtime.registry)?;
        let watched = self.watch(client.clone(), &name);
        watch_node(&nodes, &name, &health, settings, &home, ranges_changed);
        for family in families {
            let tracker = Tracker::new(family);
            let backend = self.backend(&home, (&metrics, accounts), client.clone(), &tracker).await;
            let backend = match backend {
                // One family is enough if it is the Node's own.
                Err(error) if family != home.primary => {
                    tracing::warn!(error = util::chain(&error), %family, "this family is not served");
                    continue;
                }
                other => other?,
            };
            let proxier = self.proxier(tracker, backend, &watched, &nodes, &name, (&home, &metrics, &health, &events));
            runtime.tasks.spawn(format!("proxier {family}"), proxier.run(runtime.tasks.token().clone()));
        }
        events.event(&about, EventType::Normal, "Starting", "");
        if settings.mode == Mode::Ipvs {
            let text = "The ipvs proxier is deprecated and will be removed in a future release. Please use 'nftables' instead.";
            events.event(&about, EventType::Warning, "IPVSDeprecation", text);
        }
        Ok(())
    }

    async fn connect(&self, options: &Options) -> Result<Client, ProxyError> {
        let connection = Connection {
            user_agent: runtime::version::user_agent("kube-proxy"),
            qps: self.config.client_connection.qps,
            burst: self.config.client_connection.burst,
            metrics: Some(ClientMetrics::new(&self.runtime.registry)?),
        };
        let kubeconfig = &self.config.client_connection.kubeconfig;
        let kubeconfig = Some(kubeconfig.as_path()).filter(|path| !path.as_os_str().is_empty());
        let master = Some(options.master.as_str()).filter(|master| !master.is_empty());
        Ok(client::connect_to(kubeconfig, master, &connection).await?)
    }

    fn watch(&self, client: Client, name: &str) -> Watched {
        let tasks = &self.runtime.tasks;
        let services = Api::<Service>::all(client.clone());
        let services = start_informer(tasks, services, ServiceView::config(), &[], ServiceView::project);
        let own = name.to_owned();
        let project = move |slice: EndpointSlice| SliceView::project(slice, &own);
        let slices = Api::<EndpointSlice>::all(client);
        let slices = start_informer(tasks, slices, SliceView::config(), SLICE_INDICES, project);
        Watched { services, slices }
    }

    async fn backend(
        &self,
        home: &Home,
        (metrics, accounts): (&Metrics, iptables::Accounts),
        client: Client,
        tracker: &Tracker,
    ) -> Result<Box<dyn Backend>, ProxyError> {
        let (settings, family) = (self.settings, tracker.family());
        let detector = Detector::of(&settings.detection, &home.ranges, family);
        let node_ports = NodePorts::of(&settings.node_port_addresses, home, family);
        let metrics = metrics.of(family);
        Ok(match settings.mode {
            Mode::Iptables => {
                let style = iptables::Style::of(settings, detector, node_ports, home.ip(family), family).await?;
                let style = iptables::Style { accounts, ..style };
                Box::new(Iptables::new(style, settings.sync_period, metrics))
            }
            Mode::Nftables => {
                let ranges = nftables::ranges(client, self.runtime);
                let wake = tracker.clone();
                ranges.on_change(move |_| wake.all());
                let style = nftables::Style::of(settings, detector, node_ports, home.ip(family), family)?;
                Box::new(Nftables::new(style, ranges, metrics))
            }
            Mode::Ipvs => ipvs::backend(settings, detector, node_ports, home, family).await?,
        })
    }

    fn proxier(
        &self,
        tracker: Tracker,
        backend: Box<dyn Backend>,
        watched: &Watched,
        nodes: &Informer<NodeView>,
        name: &str,
        (home, metrics, health, events): (&Home, &Metrics, &Health, &EventRecorder),
    ) -> Proxier {
        let (runtime, settings, family) = (self.runtime, self.settings, tracker.family());
        let family_metrics = metrics.of(family);
        let told = {
            let (metrics, health, clock) = (family_metrics.clone(), health.clone(), Arc::clone(&runtime.clock));
            move |services: u64, endpoints: u64| {
                let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                metrics.service_pending.set(number(services));
                metrics.endpoint_pending.set(number(endpoints));
                metrics.queued.set(seconds(clock.now()));
                health.queued(family, clock.now());
            }
        };
        tracker.follow(&watched.services, &watched.slices, runtime.clock.now(), told);
        let zone = tracker.clone();
        nodes.on_change(move |change| match change {
            Change::Updated { old, new } if old.zone == new.zone => {}
            _ => zone.all(),
        });
        Proxier {
            family,
            backend,
            tracker,
            watched: watched.clone(),
            nodes: nodes.clone(),
            node: ObjectKey::cluster(name),
            node_ports: NodePorts::of(&settings.node_port_addresses, home, family),
            health_ports: HealthPorts::new(health.clone(), Arc::clone(&runtime.clock), events.clone(), &runtime.tasks),
            periods: Periods { sync: settings.sync_period, least: settings.min_sync_period },
            metrics: family_metrics,
            health: health.clone(),
            clock: Arc::clone(&runtime.clock),
        }
    }
}

/// Keeps an eye on the own Node.
fn watch_node(
    nodes: &Informer<NodeView>,
    name: &str,
    health: &Health,
    settings: &Settings,
    home: &Home,
    ranges_changed: &CancellationToken,
) {
    let (name, health, changed, home) = (name.to_owned(), health.clone(), ranges_changed.clone(), home.clone());
    let by_ranges = settings.detection == Detection::NodeRanges;
    let bind = settings.bind_address;
    nodes.on_change(move |change| match change {
        Change::Added { new, .. } | Change::Updated { new, .. } => {
            health.eligible(new.eligible);
            if by_ranges && new.ranges != home.ranges {
                tracing::error!(node = name, before = ?home.ranges, now = ?new.ranges, "PodCIDRs of the Node changed");
                changed.cancel();
            }
            let now = Home::of(Some(&new.view), bind).ips;
            if now != home.ips {
                tracing::error!(node = name, before = ?home.ips, ?now, "addresses of the Node changed; kube-proxy has to be restarted to use them");
            }
        }
        Change::Deleted { .. } => health.eligible(false),
    });
}

/// Ends when the configuration file has changed.
async fn changed(path: Option<&Path>) {
    const PERIOD: Duration = Duration::from_secs(5);
    let mut file = match path.map(WatchedFile::open) {
        Some(Ok(file)) => file,
        _ => return std::future::pending().await,
    };
    loop {
        tokio::time::sleep(PERIOD).await;
        if file.changed() {
            return;
        }
    }
}
