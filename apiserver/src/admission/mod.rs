//! The built-in admission plugins, in upstream's order.

mod certificates;
mod configuration;
mod criteria;
mod defaults;
mod event_rate;
mod expressions;
mod image_policy;
mod limit_ranger;
mod matching;
mod namespaced;
mod namespaces;
mod node_restriction;
mod node_selector;
mod nodes;
mod opt_in;
mod owners;
mod pod_security;
mod policies;
mod priority;
mod privileged;
mod quota;
mod runtime_class;
mod service_account;
mod storage;
mod tolerations;
mod webhooks;

use std::sync::Arc;

use generic::{
    admission::{AdmissionMetrics, Plugin, Plugins},
    authz::Authorizer,
    projection::Projection,
    resource::Resource,
};
use policies::{
    MutatingPolicies, MutatingPolicy, ParamAccess, Policies, PolicyMetrics, ValidatingPolicies, ValidatingPolicy,
};
use prometheus::Registry;
use registry::connect::{egress::Egress, webhook::Caller};
use runtime::{
    clock::{Clock, RealClock},
    features::FeatureGates,
};
use tokio_util::sync::CancellationToken;

pub(crate) use configuration::ConfigurationError;
pub(crate) use configuration::Settings;
use pod_security::PodSecurityMetrics;
pub(crate) use webhooks::Configuration;
use webhooks::{MutatingWebhooks, ValidatingWebhooks, WebhookMetrics, Webhooks};

use crate::{StartError, resources::Resources};

/// Group of webhook configurations, policies and their bindings.
const GROUP: &str = "admissionregistration.k8s.io";

/// What the plugins look things up in.
pub(crate) struct Lookups {
    pub(crate) namespaces: Arc<Resource>,
    pub(crate) service_accounts: Arc<Resource>,
    pub(crate) priority_classes: Arc<Resource>,
    pub(crate) storage_classes: Arc<Resource>,
    pub(crate) ingress_classes: Arc<Resource>,
    pub(crate) limit_ranges: Arc<Resource>,
    pub(crate) quotas: Arc<Resource>,
    pub(crate) pods: Arc<Resource>,
    pub(crate) nodes: Arc<Resource>,
    pub(crate) runtime_classes: Arc<Resource>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// `MutatingWebhookConfiguration`s.
    pub(crate) mutating: Arc<Projection<Configuration>>,
    /// `ValidatingWebhookConfiguration`s.
    pub(crate) validating: Arc<Projection<Configuration>>,
    /// How webhooks that change objects are called, and those that do not.
    callers: [Arc<Caller>; 2],
    settings: Settings,
    /// Whether signers may have trust bundles.
    trust_bundles: bool,
    clock: Arc<dyn Clock>,
    webhook_metrics: WebhookMetrics,
    pod_security: PodSecurityMetrics,
    validating_policies: Policies<ValidatingPolicy>,
    mutating_policies: Policies<MutatingPolicy>,
}

impl Lookups {
    /// Webhook configurations are followed until `stop`.
    pub(crate) fn new(
        resources: &Resources,
        authorizer: &Arc<dyn Authorizer>,
        metrics: &Registry,
        (mut settings, gates, egress): (Settings, &FeatureGates, &Egress),
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let services = resources.get("", "services")?;
        let credentials = [&mut settings.mutating, &mut settings.validating].map(std::mem::take);
        let callers =
            credentials.map(|own| Arc::new(Caller::with_credentials(Arc::clone(&services), egress.clone(), own)));
        let configurations =
            |plural| -> Result<_, StartError> { Ok(Projection::follow(&resources.get(GROUP, plural)?, stop)) };
        let namespaces = resources.get("", "namespaces")?;
        let webhook_metrics = WebhookMetrics::new(metrics)?;
        let pod_security = PodSecurityMetrics::register(metrics)?;
        let metrics = PolicyMetrics::register(metrics)?;
        let validating_policies = Policies {
            policies: Projection::follow(&resources.get(GROUP, "validatingadmissionpolicies")?, stop),
            bindings: Projection::follow(&resources.get(GROUP, "validatingadmissionpolicybindings")?, stop),
            namespaces: Arc::clone(&namespaces),
            metrics: Arc::clone(&metrics),
        };
        let mutating_policies = Policies {
            policies: Projection::follow(&resources.get(GROUP, "mutatingadmissionpolicies")?, stop),
            bindings: Projection::follow(&resources.get(GROUP, "mutatingadmissionpolicybindings")?, stop),
            namespaces: Arc::clone(&namespaces),
            metrics,
        };
        Ok(Self {
            namespaces,
            service_accounts: resources.get("", "serviceaccounts")?,
            priority_classes: resources.get("scheduling.k8s.io", "priorityclasses")?,
            storage_classes: resources.get("storage.k8s.io", "storageclasses")?,
            ingress_classes: resources.get("networking.k8s.io", "ingressclasses")?,
            limit_ranges: resources.get("", "limitranges")?,
            quotas: resources.get("", "resourcequotas")?,
            pods: resources.get("", "pods")?,
            nodes: resources.get("", "nodes")?,
            runtime_classes: resources.get("node.k8s.io", "runtimeclasses")?,
            authorizer: Arc::clone(authorizer),
            mutating: configurations("mutatingwebhookconfigurations")?,
            validating: configurations("validatingwebhookconfigurations")?,
            callers,
            settings,
            trust_bundles: gates.enabled("ClusterTrustBundle"),
            clock: RealClock::shared(),
            webhook_metrics,
            pod_security,
            validating_policies,
            mutating_policies,
        })
    }

