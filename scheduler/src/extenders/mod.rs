//! Extenders: HTTP services that have a say in where Pods go. They filter nodes and score them, choose among victims of
//! preemption, and bind.
//!
//! They want whole objects, of which this scheduler keeps little: a Pod is read when an extender is to be asked, Nodes are
//! kept whole only if there is an extender that has no cache of its own.

mod wire;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{ClientError, Connection};
use controller::{Informer, InformerSet, ObjectKey, Whole};
use http::{Method, Request, header};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client, Config,
    config::{AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext},
};
use runtime::flags::ClientArgs;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    config::ExtenderFile,
    objects::{PodView, Template},
    plugins::default_preemption::Candidate,
};

/// Time for an answer, if the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Highest score that an extender gives.
const MAX_PRIORITY: i64 = 10;

/// Why an extender did not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtenderError {
    #[error("failed {verb} with extender at URL {url}: {source}")]
    Call { verb: String, url: String, source: Box<kube::Error> },
    #[error("failed {verb} with extender at URL {url}: no answer within {} seconds", .after.as_secs())]
    Late { verb: String, url: String, after: Duration },
    #[error("extender at URL {url}: the answer to {verb} cannot be read: {source}")]
    Answer { verb: String, url: String, source: serde_json::Error },
    #[error("cannot make the request: {0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Refused(String),
}

/// An extender that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("extender {url}: {source}")]
    Tls { url: String, source: Box<kube::config::KubeconfigError> },
    #[error("extender {url}: {source}")]
    Client { url: String, source: ClientError },
}

/// A node that an extender rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) node: String,
    pub(crate) why: String,
    pub(crate) resolvable: bool,
}

/// One extender.
struct Extender {
    settings: ExtenderFile,
    client: Client,
    timeout: Duration,
}

/// All extenders, in the order of the configuration.
#[derive(Default)]
pub(crate) struct Extenders {
    all: Vec<Extender>,
    /// Whole nodes, for those that want them.
    nodes: Option<Informer<Whole<Node>>>,
}

impl Extenders {
    /// Makes clients; nothing is asked yet.
    pub(crate) async fn new(files: &[ExtenderFile]) -> Result<Self, SetupError> {
        let mut all = Vec::new();
        for settings in files {
            let timeout = settings.http_timeout.map_or(TIMEOUT, |span| span.0);
            let timeout = if timeout.is_zero() { TIMEOUT } else { timeout };
            all.push(Extender { client: connect(settings).await?, timeout, settings: settings.clone() });
        }
        Ok(Self { all, nodes: None })
    }

    /// Keeps whole nodes if an extender wants them.
    pub(crate) fn follow(&mut self, informers: &InformerSet) {
        if self.all.iter().any(|extender| !extender.settings.node_cache_capable) {
            self.nodes = Some(informers.get());
        }
    }

    fn interested<'a>(&'a self, pod: &'a PodView) -> impl Iterator<Item = &'a Extender> {
        self.all.iter().filter(|extender| extender.is_interested(&pod.template))
    }

    /// Whether any extender has a say in where a Pod goes.
    pub(crate) fn concern(&self, pod: &PodView) -> bool {
        let asked = |e: &Extender| !e.settings.filter_verb.is_empty() || !e.settings.prioritize_verb.is_empty();
        self.interested(pod).any(|extender| asked(extender) || !extender.settings.preempt_verb.is_empty())
    }

