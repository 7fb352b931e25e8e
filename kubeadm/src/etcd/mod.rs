//! etcd through the JSON form of its API: members, snapshots, upkeep of its file.

pub mod local;
pub mod restore;
pub mod snapshot;

use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::AsyncBufRead;
use serde_json::{Value, json};

use crate::{
    client::{Cluster, items},
    config::{ApiEndpoint, ClusterConfiguration, ExternalEtcd, Timeouts, join_host_port},
    constants::{ETCD_ANNOTATION, MANIFESTS_DIR},
    error::{Context, Error, Result, fail},
    host::Host,
    kubeconfig::Kubeconfig,
    manifests::etcd::{Inputs, Member},
    patches::Patches,
};

/// Deadline of one call with its repetitions on all endpoints.
const CALL: Duration = Duration::from_secs(2);
/// Deadline of making a file smaller.
const DEFRAGMENT: Duration = Duration::from_secs(300);
/// Mirror Pods of etcd.
const PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Detcd%2Ctier%3Dcontrol-plane";

/// A member as etcd lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
    /// Its client URLs; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it does not vote yet.
    pub is_learner: bool,
}

/// Bytes of a member's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Of its file.
    pub file: u64,
    /// Of it, in use.
    pub in_use: u64,
}

/// A cluster of etcd.
pub struct Etcd {
    endpoints: Vec<Cluster>,
}

impl Etcd {
    /// The members that vote, asked of those that the API knows of.
    pub async fn of_cluster(host: &dyn Host, api: &Cluster, config: &ClusterConfiguration) -> Result<Self> {
        let pods = api.get(PODS).await?.unwrap_or_default();
        let url =
            |pod: &Value| pod.pointer("/metadata/annotations")?.get(ETCD_ANNOTATION)?.as_str().map(ToOwned::to_owned);
        let urls: Vec<String> = items(&pods).filter_map(url).collect();
        if urls.is_empty() {
            return fail!("could not retrieve the list of etcd endpoints");
        }
        let directory = Path::new(&config.certificates_dir).join("etcd");
        // The Pods of a node that is gone stay for a while. Members know who they are.
        let members =
            Self::of_urls(host, &directory, &urls).await?.members().await.context("error listing etcd members")?;
        let started = members.into_iter().filter(|member| !member.name.is_empty() && !member.is_learner);
        let urls: Vec<String> = started.flat_map(|member| member.client_urls).collect();
        Self::of_urls(host, &directory, &urls).await
    }

    /// Members at these client URLs; `directory` has etcd's certificates.
    pub async fn of_urls(host: &dyn Host, directory: &Path, urls: &[String]) -> Result<Self> {
        let read = |file: &str| {
            let path = directory.join(file);
            host.read(&path)
                .map(|bytes| STANDARD.encode(bytes))
                .with_context(|| format!("couldn't read {}", path.display()))
        };
        let (ca, cert, key) = (read("ca.crt")?, read("healthcheck-client.crt")?, read("healthcheck-client.key")?);
        let mut endpoints = Vec::new();
        for url in urls {
            let file = Kubeconfig(json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "etcd", "cluster": {"server": url, "certificate-authority-data": ca}}],
                "contexts": [{"name": "etcd", "context": {"cluster": "etcd", "user": "etcd"}}],
                "current-context": "etcd",
                "users": [{"name": "etcd", "user": {"client-certificate-data": cert, "client-key-data": key}}],
            }));
            endpoints.push(Cluster::connect(&file, None, CALL).await?);
        }
        Ok(Self { endpoints })
    }

    /// The first answer of any member.
    async fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let mut last = Error::new("no etcd endpoint");
        for endpoint in &self.endpoints {
            match endpoint.post(path, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// All members.
    pub async fn members(&self) -> Result<Vec<Listed>> {
        Ok(listed(&self.call("/v3/cluster/member/list", &json!({})).await?))
    }

    /// Whether every member answers.
    pub async fn check(&self) -> Result<()> {
        for endpoint in &self.endpoints {
            endpoint.post("/v3/maintenance/status", &json!({})).await?;
        }
        Ok(())
    }

    /// A snapshot of the first member, as lines of JSON with a part of it each.
    async fn snapshot(&self) -> Result<impl AsyncBufRead + use<>> {
        let Some(first) = self.endpoints.first() else { return fail!("no etcd endpoint") };
        first.stream("/v3/maintenance/snapshot", &json!({})).await
    }

    /// How large the data of the first member that answers is.
    pub async fn size(&self) -> Result<Size> {
        let answer = self.call("/v3/maintenance/status", &json!({})).await?;
        let number = |field: &str| answer.get(field).and_then(|n| n.as_str()?.parse().ok()).unwrap_or(0);
        Ok(Size { file: number("dbSize"), in_use: number("dbSizeInUse") })
    }

    /// Gives back what the file of the first member does not need. It does not answer meanwhile.
    pub async fn defragment(&self) -> Result<()> {
        let Some(first) = self.endpoints.first() else { return fail!("no etcd endpoint") };
        first.clone().patient(DEFRAGMENT).post("/v3/maintenance/defragment", &json!({})).await.map(drop)
    }

    async fn add_learner(&self, peer_url: &str) -> Result<Vec<Listed>> {
        let body = json!({"peerURLs": [peer_url], "isLearner": true});
        Ok(listed(&self.call("/v3/cluster/member/add", &body).await?))
    }

    async fn promote(&self, id: u64) -> Result<()> {
        self.call("/v3/cluster/member/promote", &json!({"ID": id.to_string()})).await.map(drop)
    }

    /// Removes a member; one that is gone is fine.
    pub async fn remove(&self, id: u64) -> Result<()> {
        match self.call("/v3/cluster/member/remove", &json!({"ID": id.to_string()})).await {
            Err(error) if error.to_string().contains("member not found") => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The version of a server of an external etcd: three attempts of ten seconds.
pub async fn version(host: &dyn Host, external: &ExternalEtcd, endpoint: &str) -> Result<String> {
    let read = |file: &str| host.read(Path::new(file)).map(|bytes| STANDARD.encode(bytes)).unwrap_or_default();
    let mut cluster = json!({"server": endpoint});
    if !external.ca_file.is_empty() {
        cluster["certificate-authority-data"] = read(&external.ca_file).into();
    }
    let user = match external.cert_file.as_str() {
        "" => json!({}),
        certificate => json!({
            "client-certificate-data": read(certificate),
            "client-key-data": read(&external.key_file),
        }),
    };
    let file = Kubeconfig(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "etcd", "cluster": cluster}],
        "contexts": [{"name": "etcd", "context": {"cluster": "etcd", "user": "etcd"}}],
        "current-context": "etcd",
        "users": [{"name": "etcd", "user": user}],
    }));
    let server = Cluster::connect(&file, None, CALL).await?;
    let mut last = Error::new("no attempt was made");
    for attempt in 0..3 {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        match server.get_once("/version").await {
            Ok(answer) => match answer.get("etcdserver").and_then(Value::as_str) {
                Some(text) => return Ok(text.to_owned()),
                None => last = Error::new("the answer has no version"),
            },
            Err(error) => last = Error::new(crate::client::error_text(&error)),
        }
    }
    Err(last)
}

