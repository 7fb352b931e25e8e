//! The ConfigMap `kube-root-ca.crt` of every namespace: the authority that Pods trust to know the API server.

use std::collections::BTreeMap;

use ::controller::{Change, Informer, InformerConfig, ObjectKey, Outcome, Reconcile, ReconcileError, Viewed, Whole};
use base64::Engine;
use client::ApiErrorExt;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams, config::Kubeconfig};
use prometheus::IntCounterVec;

use crate::{StartError, context::Context, options::Options, serviceaccount::is_active, table::Started};

const CONTROLLER: &str = "root-ca-certificate-publisher-controller";
const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// The ConfigMaps of this name, whole.
#[derive(Debug)]
struct BundleView(ConfigMap);

impl Viewed for BundleView {
    type Object = ConfigMap;

    fn project(mut map: ConfigMap) -> Self {
        map.metadata.managed_fields = None;
        Self(map)
    }

    fn config() -> InformerConfig {
        InformerConfig { fields: format!("metadata.name={NAME}"), labels: String::new() }
    }
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let Some(bundle) = bundle(&context.options)? else { return Ok(Started::Skipped) };
    let client = context.client(CONTROLLER).await?;
    let namespaces: Informer<Whole<Namespace>> = context.informers.get();
    let maps: Informer<BundleView> = context.informers.get();
    let queue = context.queue("root_ca_cert_publisher");
    let of_maps = queue.clone();
    maps.on_change(move |change| of_maps.add(ObjectKey::cluster(change.object().key.namespace.clone())));
    let of_namespaces = queue.clone();
    namespaces.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            of_namespaces.add(change.object().key.clone());
        }
    });
    let published = context.metrics.published_bundles.clone();
    let reconciler = Reconciler { client, namespaces: namespaces.clone(), maps: maps.clone(), bundle, published };
    context.drive(CONTROLLER, queue, 1, reconciler, &[&namespaces, &maps]);
    Ok(Started::Running)
}

/// The bundle of the flag, or else the one that this process trusts itself.
fn bundle(options: &Options) -> Result<Option<String>, StartError> {
    let given = options.accounts.root_ca_file.clone().filter(|p| !p.as_os_str().is_empty());
    let path = match given {
        Some(path) => Some(path),
        None => match trusted(options) {
            Some(Ok(text)) => return Ok(Some(text)),
            Some(Err(path)) => Some(path),
            None => None,
        },
    };
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(|source| StartError::File { path: path.clone(), source })?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        let source = std::io::Error::other("data does not contain any valid RSA or ECDSA certificates");
        return Err(StartError::File { path, source });
    }
    Ok(Some(text))
}

/// The authority of the kubeconfig: its text, or the file it is in.
fn trusted(options: &Options) -> Option<Result<String, std::path::PathBuf>> {
    let file = Kubeconfig::read_from(options.client.kubeconfig.as_deref()?).ok()?;
    let context = file.contexts.iter().find(|c| Some(&c.name) == file.current_context.as_ref())?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|c| c.name == context.cluster)?.cluster.as_ref()?;
    if let Some(data) = &cluster.certificate_authority_data {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
        return String::from_utf8(bytes).ok().map(Ok);
    }
    cluster.certificate_authority.as_ref().map(|path| Err(path.into()))
}

struct Reconciler {
    client: Client,
    namespaces: Informer<Whole<Namespace>>,
    maps: Informer<BundleView>,
    bundle: String,
    published: IntCounterVec,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        if !self.namespaces.get(key).as_ref().is_some_and(is_active) {
            return Ok(Outcome::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let wanted = Some(BTreeMap::from([(FIELD.to_owned(), self.bundle.clone())]));
        let (note, text) = DESCRIPTION;
        let written = match self.maps.get(&ObjectKey::new(key.name.clone(), NAME)) {
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: Some(key.name.clone()),
                    annotations: Some(BTreeMap::from([(note.to_owned(), text.to_owned())])),
                    ..ObjectMeta::default()
                };
                let map = ConfigMap { metadata, data: wanted, ..ConfigMap::default() };
                api.create(&PostParams::default(), &map).await
            }
            Some(present) => {
                let annotations = present.0.metadata.annotations.clone().unwrap_or_default();
                if present.0.data == wanted && annotations.get(note).is_some_and(|t| !t.is_empty()) {
                    return Ok(Outcome::Done);
                }
                let mut map = present.0.clone();
                map.data = wanted;
                map.metadata.annotations.get_or_insert_default().insert(note.into(), text.into());
                api.replace(NAME, &PostParams::default(), &map).await
            }
        };
        let code = match &written {
            Ok(_) => 200,
            Err(error) => error.status().map_or(500, |status| status.code),
        };
        self.published.with_label_values(&[code.to_string().as_str()]).inc();
        match written {
            Err(error) if !(error.is_already_exists() || error.is_namespace_terminating()) => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }
}
