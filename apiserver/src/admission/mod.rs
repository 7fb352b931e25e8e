//! The built-in admission plugins, in upstream's order.

mod defaults;
mod namespaces;
mod priority;
mod service_account;

use std::sync::Arc;

use generic::{
    admission::{Plugin, Plugins},
    resource::Resource,
};

/// What the plugins look things up in.
pub(crate) struct Lookups {
    pub(crate) namespaces: Arc<Resource>,
    pub(crate) service_accounts: Arc<Resource>,
    pub(crate) priority_classes: Arc<Resource>,
    pub(crate) storage_classes: Arc<Resource>,
    pub(crate) ingress_classes: Arc<Resource>,
}

/// Names of all plugins, in order, with whether they are on by default.
const ORDER: [(&str, bool); 7] = [
    ("NamespaceLifecycle", true),
    ("ServiceAccount", true),
    ("TaintNodesByCondition", true),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("DefaultStorageClass", true),
    ("DefaultIngressClass", true),
];

/// A name that is no plugin.
#[derive(Debug, thiserror::Error)]
#[error("admission plugin {0:?} is unknown")]
pub struct UnknownPlugin(String);

/// The plugins that are on after `--enable-admission-plugins` and `--disable-admission-plugins`.
pub(crate) fn plugins(lookups: &Lookups, enable: &[String], disable: &[String]) -> Result<Plugins, UnknownPlugin> {
    if let Some(name) = enable.iter().chain(disable).find(|n| !ORDER.iter().any(|(known, _)| known == n)) {
        return Err(UnknownPlugin(name.clone()));
    }
    let on =
        |name: &str, default: bool| (default || enable.iter().any(|n| n == name)) && !disable.iter().any(|n| n == name);
    let plugins = ORDER.iter().filter(|(name, default)| on(name, *default)).filter_map(|(name, _)| make(name, lookups));
    Ok(Plugins(Arc::new(plugins.collect())))
}

fn make(name: &str, lookups: &Lookups) -> Option<Arc<dyn Plugin>> {
    Some(match name {
        "NamespaceLifecycle" => {
            Arc::new(namespaces::NamespaceLifecycle { namespaces: Arc::clone(&lookups.namespaces) })
        }
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
