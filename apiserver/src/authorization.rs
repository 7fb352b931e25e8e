//! The authorizers that flags or a file ask for.

use std::{path::Path, sync::Arc};

use generic::{
    authz::{
        self, Authorizer, Chain, DecisionMetrics, Link,
        abac::Abac,
        config::{AuthorizationConfiguration, AuthorizerConfig, KIND, VERSIONS, WebhookConfig},
        node::NodeAuthorizer,
        rbac::Rbac,
        webhook::{AccessWebhook, WebhookMetrics},
    },
    projection::{Observer, Projection},
    remote::Remote,
    user::User,
};
use prometheus::HistogramVec;
use rules::rbac::PolicyRule;
use runtime::{
    Registry,
    clock::{Clock, RealClock},
    config_file,
    metrics::{self, Stability},
};
use storage::cache::EventKind;
use tokio_util::sync::CancellationToken;

use crate::{
    StartError,
    auth_options::AuthorizationOptions,
    reload::{self, ReloadMetrics, shown},
    resources::Resources,
};

/// What authorizers are made of.
pub(crate) struct Authorizers {
    pub(crate) rbac: Arc<Rbac>,
    node: Arc<dyn Authorizer>,
    decisions: DecisionMetrics,
    webhooks: WebhookMetrics,
    clock: Arc<dyn Clock>,
}

struct AlwaysAllow;

#[async_trait::async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _attributes: &authz::Attributes) -> authz::Decision {
        authz::Decision::Allow(String::new())
    }

    fn rules_of(&self, _user: &User, _namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let all = || vec!["*".to_owned()];
        let objects = PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() };
        let paths = PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() };
        (vec![objects, paths], Vec::new())
    }
}

struct AlwaysDeny;

#[async_trait::async_trait]
impl Authorizer for AlwaysDeny {
    async fn authorize(&self, _attributes: &authz::Attributes) -> authz::Decision {
        authz::Decision::NoOpinion("Everything is forbidden.".into())
    }
}

fn rbac(resources: &Resources, stop: &CancellationToken) -> Result<Rbac, StartError> {
    let group = "rbac.authorization.k8s.io";
    Ok(Rbac {
        roles: Projection::follow(&resources.get(group, "roles")?, stop),
        role_bindings: Projection::follow(&resources.get(group, "rolebindings")?, stop),
        cluster_roles: Projection::follow(&resources.get(group, "clusterroles")?, stop),
        cluster_role_bindings: Projection::follow(&resources.get(group, "clusterrolebindings")?, stop),
    })
}

/// Tells a metric how long the Node authorizer takes to follow a change.
fn observer(seconds: &HistogramVec, add: &str, delete: &str) -> Option<Observer> {
    let (add, delete) = (seconds.with_label_values(&[add]), seconds.with_label_values(&[delete]));
    Some(Box::new(move |kind, took| match kind {
        EventKind::Deleted => delete.observe(took.as_secs_f64()),
        _ => add.observe(took.as_secs_f64()),
    }))
}

fn node(resources: &Resources, registry: &Registry, stop: &CancellationToken) -> Result<NodeAuthorizer, StartError> {
    let pods = resources.get("", "pods")?;
    let seconds = metrics::histogram_vec(
        registry,
        Stability::Alpha,
        "node_authorizer_graph_actions_duration_seconds",
        "Histogram of duration of graph actions in node authorizer.",
        &["operation"],
        &metrics::exponential_buckets(0.0001, 2.0, 12),
    )?;
    let attachments = resources.get("storage.k8s.io", "volumeattachments")?;
    Ok(NodeAuthorizer {
        references: Projection::follow_observed(&pods, observer(&seconds, "AddPod", "DeletePod"), stop),
        pods,
        claims: Projection::follow(&resources.get("", "persistentvolumeclaims")?, stop),
        attachments: Projection::follow_observed(
            &attachments,
            observer(&seconds, "AddVolumeAttachment", "DeleteVolumeAttachment"),
            stop,
        ),
        rules: rules::bootstrap::node_rules(),
    })
}

