//! The table of controllers and which of them run.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ReplicationController};
use prometheus::{IntGaugeVec, Registry};
use runtime::{
    health::{HealthChecks, Scope},
    metrics::{self, Stability},
};
use tokio_util::sync::CancellationToken;

use crate::{
    StartError,
    context::Context,
    migration::{Migration, Place},
};

/// Whether a controller was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// It runs.
    Running,
    /// The flags leave it nothing to do.
    Skipped,
}

type Start = for<'a> fn(&'a Context) -> BoxFuture<'a, Result<Started, StartError>>;

/// A row of the table.
pub(crate) struct Controller {
    /// The name of `--controllers`, of the health check and of the user agent.
    pub(crate) name: &'static str,
    /// The name before 1.28, which `--controllers` still takes; empty if there is none.
    pub(crate) alias: &'static str,
    /// Whether `*` means it too.
    pub(crate) by_default: bool,
    /// Starts it.
    pub(crate) start: Start,
}

/// Makes a row of [`CONTROLLERS`] from `name (alias), default, start function`.
macro_rules! controllers {
    ($($name:literal $alias:literal $default:ident $start:path;)*) => {
        &[$(Controller {
            name: $name,
            alias: $alias,
            by_default: controllers!(@ $default),
            start: |context| Box::pin($start(context)),
        }),*]
    };
    (@ on) => { true };
    (@ off) => { false };
}

/// All controllers, in the order they are started.
pub(crate) const CONTROLLERS: &[Controller] = controllers! {
    "serviceaccount-token-controller" "serviceaccount-token" on crate::tokens::start;
    "namespace-controller" "namespace" on crate::namespace::start;
    "serviceaccount-controller" "serviceaccount" on crate::serviceaccount::start;
    "root-ca-certificate-publisher-controller" "root-ca-cert-publisher" on crate::rootca::start;
    "endpoints-controller" "endpoint" on crate::endpoints::start;
    "endpointslice-mirroring-controller" "endpointslicemirroring" on crate::mirroring::start;
    "endpointslice-controller" "endpointslice" on crate::endpointslice::start;
    "deployment-controller" "deployment" on crate::deployment::start;
    "daemonset-controller" "daemonset" on crate::daemonset::start;
    "job-controller" "job" on crate::job::start;
    "statefulset-controller" "statefulset" on crate::statefulset::start;
    "cronjob-controller" "cronjob" on crate::cronjob::start;
    "ttl-after-finished-controller" "ttl-after-finished" on crate::ttlafterfinished::start;
    "replicaset-controller" "replicaset" on crate::replicaset::start::<ReplicaSet>;
    "replicationcontroller-controller" "replicationcontroller" on crate::replicaset::start::<ReplicationController>;
    "garbage-collector-controller" "garbagecollector" on crate::collector::start;
    "pod-garbage-collector-controller" "podgc" on crate::podgc::start;
    "certificatesigningrequest-signing-controller" "csrsigning" on crate::certificates::start_signer;
    "certificatesigningrequest-approving-controller" "csrapproving" on crate::certificates::start_approver;
    "certificatesigningrequest-cleaner-controller" "csrcleaner" on crate::certificates::start_cleaner;
    "ttl-controller" "ttl" on crate::ttl::start;
    "bootstrap-signer-controller" "bootstrapsigner" off crate::bootstrap::start_signer;
    "token-cleaner-controller" "tokencleaner" off crate::bootstrap::start_cleaner;
    "persistentvolume-binder-controller" "persistentvolume-binder" on crate::volumes::start;
    "persistentvolume-attach-detach-controller" "attachdetach" on crate::attachdetach::start;
    "persistentvolume-expander-controller" "persistentvolume-expander" on crate::volumes::start_expander;
    "persistentvolumeclaim-protection-controller" "pvc-protection" on crate::volumes::start_claim_protection;
    "persistentvolume-protection-controller" "pv-protection" on crate::volumes::start_volume_protection;
    "volumeattributesclass-protection-controller" "" on crate::volumes::start_attributes_protection;
    "ephemeral-volume-controller" "ephemeral-volume" on crate::volumes::start_ephemeral;
    "legacy-serviceaccount-token-cleaner-controller" "legacy-service-account-token-cleaner" on crate::tokens::legacy::start;
    "resourceclaim-controller" "resource-claim-controller" on crate::resourceclaim::start;
    "resourcequota-controller" "resourcequota" on crate::resourcequota::start;
    "disruption-controller" "disruption" on crate::disruption::start;
    "horizontal-pod-autoscaler-controller" "horizontalpodautoscaling" on crate::podautoscaler::start;
    "service-cidr-controller" "" on crate::servicecidr::start;
    "clusterrole-aggregation-controller" "clusterrole-aggregation" on crate::aggregation::start;
    "node-ipam-controller" "nodeipam" on crate::nodeipam::start;
    "node-lifecycle-controller" "nodelifecycle" on crate::nodelifecycle::start;
    "taint-eviction-controller" "" on crate::nodelifecycle::eviction::start;
    "device-taint-eviction-controller" "" on crate::devicetaints::start;
    "validatingadmissionpolicy-status-controller" "" on crate::policystatus::start;
};