    fn webhooks(&self, configurations: &Arc<Projection<Configuration>>, mutate: bool) -> Webhooks {
        Webhooks {
            metrics: self.webhook_metrics.clone(),
            mutate,
            configurations: Arc::clone(configurations),
            namespaces: Arc::clone(&self.namespaces),
            caller: Arc::clone(&self.callers[usize::from(!mutate)]),
        }
    }
}

/// Names of all plugins, in order, with whether they are on by default.
const ORDER: [(&str, bool); 37] = [
    ("AlwaysAdmit", false),
    ("NamespaceAutoProvision", false),
    ("NamespaceLifecycle", true),
    ("NamespaceExists", false),
    ("LimitPodHardAntiAffinityTopology", false),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", true),
    ("TaintNodesByCondition", true),
    ("AlwaysPullImages", false),
    ("ImagePolicyWebhook", false),
    ("PodSecurity", true),
    ("PodNodeSelector", false),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("PodTolerationRestriction", false),
    ("EventRateLimit", false),
    ("ExtendedResourceToleration", false),
    ("DefaultStorageClass", true),
    ("StorageObjectInUseProtection", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("RuntimeClass", true),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("ClusterTrustBundleAttest", true),
    ("CertificateSubjectRestriction", true),
    ("DefaultIngressClass", true),
    ("DenyServiceExternalIPs", false),
    ("PodTopologyLabels", true),
    ("PodResizeValidator", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
    ("ResourceQuota", true),
    ("AlwaysDeny", false),
];

/// Why a plugin cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is none of that name.
    #[error("admission plugin {0:?} is unknown (known: {1})")]
    Unknown(String, String),
    /// It needs to be configured.
    #[error("couldn't init admission plugin {0:?}: {1}")]
    Unconfigured(&'static str, &'static str),
}

/// What the flags say about admission.
pub(crate) struct Choice<'a> {
    /// `--enable-admission-plugins`.
    pub(crate) enable: &'a [String],
    /// `--disable-admission-plugins`.
    pub(crate) disable: &'a [String],
    /// `--admission-control`: if there are any, these and no others.
    pub(crate) only: &'a [String],
    /// `--allow-privileged`.
    pub(crate) allow_privileged: bool,
}

/// The plugins that are on.
pub(crate) fn plugins(
    lookups: &Lookups,
    choice: &Choice<'_>,
    metrics: AdmissionMetrics,
) -> Result<Plugins, PluginError> {
    let Choice { enable, disable, only, allow_privileged } = choice;
    if let Some(name) = enable.iter().chain(*disable).chain(*only).find(|n| !ORDER.iter().any(|(known, _)| known == n))
    {
        let mut known: Vec<&str> = ORDER.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        return Err(PluginError::Unknown(name.clone(), known.join(", ")));
    }
    let on = |name: &str, default: bool| match only.is_empty() {
        true => (default || enable.iter().any(|n| n == name)) && !disable.iter().any(|n| n == name),
        false => only.iter().any(|n| n == name),
    };
    if on("EventRateLimit", false) && lookups.settings.event_rate.is_none() {
        return Err(PluginError::Unconfigured("EventRateLimit", "no configuration"));
    }
    if on("ImagePolicyWebhook", false) && lookups.settings.image_reviewer.is_none() {
        return Err(PluginError::Unconfigured("ImagePolicyWebhook", "no config specified"));
    }
    let named = ORDER.iter().filter(|(name, default)| on(name, *default)).filter_map(|(name, _)| make(name, lookups));
    let check: Option<Arc<dyn Plugin>> =
        if *allow_privileged { None } else { Some(Arc::new(privileged::NoPrivileged)) };
    let access: Arc<dyn Plugin> = Arc::new(ParamAccess {
        authorizer: Arc::clone(&lookups.authorizer),
        validating: Arc::clone(&lookups.validating_policies.policies),
        mutating: Arc::clone(&lookups.mutating_policies.policies),
    });
    Ok(Plugins::new(check.into_iter().chain([access]).chain(named).collect(), metrics))
}

