//! Keeps the routing table, the certificates and the back ends as the API's objects want them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use controller::{Change, EventRecorder, EventType, Informer, ObjectKey, Whole, events::reference_to};
use k8s_openapi::api::{
    core::v1::ConfigMap,
    networking::v1::{Ingress, IngressClass},
};
use parking_lot::Mutex;
use runtime::{CancellationToken, clock::Clock};
use tokio::sync::Notify;

use crate::{
    backends::{BackendKey, Backends, Port, Sources},
    certificates::Certificates,
    class::ClassRules,
    metrics::IngressMetrics,
    objects::{Certificate, TlsView},
    options::Options,
    plan::{self, CachedIngress, Inputs, Plan, Problem},
    proxy::Proxy,
    settings::{self, Settings},
};

/// Changes that come together are taken together.
const GATHER: Duration = Duration::from_millis(50);

/// What is watched.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) ingresses: Informer<Whole<Ingress>>,
    pub(crate) classes: Informer<Whole<IngressClass>>,
    pub(crate) secrets: Informer<TlsView>,
    /// A Secret of another namespace than the watched one.
    pub(crate) default_secret: Option<(ObjectKey, Informer<TlsView>)>,
    pub(crate) configuration: Option<Informer<Whole<ConfigMap>>>,
    pub(crate) sources: Sources,
}

impl Watched {
    /// Waits until everything was listed once; `false` if `stop` came first.
    pub(crate) async fn wait_synced(&self, stop: &CancellationToken) -> bool {
        let optional = async {
            let configuration = match &self.configuration {
                Some(configuration) => configuration.wait_synced(stop).await,
                None => true,
            };
            let secret = match &self.default_secret {
                Some((_, secret)) => secret.wait_synced(stop).await,
                None => true,
            };
            configuration && secret
        };
        self.ingresses.wait_synced(stop).await
            && self.classes.wait_synced(stop).await
            && self.secrets.wait_synced(stop).await
            && self.sources.services.wait_synced(stop).await
            && self.sources.slices.wait_synced(stop).await
            && optional.await
    }
}

/// What has changed.
#[derive(Default)]
struct Dirty {
    routes: bool,
    services: HashSet<ObjectKey>,
}

#[derive(Default)]
struct Changes {
    dirty: Mutex<Dirty>,
    wake: Notify,
}

impl Changes {
    fn routes(&self) {
        self.dirty.lock().routes = true;
        self.wake.notify_one();
    }

    fn service(&self, service: ObjectKey) {
        self.dirty.lock().services.insert(service);
        self.wake.notify_one();
    }
}

/// The synchronization.
pub(crate) struct Sync {
    pub(crate) options: Options,
    pub(crate) watched: Watched,
    pub(crate) backends: Backends,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) self_signed: Arc<Certificate>,
    pub(crate) recorder: EventRecorder,
    pub(crate) metrics: Arc<IngressMetrics>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Ingresses of this controller, for the status; told when they change.
    pub(crate) ours: Arc<Ours>,
}

/// The Ingresses of this controller.
#[derive(Default)]
pub(crate) struct Ours {
    pub(crate) all: ArcSwap<Vec<CachedIngress>>,
    pub(crate) changed: Notify,
}

/// What was told already.
#[derive(Default)]
struct Told {
    /// Generation and annotations by UID.
    synced: HashMap<String, (i64, BTreeMap<String, String>)>,
    problems: HashSet<String>,
    settings: Vec<String>,
}

impl Sync {
    /// Puts the first table in place; the future follows changes for ever.
    pub(crate) fn start(self) -> impl Future<Output = ()> {
        let changes = Arc::new(Changes::default());
        self.listen(&changes);
        let mut told = Told::default();
        self.rebuild(&mut told);
        async move {
            loop {
                changes.wake.notified().await;
                tokio::time::sleep(GATHER).await;
                let dirty = std::mem::take(&mut *changes.dirty.lock());
                if !dirty.services.is_empty() {
                    self.backends.refresh(Some(&dirty.services));
                }
                if dirty.routes {
                    self.rebuild(&mut told);
                }
            }
        }
    }