/// Names of cloud controllers: known, because installers switch them off, and without effect.
const INERT: &[&str] = &["service-lb-controller", "node-route-controller", "cloud-node-lifecycle-controller"];
const INERT_ALIASES: &[&str] = &["service", "route", "cloud-node-lifecycle"];
/// Names of controllers of APIs that are not served: known, and without effect.
const UNSERVED: &[&str] = &[
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "podcertificaterequest-cleaner-controller",
    "selinux-warning-controller",
    "storage-version-gc",
    "storageversion-garbage-collector-controller",
    "storage-version-migrator-controller",
];

/// Complaints about names in `--controllers` that nobody has.
pub(crate) fn unknown(list: &[String]) -> Vec<String> {
    let known = |name: &str| {
        name == "*"
            || INERT.contains(&name)
            || INERT_ALIASES.contains(&name)
            || UNSERVED.contains(&name)
            || CONTROLLERS.iter().any(|c| c.name == name || (!c.alias.is_empty() && c.alias == name))
    };
    let names = list.iter().map(|n| n.strip_prefix('-').unwrap_or(n));
    names.filter(|n| !known(n)).map(|n| format!("{n:?} is not in the list of known controllers")).collect()
}

/// Whether `--controllers` asks for a controller. Names before `*`.
pub(crate) fn enabled(controller: &Controller, list: &[String]) -> bool {
    let is = |name: &str| name == controller.name || (!controller.alias.is_empty() && name == controller.alias);
    for item in list {
        match item.strip_prefix('-') {
            Some(name) if is(name) => return false,
            None if is(item) => return true,
            _ => {}
        }
    }
    controller.by_default && list.iter().any(|n| n == "*")
}

/// `running_managed_controllers`.
pub(crate) struct Running(IntGaugeVec);

impl Running {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Indicates where instances of a controller are currently running";
        let labels = &["manager", "name"];
        metrics::gauge_vec(registry, Stability::Beta, "running_managed_controllers", help, labels).map(Self)
    }

    fn set(&self, name: &str) {
        self.0.with_label_values(&[crate::COMPONENT, name]).set(1);
    }
}

/// What runs under the Lease of the program.
pub(crate) fn under_main(migration: Option<&Migration>) -> impl Fn(&Controller) -> bool + Sync + use<'_> {
    move |controller| migration.is_none_or(|m| m.place([controller.name, controller.alias]) == Place::Main)
}

/// What runs under the Lease of a migration.
pub(crate) fn under_migration(migration: &Migration) -> impl Fn(&Controller) -> bool + Sync + use<'_> {
    |controller| migration.place([controller.name, controller.alias]) == Place::Migration
}

/// Starts what the flags ask for, of those that are asked for here.
pub(crate) async fn start_all(
    context: &Context,
    running: &Running,
    health: &HealthChecks,
    stop: &CancellationToken,
    which: &(dyn Fn(&Controller) -> bool + Sync),
) -> Result<(), StartError> {
    let generic = &context.options.generic;
    for controller in CONTROLLERS.iter().filter(|controller| which(controller)) {
        if !enabled(controller, &generic.controllers) {
            tracing::info!(controller = controller.name, "Warning: controller is disabled");
            continue;
        }
        // The Lease is renewed between two of them: starting all takes a busy machine longer than it holds.
        tokio::task::yield_now().await;
        pause(context, generic.controller_start_interval, stop).await;
        if stop.is_cancelled() {
            return Ok(());
        }
        match (controller.start)(context).await? {
            Started::Skipped => tracing::warn!(controller = controller.name, "Skipping controller"),
            Started::Running => {
                running.set(controller.name);
                health.add_to(Scope::HEALTHZ, controller.name, || Ok(()));
                tracing::info!(controller = controller.name, "Started controller");
            }
        }
    }
    Ok(())
}

/// Waits for the interval, and up to as much again.
async fn pause(context: &Context, interval: Duration, stop: &CancellationToken) {
    if !interval.is_zero() {
        stop.run_until_cancelled(context.clock.sleep(util::jitter(interval, 1.0))).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn row(name: &'static str, alias: &'static str, by_default: bool) -> Controller {
        Controller { name, alias, by_default, start: |_| async { Ok(Started::Skipped) }.boxed() }
    }

    #[test]
    fn names_and_stars() {
        let (on, off) =
            (row("deployment-controller", "deployment", true), row("token-cleaner-controller", "tokencleaner", false));
        let cases = [
            ("*", true, false),
            ("*,-deployment", false, false),
            ("-deployment-controller,*", false, false),
            ("*,tokencleaner", true, true),
            ("token-cleaner-controller", false, true),
            ("deployment,-deployment", true, false),
            ("", false, false),
        ];
        for (list, first, second) in cases {
            let list: Vec<String> = list.split(',').map(str::to_owned).collect();
            assert_eq!((enabled(&on, &list), enabled(&off, &list)), (first, second), "{list:?}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let list = ["*".to_owned(), "-service".to_owned(), "-nonesuch".to_owned()];
        assert_eq!(unknown(&list), ["\"nonesuch\" is not in the list of known controllers"]);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> =
            CONTROLLERS.iter().flat_map(|c| [c.name, c.alias]).filter(|n| !n.is_empty()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