/// Reads the text of an `AuthorizationConfiguration`.
fn decode(text: &str) -> Result<AuthorizationConfiguration, String> {
    let config: AuthorizationConfiguration =
        config_file::decode(text, &VERSIONS, KIND).map_err(|error| error.to_string())?;
    let errors = config.validate();
    if errors.is_empty() { Ok(config) } else { Err(shown(&errors)) }
}

/// The policies of a file.
fn attributes(file: Option<&Path>) -> Result<Abac, String> {
    let file = file.ok_or("authorizer \"ABAC\" has no policy file")?;
    let text = std::fs::read_to_string(file).map_err(|error| format!("open {}: {error}", file.display()))?;
    Abac::parse(&text).map_err(|error| error.to_string())
}

impl Authorizers {
    pub(crate) fn new(
        resources: &Resources,
        registry: &Registry,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        Ok(Self {
            rbac: Arc::new(rbac(resources, stop)?),
            node: Arc::new(node(resources, registry, stop)?),
            decisions: DecisionMetrics::new(registry)?,
            webhooks: WebhookMetrics::new(registry)?,
            clock: RealClock::shared(),
        })
    }

    /// The chain that the flags ask for; a file is followed until `stop`. `id` names the server.
    pub(crate) async fn chain(
        self: &Arc<Self>,
        options: &AuthorizationOptions,
        registry: &Registry,
        id: &str,
        stop: &CancellationToken,
    ) -> Result<Arc<Chain>, StartError> {
        let flags = |why: String| StartError::Flags(why);
        let policies = options.authorization_policy_file.as_deref();
        let Some(file) = &options.authorization_config else {
            let links = self.links(&options.authorizers(), policies).await.map_err(flags)?;
            return Ok(Arc::new(Chain::new(links)));
        };
        let text = config_file::read(file).map_err(|error| flags(error.to_string()))?;
        let wrong =
            |why: String| StartError::Flags(format!("failed to load AuthorizationConfiguration from file: {why}"));
        let config = decode(&text).map_err(wrong)?;
        let chain = Arc::new(Chain::new(self.links(&config.authorizers, policies).await.map_err(wrong)?));
        let policies = options.authorization_policy_file.clone();
        let metrics = ReloadMetrics::new(registry, "authorization", Stability::Beta, id)?;
        let (this, shared) = (Arc::clone(self), Arc::clone(&chain));
        reload::follow(file, stop, metrics, move |text| {
            let (this, chain, policies) = (Arc::clone(&this), Arc::clone(&shared), policies.clone());
            Box::pin(async move {
                let config = decode(&text)?;
                chain.replace(this.links(&config.authorizers, policies.as_deref()).await?);
                Ok(())
            })
        })?;
        Ok(chain)
    }

    /// The authorizers of a configuration; `policies` is the file of mode ABAC.
    async fn links(&self, configs: &[AuthorizerConfig], policies: Option<&Path>) -> Result<Vec<Link>, String> {
        let mut links = Vec::new();
        for config in configs {
            let authorizer: Arc<dyn Authorizer> = match (config.kind.as_str(), &config.webhook) {
                ("RBAC", _) => Arc::clone(&self.rbac) as Arc<dyn Authorizer>,
                ("Node", _) => Arc::clone(&self.node),
                ("ABAC", _) => Arc::new(attributes(policies)?),
                ("AlwaysAllow", _) => Arc::new(AlwaysAllow),
                ("AlwaysDeny", _) => Arc::new(AlwaysDeny),
                (_, Some(webhook)) => Arc::new(self.webhook(&config.name, webhook).await?),
                (other, None) => return Err(format!("authorizer {other:?} has no configuration")),
            };
            links.push(self.decisions.link(&config.kind, &config.name, authorizer));
        }
        Ok(links)
    }

    async fn webhook(&self, name: &str, config: &WebhookConfig) -> Result<AccessWebhook, String> {
        let file = config.connection_info.kube_config_file.as_deref().ok_or("the webhook has no kubeconfig")?;
        let remote = Remote::of_kubeconfig(file).await.map_err(|error| error.to_string())?;
        AccessWebhook::new(name, config, remote, Arc::clone(&self.clock), self.webhooks.clone())
    }
}
