//! The built-in admission plugins, in upstream's order.

mod defaults;
mod limit_ranger;
mod namespaced;
mod namespaces;
mod node_restriction;
mod priority;
mod privileged;
mod quota;
mod service_account;

use std::sync::Arc;

use generic::{
    admission::{Plugin, Plugins},
    authz::Authorizer,
    resource::Resource,
};

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
    pub(crate) authorizer: Arc<dyn Authorizer>,
}

/// Names of all plugins, in order, with whether they are on by default.
const ORDER: [(&str, bool); 10] = [
    ("NamespaceLifecycle", true),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", true),
    ("TaintNodesByCondition", true),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("DefaultStorageClass", true),
    ("DefaultIngressClass", true),
    ("ResourceQuota", true),
];

/// A name that is no plugin.
#[derive(Debug, thiserror::Error)]
#[error("admission plugin {0:?} is unknown")]
pub struct UnknownPlugin(String);

/// What the flags say about admission.
pub(crate) struct Choice<'a> {
    /// `--enable-admission-plugins`.
    pub(crate) enable: &'a [String],
    /// `--disable-admission-plugins`.
    pub(crate) disable: &'a [String],
    /// `--allow-privileged`.
    pub(crate) allow_privileged: bool,
}

/// The plugins that are on.
pub(crate) fn plugins(lookups: &Lookups, choice: &Choice<'_>) -> Result<Plugins, UnknownPlugin> {
    let Choice { enable, disable, allow_privileged } = choice;
    if let Some(name) = enable.iter().chain(*disable).find(|n| !ORDER.iter().any(|(known, _)| known == n)) {
        return Err(UnknownPlugin(name.clone()));
    }
    let on =
        |name: &str, default: bool| (default || enable.iter().any(|n| n == name)) && !disable.iter().any(|n| n == name);
    let named = ORDER.iter().filter(|(name, default)| on(name, *default)).filter_map(|(name, _)| make(name, lookups));
    let check: Option<Arc<dyn Plugin>> =
        if *allow_privileged { None } else { Some(Arc::new(privileged::NoPrivileged)) };
    Ok(Plugins(Arc::new(check.into_iter().chain(named).collect())))
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
        "ResourceQuota" => Arc::new(quota::ResourceQuotas { quotas: Arc::clone(&lookups.quotas) }),
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
        _ => return None,
    })
}