fn make(name: &str, lookups: &Lookups) -> Option<Arc<dyn Plugin>> {
    Some(match name {
        "NamespaceLifecycle" => {
            Arc::new(namespaces::NamespaceLifecycle { namespaces: Arc::clone(&lookups.namespaces) })
        }
        "LimitRanger" => Arc::new(limit_ranger::LimitRanger { ranges: Arc::clone(&lookups.limit_ranges) }),
        "NodeRestriction" => Arc::new(node_restriction::NodeRestriction {
            pods: Arc::clone(&lookups.pods),
            nodes: Arc::clone(&lookups.nodes),
            authorizer: Arc::clone(&lookups.authorizer),
        }),
        "ResourceQuota" => Arc::new(quota::ResourceQuotas {
            quotas: Arc::clone(&lookups.quotas),
            limited: lookups.settings.limited.clone(),
        }),
        "ServiceAccount" => {
            Arc::new(service_account::ServiceAccounts { accounts: Arc::clone(&lookups.service_accounts) })
        }
        "TaintNodesByCondition" => Arc::new(defaults::TaintNodesByCondition),
        "Priority" => Arc::new(priority::Priority { classes: Arc::clone(&lookups.priority_classes) }),
        "DefaultTolerationSeconds" => Arc::new(defaults::DefaultTolerationSeconds),
        "DefaultStorageClass" => {
            Arc::new(defaults::DefaultStorageClass { classes: Arc::clone(&lookups.storage_classes) })
        }
        "DefaultIngressClass" => {
            Arc::new(defaults::DefaultIngressClass { classes: Arc::clone(&lookups.ingress_classes) })
        }
        "AlwaysAdmit" => Arc::new(opt_in::AlwaysAdmit),
        "AlwaysDeny" => Arc::new(opt_in::AlwaysDeny),
        "AlwaysPullImages" => Arc::new(opt_in::AlwaysPullImages),
        "DenyServiceExternalIPs" => Arc::new(opt_in::DenyServiceExternalIps),
        "ExtendedResourceToleration" => Arc::new(opt_in::ExtendedResourceToleration),
        "LimitPodHardAntiAffinityTopology" => Arc::new(opt_in::LimitPodHardAntiAffinityTopology),
        "NamespaceAutoProvision" => {
            Arc::new(opt_in::NamespaceAutoProvision { namespaces: Arc::clone(&lookups.namespaces) })
        }
        "NamespaceExists" => Arc::new(opt_in::NamespaceExists { namespaces: Arc::clone(&lookups.namespaces) }),
        "PodSecurity" => Arc::new(pod_security::PodSecurity {
            namespaces: Arc::clone(&lookups.namespaces),
            pods: Arc::clone(&lookups.pods),
            settings: lookups.settings.pod_security.clone(),
            metrics: lookups.pod_security.clone(),
        }),
        "EventRateLimit" => Arc::new(event_rate::EventRateLimit::new(
            lookups.settings.event_rate.as_deref().unwrap_or_default(),
            Arc::clone(&lookups.clock),
        )),
        "StorageObjectInUseProtection" => Arc::new(storage::StorageObjectInUseProtection),
        "PersistentVolumeClaimResize" => {
            Arc::new(storage::PersistentVolumeClaimResize { classes: Arc::clone(&lookups.storage_classes) })
        }
        "RuntimeClass" => Arc::new(runtime_class::RuntimeClasses { classes: Arc::clone(&lookups.runtime_classes) }),
        "CertificateApproval" => {
            Arc::new(certificates::CertificateApproval { authorizer: Arc::clone(&lookups.authorizer) })
        }
        "CertificateSigning" => {
            Arc::new(certificates::CertificateSigning { authorizer: Arc::clone(&lookups.authorizer) })
        }
        "CertificateSubjectRestriction" => Arc::new(certificates::CertificateSubjectRestriction),
        "ClusterTrustBundleAttest" => {
            if !lookups.trust_bundles {
                return None;
            }
            Arc::new(certificates::ClusterTrustBundleAttest { authorizer: Arc::clone(&lookups.authorizer) })
        }
        "ImagePolicyWebhook" => {
            Arc::new(image_policy::ImagePolicyWebhook { reviewer: lookups.settings.image_reviewer.clone()? })
        }
        "OwnerReferencesPermissionEnforcement" => {
            Arc::new(owners::OwnerReferences { authorizer: Arc::clone(&lookups.authorizer) })
        }
        "PodNodeSelector" => Arc::new(node_selector::PodNodeSelector {
            namespaces: Arc::clone(&lookups.namespaces),
            settings: lookups.settings.node_selectors.pod_node_selector_plugin_config.clone(),
        }),
        "PodTolerationRestriction" => Arc::new(tolerations::PodTolerationRestriction {
            namespaces: Arc::clone(&lookups.namespaces),
            settings: lookups.settings.tolerations.clone(),
        }),
        "MutatingAdmissionPolicy" => Arc::new(MutatingPolicies(lookups.mutating_policies.clone())),
        "ValidatingAdmissionPolicy" => Arc::new(ValidatingPolicies(lookups.validating_policies.clone())),
        "MutatingAdmissionWebhook" => Arc::new(MutatingWebhooks(lookups.webhooks(&lookups.mutating, true))),
        "ValidatingAdmissionWebhook" => Arc::new(ValidatingWebhooks(lookups.webhooks(&lookups.validating, false))),
        "PodTopologyLabels" => Arc::new(nodes::PodTopologyLabels { nodes: Arc::clone(&lookups.nodes) }),
        "PodResizeValidator" => Arc::new(nodes::PodResizeValidator { nodes: Arc::clone(&lookups.nodes) }),
        _ => return None,
    })
}
