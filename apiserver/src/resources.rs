//! The stored resources, and the handlers of what is not stored.

use std::{collections::BTreeMap, sync::Arc};

use generic::{
    authn::{bearer::Bearer, service_account::TokenSigner},
    endpoint::Handler,
    resource::Resource,
};
use registry::{
    component_statuses::ComponentStatuses,
    connect::{
        egress::{Dialer, Egress},
        kubelet::Kubelets,
        logs::Logs,
        proxy::{Destination, Proxy},
        streams::{PodStreams, Purpose},
    },
    endpoints::{Handlers, StorageSettings},
    pods::{binding::Binding, eviction::Eviction},
    reviews::{AccessReview, RulesReview, SelfAccessReview, SelfReview, TokenReview},
    tokens::TokenRequests,
};

use runtime::tls;
use storage::contract::Store;

use crate::{StartError, options::Options};

/// Stored resources by group and plural.
pub(crate) struct Resources(pub(crate) BTreeMap<(String, String), Arc<Resource>>);

impl Resources {
    pub(crate) fn new(settings: &StorageSettings) -> Self {
        Self(registry::endpoints::resources(settings))
    }

    /// A resource that the built-in API has.
    pub(crate) fn get(&self, group: &str, plural: &str) -> Result<Arc<Resource>, StartError> {
        let found = self.0.get(&(group.to_owned(), plural.to_owned()));
        found.cloned().ok_or_else(|| StartError::Flags(format!("resource {plural}.{group} is not served")))
    }

    /// Whether all watch caches are filled.
    pub(crate) fn ready(&self) -> bool {
        self.0.values().all(|r| r.cache().is_ready())
    }
}

/// What handlers need besides the resources.
pub(crate) struct HandlerSettings<'a> {
    pub(crate) options: &'a Options,
    pub(crate) audiences: &'a [String],
    pub(crate) bearer: Arc<Bearer>,
    pub(crate) signer: Arc<dyn TokenSigner>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) egress: &'a Egress,
}

/// Handlers of subresources and of kinds that are posted only.
pub(crate) fn handlers(resources: &Resources, settings: &HandlerSettings<'_>) -> Result<Handlers, StartError> {
    let mut handlers: Handlers = BTreeMap::new();
    let mut add = |group, path, handler: Arc<dyn Handler>| {
        handlers.insert((group, path), handler);
    };
    let pods = resources.get("", "pods")?;
    let binding = Arc::new(Binding { pods: Arc::clone(&pods) });
    add("", "bindings", Arc::clone(&binding) as Arc<dyn Handler>);
    add("", "pods/binding", binding);
    let budgets = resources.get("policy", "poddisruptionbudgets")?;
    add("", "pods/eviction", Arc::new(Eviction { pods: Arc::clone(&pods), budgets }));
    let kubelets = Arc::new(kubelets(settings.options, resources, settings.egress.cluster.clone())?);
    for (path, purpose) in
        [("pods/exec", Purpose::Exec), ("pods/attach", Purpose::Attach), ("pods/portforward", Purpose::PortForward)]
    {
        let (pods, kubelets) = (Arc::clone(&pods), Arc::clone(&kubelets));
        add("", path, Arc::new(PodStreams { purpose, pods, kubelets }));
    }
    add("", "pods/log", Arc::new(Logs { pods: Arc::clone(&pods), kubelets: Arc::clone(&kubelets) }));
    let tls = Arc::new(tls::unverified_client_config(None)?);
    let statuses = ComponentStatuses { store: Arc::clone(&settings.store), tls: Arc::clone(&tls) };
    add("", "componentstatuses", Arc::new(statuses));
    for (path, to) in [
        ("nodes/proxy", Destination::Nodes(kubelets)),
        ("pods/proxy", Destination::Pods(Arc::clone(&pods))),
        (
            "services/proxy",
            Destination::Services(resources.get("", "services")?, resources.get("", "endpoints")?, Arc::clone(&pods)),
        ),
    ] {
        add("", path, Arc::new(Proxy { to, tls: Arc::clone(&tls), dialer: settings.egress.cluster.clone() }));
    }
    let tokens = TokenRequests {
        key: Arc::clone(&settings.signer),
        issuer: settings.options.accounts.service_account_issuer.first().cloned().unwrap_or_default(),
        audiences: settings.audiences.to_vec(),
        longest: settings.options.accounts.longest(),
        extend: settings.options.accounts.service_account_extend_token_expiration,
        service_accounts: resources.get("", "serviceaccounts")?,
        pods,
        secrets: resources.get("", "secrets")?,
        nodes: resources.get("", "nodes")?,
    };
    add("", "serviceaccounts/token", Arc::new(tokens));
    let review = TokenReview { bearer: Arc::clone(&settings.bearer), audiences: settings.audiences.to_vec() };
    add("authentication.k8s.io", "tokenreviews", Arc::new(review));
    add("authentication.k8s.io", "selfsubjectreviews", Arc::new(SelfReview));
    let authorization = "authorization.k8s.io";
    add(authorization, "subjectaccessreviews", Arc::new(AccessReview { local: false }));
    add(authorization, "localsubjectaccessreviews", Arc::new(AccessReview { local: true }));
    add(authorization, "selfsubjectaccessreviews", Arc::new(SelfAccessReview));
    add(authorization, "selfsubjectrulesreviews", Arc::new(RulesReview));
    Ok(handlers)
}

/// How kubelets are reached, as the flags say.
fn kubelets(options: &Options, resources: &Resources, dialer: Dialer) -> Result<Kubelets, StartError> {
    let flags = &options.kubelet;
    let identity = match (&flags.kubelet_client_certificate, &flags.kubelet_client_key) {
        (Some(certificate), Some(key)) => Some((tls::read(certificate)?, tls::read(key)?)),
        _ => None,
    };
    let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
    let unverified = Arc::new(tls::unverified_client_config(identity)?);
    let tls = match &flags.kubelet_certificate_authority {
        Some(file) => Arc::new(tls::client_config(&tls::read(file)?, identity)?),
        None => Arc::clone(&unverified),
    };
    let address_types = flags.kubelet_preferred_address_types.clone();
    Ok(Kubelets {
        nodes: resources.get("", "nodes")?,
        tls,
        unverified,
        dialer,
        address_types,
        timeout: flags.kubelet_timeout,
        port: flags.kubelet_port,
        stream_rate: flags.max_connection_bytes_per_sec,
    })
}