    fn listen(&self, changes: &Arc<Changes>) {
        fn all<V: Send + std::marker::Sync + 'static>(informer: &Informer<V>, changes: &Arc<Changes>) {
            let changes = Arc::clone(changes);
            informer.on_change(move |_| changes.routes());
        }
        let watched = &self.watched;
        all(&watched.classes, changes);
        all(&watched.secrets, changes);
        watched.default_secret.iter().for_each(|(_, secret)| all(secret, changes));
        watched.configuration.iter().for_each(|configuration| all(configuration, changes));
        let of_ingresses = Arc::clone(changes);
        watched.ingresses.on_change(move |change| match change {
            // Our own writes of the status route nothing.
            Change::Updated { old, new } if old.uid == new.uid && version(&old.view.0) == version(&new.view.0) => {}
            _ => of_ingresses.routes(),
        });
        let of_services = Arc::clone(changes);
        watched.sources.services.on_change(move |change| of_services.service(change.object().key.clone()));
        let of_slices = Arc::clone(changes);
        watched.sources.slices.on_change(move |change| {
            let slice = change.object();
            of_slices.service(ObjectKey::new(&slice.key.namespace, &slice.service));
        });
    }

    fn rebuild(&self, told: &mut Told) {
        let settings = self.settings(told);
        let all: Vec<_> = self.watched.classes.list();
        let rules = ClassRules {
            name: self.options.ingress_class.clone(),
            by_name: self.options.ingress_class_by_name,
            without_class: self.options.watch_ingress_without_class,
            ..ClassRules::default()
        };
        let rules = rules.with(&self.options.controller_class, all.iter().map(|class| &class.view.0));
        let fallback = self.options.default_backend_service.0.clone();
        let plan = plan::plan(&Inputs {
            ingresses: self.watched.ingresses.list(),
            rules: &rules,
            settings,
            fallback: fallback.map(|service| BackendKey { service, port: Port::First }),
            catch_all: !self.options.disable_catch_all,
            default_certificate: self.default_certificate(),
            certificate: &|secret| certificate_of(&self.watched.secrets, secret),
            slot: &|key| self.backends.slot(key),
        });
        self.tell(&plan, told);
        self.measure(&plan);
        self.certificates.0.store(Arc::new(plan.certificates));
        self.proxy.table.store(Arc::new(plan.table));
        self.ours.all.store(Arc::new(plan.ours));
        self.ours.changed.notify_one();
    }

    fn settings(&self, told: &mut Told) -> Settings {
        let map = self.watched.configuration.as_ref().and_then(|informer| informer.list().into_iter().next());
        let data = map.and_then(|map| map.view.0.data.clone()).unwrap_or_default();
        let (settings, problems) = settings::read(&data);
        if problems != told.settings {
            problems.iter().for_each(|problem| tracing::warn!(problem, "The ConfigMap has a setting that is not used"));
            told.settings = problems;
        }
        settings
    }

    fn default_certificate(&self) -> Arc<Certificate> {
        let given = self.watched.default_secret.as_ref();
        match given.map(|(key, secrets)| (key, certificate_of(secrets, key))) {
            Some((_, Ok(certificate))) => certificate,
            Some((key, Err(why))) => {
                tracing::warn!(secret = %key, why, "The default certificate cannot be used");
                Arc::clone(&self.self_signed)
            }
            None => Arc::clone(&self.self_signed),
        }
    }

    /// Events: once for every state of an Ingress, once for every problem.
    fn tell(&self, plan: &Plan, told: &mut Told) {
        let mut synced = HashMap::new();
        for ingress in &plan.ours {
            let now = version(&ingress.view.0);
            if told.synced.get(&ingress.uid) != Some(&now) {
                let about = reference_to(&ingress.view.0);
                self.recorder.event(&about, EventType::Normal, "Sync", "Scheduled for sync");
            }
            synced.insert(ingress.uid.clone(), now);
        }
        told.synced = synced;
        let name = |p: &Problem| format!("{:?} {} {}", p.about.uid, p.reason, p.message);
        for problem in plan.problems.iter().filter(|problem| !told.problems.contains(&name(problem))) {
            self.recorder.event(&problem.about, EventType::Warning, problem.reason, problem.message.clone());
        }
        told.problems = plan.problems.iter().map(name).collect();
    }

    fn measure(&self, plan: &Plan) {
        let metrics = &self.metrics;
        metrics.reloads.inc();
        metrics.reload_successful.set(1);
        let now = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        metrics.reload_time.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        metrics.ingresses.set(i64::try_from(plan.ours.len()).unwrap_or(i64::MAX));
        metrics.certificate_expiry.reset();
        for used in &plan.in_use {
            let labels = [used.host.as_str(), &used.secret.namespace, &used.secret.name];
            metrics.certificate_expiry.with_label_values(&labels).set(used.not_after);
        }
        tracing::info!(
            v = 1,
            ingresses = plan.ours.len(),
            problems = plan.problems.len(),
            "A routing table is in place"
        );
    }
}

/// What of an Ingress makes routes.
fn version(ingress: &Ingress) -> (i64, BTreeMap<String, String>) {
    let metadata = &ingress.metadata;
    (metadata.generation.unwrap_or_default(), metadata.annotations.clone().unwrap_or_default())
}

fn certificate_of(secrets: &Informer<TlsView>, secret: &ObjectKey) -> Result<Arc<Certificate>, String> {
    let found = secrets.get(secret).ok_or("there is no such Secret of type kubernetes.io/tls")?;
    found.view.0.clone()
}
