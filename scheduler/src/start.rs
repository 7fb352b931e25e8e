//! From the command line to a running scheduler.

use std::{sync::Arc, time::Duration};

use client::{ClientError, ClientMetrics, Connection, DelegatedError};
use controller::{EventRecorder, InformerSet, LeaderConfig, LeaderElector, LeaderError};
use kube::Client;
use parking_lot::Mutex;
use runtime::{
    Runtime,
    features::{FeatureGates, Gate},
    health::Scope,
    serving::ServingError,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    config::{FromFlags, Settings, SettingsError, Sources},
    devices::Devices,
    extenders::{Extenders, SetupError},
    metrics::Metrics,
    options::Options,
    plugins::volumes::Storage,
    queue::PodQueue,
    record::Recorder,
    resource_metrics::ResourceMetrics,
    scheduler::{Profiles, Scheduler, Shared, State},
    serve, spread_selector,
    watch::{Watched, devices_changed, storage_changed},
};

const NAME: &str = "kube-scheduler";
/// Time after which an unschedulable Pod is tried again in any case.
const FLUSH_AFTER: Duration = Duration::from_secs(5 * 60);
/// How often the gauges are brought up to date.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Feature gates of the scheduler.
const GATES: &[Gate] = &[];

/// Why the scheduler does not run, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not usable.
    #[error("{0}")]
    Settings(String),
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no server.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// Requests cannot be authenticated.
    #[error(transparent)]
    Auth(#[from] DelegatedError),
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A file cannot be written, or the name of the host is not known.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Somebody else leads now.
    #[error(transparent)]
    Leader(#[from] LeaderError),
}

impl From<SetupError> for StartError {
    fn from(error: SetupError) -> Self {
        Self::Settings(error.to_string())
    }
}

impl From<SettingsError> for StartError {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error.to_string())
    }
}

/// Runs the scheduler until the process is told to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), StartError> {
    let settings = load(&options, &runtime)?;
    if let Some(path) = &options.write_config_to {
        let text = serde_yaml::to_string(&settings.document()).map_err(std::io::Error::other)?;
        std::fs::write(path, text)?;
        tracing::info!(path = %path.display(), "Wrote configuration");
        return Ok(());
    }
    let client_metrics = ClientMetrics::new(&runtime.registry)?;
    let args = settings.client(&options.client);
    let connection = |suffix| Connection::of(NAME, suffix, &args, Some(client_metrics.clone()));
    let client = client::connect(&args, &connection("scheduler")).await?;
    let election_client = client::connect(&args, &connection("leader-election")).await?;
    // Events have a rate limit of their own, so that they do not slow bindings down.
    let events = client::connect(&args, &connection("scheduler")).await?;

    let assembly = Assembly { settings: &settings, options: &options, runtime: &runtime, client, events };
    let election = assembly.election(election_client)?;
    let resources = ResourceMetrics::default();
    serve::start(&options, &runtime, &settings, &resources).await?;
    let early = if settings.delays_caches() { None } else { Some(assembly.assemble().await?) };
    let lead = |stop: CancellationToken| async move {
        let assembled = match early {
            Some(parts) => Ok(parts),
            None => assembly.assemble().await,
        };
        match assembled {
            Ok(parts) => {
                resources.follow(&parts.watched.pods);
                parts.lead(stop).await;
            }
            Err(error) => tracing::error!(err = &error as &dyn std::error::Error, "Cannot start scheduling"),
        }
    };
    match election {
        Some(elector) => elector.run(&runtime.shutdown, lead).await?,
        None => lead(runtime.shutdown.clone()).await,
    }
    Ok(())
}

/// Pause between looks at informers that are not complete yet.
const SYNC_PAUSE: Duration = Duration::from_millis(20);

fn load(options: &Options, runtime: &Runtime) -> Result<Settings, StartError> {
    let mut problems = options.metrics.apply();
    problems.extend(options.compatibility.apply());
    let gates = FeatureGates::parse(&options.feature_gates, true)
        .map_err(|e| vec![e])
        .and_then(|settings| FeatureGates::new(GATES, &settings));
    let gates = FeatureGates::unless(problems, gates).map_err(StartError::Settings)?;
    runtime::metrics::feature_gates(&runtime.registry, &gates)?;
    let flags = FromFlags {
        client: &options.client,
        election: &options.election,
        given: &|flag| runtime.given(flag),
        profiling: options.profiling.profiling,
        contention_profiling: options.profiling.contention_profiling,
    };
    Ok(Settings::load(options.config.as_deref(), &flags)?)
}