    /// Asks the filters in turn; what is left of the nodes, and who was rejected.
    pub(crate) async fn filter(
        &self,
        pod: &PodView,
        whole: &Value,
        mut nodes: Vec<String>,
    ) -> Result<(Vec<String>, Vec<Rejected>), ExtenderError> {
        let mut rejected: Vec<Rejected> = Vec::new();
        for extender in self.interested(pod).filter(|extender| !extender.settings.filter_verb.is_empty()) {
            if nodes.is_empty() {
                break;
            }
            let (left, failed) = match extender.filter(whole, &nodes, self.nodes.as_ref()).await {
                Ok(answer) => answer,
                Err(error) if extender.settings.ignorable => {
                    extender.skipped(&error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Only a node that is known to be unresolvable stays so.
            for new in failed {
                match rejected.iter_mut().find(|known| known.node == new.node) {
                    Some(known) => *known = new,
                    None => rejected.push(new),
                }
            }
            nodes.retain(|node| left.contains(node));
        }
        Ok((nodes, rejected))
    }

    /// Scores of nodes, on the scale of this scheduler. Who fails has no say.
    pub(crate) async fn scores(&self, pod: &PodView, whole: &Value, nodes: &[String]) -> HashMap<String, i64> {
        let mut scores: HashMap<String, i64> = HashMap::new();
        let asked = self.interested(pod).filter(|extender| !extender.settings.prioritize_verb.is_empty());
        let answers = asked
            .map(|extender| async move { (extender, extender.prioritize(whole, nodes, self.nodes.as_ref()).await) });
        for (extender, answer) in futures::future::join_all(answers).await {
            match answer {
                Ok(list) => {
                    for one in list {
                        let weighted = one.score.saturating_mul(extender.settings.weight);
                        let score = weighted.saturating_mul(crate::framework::MAX_SCORE / MAX_PRIORITY);
                        *scores.entry(one.host).or_default() += score;
                    }
                }
                Err(error) => extender.skipped(&error),
            }
        }
        scores
    }

    /// Asks who may be preempted where. `read` gives whole Pods.
    pub(crate) async fn preempt<F>(
        &self,
        pod: &PodView,
        whole: &Value,
        mut candidates: Vec<(String, Candidate)>,
        read: impl Fn(Arc<PodView>) -> F,
    ) -> Result<Vec<(String, Candidate)>, ExtenderError>
    where
        F: Future<Output = Option<Value>>,
    {
        for extender in self.interested(pod).filter(|extender| !extender.settings.preempt_verb.is_empty()) {
            if candidates.is_empty() {
                break;
            }
            match extender.preempt(whole, &candidates, &read).await {
                Ok(answer) => candidates = kept(candidates, &answer),
                Err(error) if extender.settings.ignorable => extender.skipped(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(candidates)
    }

    /// Binds a Pod, if an extender does that; `None` if none does.
    pub(crate) async fn bind(&self, pod: &PodView, node: &str) -> Option<Result<(), ExtenderError>> {
        let binder = self.interested(pod).find(|extender| !extender.settings.bind_verb.is_empty())?;
        let question = json!({
            "PodName": &*pod.name,
            "PodNamespace": pod.namespace(),
            "PodUID": &*pod.uid,
            "Node": node,
        });
        let answer: Result<wire::Bound, _> = binder.ask(&binder.settings.bind_verb, &question, lower).await;
        Some(
            answer.and_then(
                |bound| if bound.error.is_empty() { Ok(()) } else { Err(ExtenderError::Refused(bound.error)) },
            ),
        )
    }
}

fn lower(value: Value) -> Value {
    wire::lowered(value, 1)
}

/// Candidates that an extender leaves, with the victims that it names.
fn kept(candidates: Vec<(String, Candidate)>, answer: &wire::Preempted) -> Vec<(String, Candidate)> {
    let named = answer.nodenametometavictims.as_ref();
    let left = candidates.into_iter().filter_map(|(node, mut candidate)| {
        let victims = named?.get(&node)?;
        let uids = victims.uids();
        candidate.plan.victims.retain(|victim| uids.iter().any(|uid| **uid == *victim.uid));
        candidate.violations = victims.violations();
        Some((node, candidate))
    });
    left.collect()
}

async fn connect(settings: &ExtenderFile) -> Result<Client, SetupError> {
    let tls = settings.tls_config.clone().unwrap_or_default();
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let has_ca = !tls.ca_file.is_empty() || !tls.ca_data.is_empty();
    let name = "extender".to_owned();
    let cluster = Cluster {
        server: Some(settings.url_prefix.trim_end_matches('/').to_owned()),
        // Without an authority there is nothing to check against.
        insecure_skip_tls_verify: Some(tls.insecure || settings.enable_https && !has_ca),
        certificate_authority: given(&tls.ca_file),
        certificate_authority_data: given(&tls.ca_data),
        tls_server_name: given(&tls.server_name),
        ..Cluster::default()
    };
    let user = AuthInfo {
        client_certificate: given(&tls.cert_file),
        client_certificate_data: given(&tls.cert_data),
        client_key: given(&tls.key_file),
        client_key_data: given(&tls.key_data).map(Into::into),
        ..AuthInfo::default()
    };
    let context = Context { cluster: name.clone(), user: Some(name.clone()), ..Context::default() };
    let file = Kubeconfig {
        clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name: name.clone(), auth_info: Some(user), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(name),
        ..Kubeconfig::default()
    };
    let url = settings.url_prefix.clone();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = config.map_err(|source| SetupError::Tls { url: url.clone(), source: Box::new(source) })?;
    let unlimited = ClientArgs {
        kubeconfig: None,
        master: None,
        kube_api_qps: -1.0,
        kube_api_burst: 1,
        kube_api_content_type: String::new(),
    };
    let connection = Connection::of("kube-scheduler", "extender", &unlimited, None);
    client::connect_with(config, &connection).map_err(|source| SetupError::Client { url, source })
}

impl Extender {
    /// Whether a Pod asks for a resource that the extender manages; one that manages none is asked of all Pods.
    fn is_interested(&self, template: &Template) -> bool {
        let managed = &self.settings.managed_resources;
        let asks = |name: &str| template.requests.get(name) > 0 || template.limits.get(name) > 0;
        managed.is_empty() || managed.iter().any(|resource| asks(&resource.name))
    }

    fn skipped(&self, error: &ExtenderError) {
        tracing::warn!(extender = self.settings.url_prefix, %error, "Skipping extender as it returned error and has ignorable flag set");
    }

    fn url(&self, verb: &str) -> String {
        format!("{}/{verb}", self.settings.url_prefix.trim_end_matches('/'))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: &str,
        question: &Value,
        spell: impl FnOnce(Value) -> Value,
    ) -> Result<T, ExtenderError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/{}", verb.trim_start_matches('/')))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(question.to_string().into_bytes())?;
        let (verb, url) = (verb.to_owned(), self.url(verb));
        let answer = tokio::time::timeout(self.timeout, self.client.request_text(request)).await;
        let text = match answer {
            Err(_) => return Err(ExtenderError::Late { verb, url, after: self.timeout }),
            Ok(Err(source)) => return Err(ExtenderError::Call { verb, url, source: Box::new(source) }),
            Ok(Ok(text)) => text,
        };
        let read = serde_json::from_str(&text).and_then(|value| serde_json::from_value(spell(value)));
        read.map_err(|source| ExtenderError::Answer { verb, url, source })
    }

    /// Nodes as the extender wants them: whole, unless it has a cache of its own.
    fn arguments(&self, pod: &Value, names: &[String], nodes: Option<&Informer<Whole<Node>>>) -> Value {
        if self.settings.node_cache_capable {
            return wire::arguments(pod, names, None);
        }
        let whole =
            |name: &String| nodes?.get(&ObjectKey::cluster(name)).and_then(|n| serde_json::to_value(&n.view.0).ok());
        wire::arguments(pod, names, Some(names.iter().filter_map(whole).collect()))
    }

    async fn filter(
        &self,
        pod: &Value,
        names: &[String],
        nodes: Option<&Informer<Whole<Node>>>,
    ) -> Result<(Vec<String>, Vec<Rejected>), ExtenderError> {
        let question = self.arguments(pod, names, nodes);
        let answer: wire::Filtered = self.ask(&self.settings.filter_verb, &question, lower).await?;
        if !answer.error.is_empty() {
            return Err(ExtenderError::Refused(answer.error));
        }
        let rejected = answer.failed().map(|(node, why, resolvable)| Rejected {
            node: node.to_owned(),
            why: why.to_owned(),
            resolvable,
        });
        Ok((answer.left(self.settings.node_cache_capable), rejected.collect()))
    }

    async fn prioritize(
        &self,
        pod: &Value,
        names: &[String],
        nodes: Option<&Informer<Whole<Node>>>,
    ) -> Result<Vec<wire::HostPriority>, ExtenderError> {
        let question = self.arguments(pod, names, nodes);
        self.ask(&self.settings.prioritize_verb, &question, lower).await
    }

    async fn preempt<F>(
        &self,
        pod: &Value,
        candidates: &[(String, Candidate)],
        read: &impl Fn(Arc<PodView>) -> F,
    ) -> Result<wire::Preempted, ExtenderError>
    where
        F: Future<Output = Option<Value>>,
    {
        let mut nodes = serde_json::Map::new();
        for (node, candidate) in candidates {
            let mut pods = Vec::new();
            for victim in &candidate.plan.victims {
                if self.settings.node_cache_capable {
                    pods.push(json!({"UID": &*victim.uid}));
                } else {
                    pods.extend(read(Arc::clone(victim)).await);
                }
            }
            nodes.insert(node.clone(), json!({"Pods": pods, "NumPDBViolations": candidate.violations}));
        }
        let (all, meta) = if self.settings.node_cache_capable {
            (Value::Null, Value::Object(nodes))
        } else {
            (Value::Object(nodes), Value::Null)
        };
        let question = json!({"Pod": pod, "NodeNameToVictims": all, "NodeNameToMetaVictims": meta});
        self.ask(&self.settings.preempt_verb, &question, wire::lowered_victims).await
    }
}

#[cfg(test)]
mod tests;