fn listed(answer: &Value) -> Vec<Listed> {
    let members = answer.get("members").and_then(Value::as_array);
    let one = |member: &Value| {
        let id = member.get("ID")?;
        let urls = |field: &str| {
            let list = member.get(field).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|url| url.as_str().map(ToOwned::to_owned)).collect()
        };
        Some(Listed {
            // 64 bit numbers are texts in this form of the API.
            id: id.as_str().and_then(|text| text.parse().ok()).or_else(|| id.as_u64())?,
            name: member.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            peer_urls: urls("peerURLs"),
            client_urls: urls("clientURLs"),
            is_learner: member.get("isLearner").and_then(Value::as_bool).unwrap_or(false),
        })
    };
    members.into_iter().flatten().filter_map(one).collect()
}

/// The members as the manifest names them: those without a name by their id, this one by the node's name.
pub fn initial_cluster(members: &[Listed], own_peer_url: &str, node: &str) -> Vec<Member> {
    let mut all = Vec::new();
    for member in members {
        let own = member.peer_urls.iter().any(|url| url == own_peer_url);
        let name = match member.name.as_str() {
            _ if own => node.to_owned(),
            "" => format!("{:x}", member.id),
            name => name.to_owned(),
        };
        all.extend(member.peer_urls.iter().map(|url| Member { name: name.clone(), peer_url: url.clone() }));
    }
    all
}

/// A host that joins the cluster of etcd.
pub struct Joining<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Address of this host.
    pub endpoint: &'a ApiEndpoint,
    /// Name of this node.
    pub node: &'a str,
    /// Timeouts.
    pub timeouts: Option<&'a Timeouts>,
    /// Patches.
    pub patches: Option<&'a Patches>,
}

impl Joining<'_> {
    /// Adds this host as a learner, starts it and makes it a voter.
    pub async fn join(&self, api: &Cluster) -> Result<()> {
        let peer_url = format!("https://{}", join_host_port(&self.endpoint.advertise_address, 2380));
        let etcd = Etcd::of_cluster(self.host, api, self.cluster).await?;
        let mut members = etcd.members().await.context("error listing etcd members")?;
        let is_own = |member: &&Listed| member.peer_urls.contains(&peer_url);
        if members.iter().find(is_own).is_none() {
            members = etcd.add_learner(&peer_url).await.context("error adding etcd member")?;
            self.host.line("[etcd] Announced new etcd member joining to the existing etcd cluster");
        }
        let Some(id) = members.iter().find(is_own).map(|member| member.id) else {
            return fail!("the new etcd member is not in the list of members");
        };
        self.host.line("[etcd] Creating static Pod manifest for \"etcd\"");
        let data = self.cluster.local_etcd().data_dir;
        self.host
            .create_directory(Path::new(&data), 0o700)
            .with_context(|| format!("failed to create etcd directory {data:?} in {MANIFESTS_DIR}"))?;
        let members = initial_cluster(&members, &peer_url, self.node);
        let inputs = Inputs {
            host: self.host,
            cluster: self.cluster,
            endpoint: self.endpoint,
            node: self.node,
            members: &members,
            timeouts: self.timeouts,
        };
        crate::phases::control_plane::write_manifest(self.host, &inputs.static_pod(), self.patches)?;
        self.promote(&etcd, id).await?;
        self.host.line("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s");
        for attempt in 1..=8 {
            let check = async { Etcd::of_cluster(self.host, api, self.cluster).await?.check().await };
            match check.await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == 8 => return fail!("timeout waiting for the new etcd member: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_secs(5)).await,
            }
        }
        Ok(())
    }

    async fn promote(&self, etcd: &Etcd, id: u64) -> Result<()> {
        let patience = self.timeouts.and_then(|t| t.etcd_api_call).map_or(Duration::from_secs(120), |p| p.0);
        let end = tokio::time::Instant::now() + patience;
        loop {
            let members = etcd.members().await.unwrap_or_default();
            let own = members.iter().find(|member| member.id == id);
            let outcome = match own {
                Some(member) if !member.is_learner => return Ok(()),
                Some(member) if !member.name.is_empty() => etcd.promote(id).await,
                _ => fail!("the etcd member has not started yet"),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > end => {
                    return fail!("error promoting etcd member {id:x}: {error}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}