/// What the parts are made from.
struct Assembly<'a> {
    settings: &'a Settings,
    options: &'a Options,
    runtime: &'a Runtime,
    client: Client,
    events: Client,
}

impl Assembly<'_> {
    /// The candidate for the lease, if one is to be held.
    fn election(&self, client: Client) -> Result<Option<LeaderElector>, StartError> {
        let runtime = self.runtime;
        let args = self.settings.leader_election();
        let ping = Scope { healthz: !args.leader_elect, livez: true, readyz: false };
        runtime.health.add_to(ping, "ping", || Ok(()));
        if !args.leader_elect {
            return Ok(None);
        }
        let recorder = EventRecorder::new(client.clone(), NAME, "", Arc::clone(&runtime.clock), &runtime.tasks);
        let identity = runtime::env::identity()?;
        let config = LeaderConfig::of(&args, NAME, identity, true);
        let clock = Arc::clone(&runtime.clock);
        let elector = LeaderElector::new(client, config, clock, recorder, Some(&runtime.registry))?;
        elector.add_health_check(&runtime.health, Scope::NOT_LIVE);
        Ok(Some(elector))
    }

    /// Starts the informers and makes what they feed.
    async fn assemble(&self) -> Result<Parts, StartError> {
        let runtime = self.runtime;
        let metrics = Metrics::new(&runtime.registry)?;
        let informers = InformerSet::new(self.client.clone(), &runtime.tasks);
        let informers = Arc::new(informers.with_metrics(NAME, &runtime.registry)?);
        let watched = Watched::start(&informers);
        let storage = Storage::following(&informers);
        let devices = Devices::following(&informers);
        let mut extenders = Extenders::new(self.settings.extenders()).await?;
        extenders.follow(&informers);
        let sources = Sources {
            selector: spread_selector::following(&informers),
            storage: Arc::clone(&storage),
            devices: Arc::clone(&devices),
        };
        let profiles = self.settings.profiles(&sources)?;
        let tasks = runtime.tasks.child("scheduling");
        let api = Api::new(self.client.clone());
        let events = Api::new(self.events.clone());
        let recorder = Recorder::new(events, &runtime::env::hostname()?, Arc::clone(&runtime.clock), &tasks);
        let counter = metrics.clone();
        let flush_after = match self.options.pod_max_in_unschedulable_pods_duration {
            Duration::ZERO => FLUSH_AFTER,
            given => given,
        };
        let incoming = Box::new(move |queue: &'static str, event: &str| counter.came(queue, event));
        let queue = PodQueue::new(self.settings.backoff(), flush_after, incoming);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(queue)),
            wake: Notify::new(),
            profiles: Profiles::new(profiles, metrics.clone()),
            api,
            recorder,
            metrics,
            clock: Arc::clone(&runtime.clock),
            budgets: informers.get(),
            tasks,
            extenders,
        });
        let probe = Arc::clone(&informers);
        runtime.health.add_to(Scope::READY, "sched-handler-sync", move || match probe.unsynced().as_slice() {
            [] => Ok(()),
            missing => Err(format!("waiting for handlers to sync: {}", missing.join(", "))),
        });
        let measuring = Arc::clone(&shared);
        runtime.tasks.spawn_cancellable("gauges", async move {
            loop {
                measuring.clock.sleep(MEASURE_EVERY).await;
                measuring.measure();
            }
        });
        Ok(Parts { shared, informers, watched, storage, devices })
    }
}

/// A scheduler that can begin.
struct Parts {
    shared: Arc<Shared>,
    informers: Arc<InformerSet>,
    watched: Watched,
    storage: Arc<Storage>,
    devices: Arc<Devices>,
}

impl Parts {
    /// Schedules until `stop`.
    async fn lead(self, stop: CancellationToken) {
        self.watched.feed(&self.shared);
        let shared = Arc::clone(&self.shared);
        self.storage.on_change(move || storage_changed(&shared));
        let shared = Arc::clone(&self.shared);
        self.devices.on_change(move |change| devices_changed(&shared, change));
        while !self.informers.unsynced().is_empty() && !stop.is_cancelled() {
            stop.run_until_cancelled(self.shared.clock.sleep(SYNC_PAUSE)).await;
        }
        Scheduler::new(self.shared).run(stop).await;
    }
}
