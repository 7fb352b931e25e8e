//! kubeconfig files.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    error::{Context, Error, Result, fail},
    host::Host,
    pki::{
        Authority, Key, Lifetime, Names, Subject, Usage,
        issue::{self, Facts},
    },
    yaml,
};

/// How a client proves who it is.
pub enum Credentials {
    /// With a certificate in the file: PEM of certificate and key.
    Certificate(String, String),
    /// With a token.
    Token(String),
    /// With a certificate in a file that changes.
    Files(PathBuf),
}

/// What a kubeconfig file is made of.
pub struct Contents<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// URL of the API server.
    pub server: &'a str,
    /// PEM of the certificate authority.
    pub ca: &'a str,
    /// Name of the user.
    pub user: &'a str,
    /// How it proves who it is.
    pub credentials: Credentials,
}

impl Contents<'_> {
    /// The file.
    pub fn to_value(&self) -> Value {
        let context = format!("{}@{}", self.user, self.cluster);
        let user = match &self.credentials {
            Credentials::Certificate(certificate, key) => json!({
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key),
            }),
            Credentials::Token(token) => json!({"token": token}),
            Credentials::Files(path) => json!({"client-certificate": path, "client-key": path}),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": self.cluster,
                "cluster": {"certificate-authority-data": STANDARD.encode(self.ca), "server": self.server},
            }],
            "contexts": [{"name": context, "context": {"cluster": self.cluster, "user": self.user}}],
            "current-context": context,
            "users": [{"name": self.user, "user": user}],
        })
    }

    /// Its text.
    pub fn to_yaml(&self) -> Result<String> {
        yaml::to_yaml(&self.to_value())
    }
}

/// A kubeconfig as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Kubeconfig(pub Value);

impl Kubeconfig {
    /// Reads a file.
    pub fn load(host: &dyn Host, path: &Path) -> Result<Self> {
        let text = host.read_text(path).with_context(|| format!("failed to load {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("failed to load {}", path.display()))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(yaml::parse(text)?))
    }

    fn named<'a>(&'a self, list: &str, name: &str, inner: &str) -> Option<&'a Value> {
        let items = self.0.get(list)?.as_array()?;
        items.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name))?.get(inner)
    }

    fn context(&self) -> Option<&Value> {
        self.named("contexts", self.0.get("current-context")?.as_str()?, "context")
    }

    /// The cluster of the current context.
    pub fn cluster(&self) -> Option<&Value> {
        let name = self.context()?.get("cluster")?.as_str()?;
        self.named("clusters", name, "cluster")
    }

    /// The only cluster, or that of the current context.
    pub fn any_cluster(&self) -> Option<&Value> {
        self.cluster().or_else(|| match self.0.get("clusters")?.as_array()?.as_slice() {
            [only] => only.get("cluster"),
            _ => None,
        })
    }

    /// The user of the current context.
    pub fn user(&self) -> Option<&Value> {
        let name = self.context()?.get("user")?.as_str()?;
        self.named("users", name, "user")
    }

    /// URL of the API server.
    pub fn server(&self) -> Option<&str> {
        self.any_cluster()?.get("server")?.as_str()
    }

    /// The certificate authorities, as PEM.
    pub fn authorities(&self, host: &dyn Host) -> Option<Vec<u8>> {
        let cluster = self.any_cluster()?;
        if let Some(data) = cluster.get("certificate-authority-data").and_then(Value::as_str) {
            return STANDARD.decode(data).ok();
        }
        host.read(Path::new(cluster.get("certificate-authority")?.as_str()?)).ok()
    }

    /// The client's certificate, as PEM.
    pub fn certificate(&self, host: &dyn Host) -> Option<Vec<u8>> {
        let user = self.user()?;
        if let Some(data) = user.get("client-certificate-data").and_then(Value::as_str) {
            return STANDARD.decode(data).ok();
        }
        host.read(Path::new(user.get("client-certificate")?.as_str()?)).ok()
    }

    /// Replaces a field of the current cluster or user.
    pub fn set(&mut self, list: &str, inner: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let field = if list == "clusters" { "cluster" } else { "user" };
        let name = self.context().and_then(|c| c.get(field)).and_then(Value::as_str).unwrap_or_default().to_owned();
        let items = self.0.get_mut(list).and_then(Value::as_array_mut);
        let item = items.and_then(|items| {
            items.iter_mut().find(|item| item.get("name").and_then(Value::as_str) == Some(name.as_str()))
        });
        if let Some(Value::Object(fields)) = item.and_then(|item| item.get_mut(inner)) {
            change(fields);
        }
    }
}

/// Client certificates inside kubeconfig files are good from the beginning of their authority's life.
pub fn lifetime_below(authority: &[u8], not_after: time::OffsetDateTime) -> Result<Lifetime> {
    Ok(Lifetime { not_before: issue::facts(authority)?.lifetime.not_before, not_after })
}

/// A new client certificate and its key.
pub fn client_credentials(
    host: &dyn Host,
    authority: &Authority,
    key: Key,
    user: &str,
    groups: &[String],
    not_after: time::OffsetDateTime,
) -> Result<Credentials> {
    let subject = Subject { common_name: user.to_owned(), organizations: groups.to_vec() };
    let lifetime = lifetime_below(&authority.certificate, not_after)?;
    let pair = authority.sign(host, key, &subject, Usage::Client, &Names::default(), lifetime)?;
    Ok(Credentials::Certificate(pair.certificate_pem(), pair.key.to_pem()?))
}

/// Whether a file that is there may stay.
pub fn check_existing(host: &dyn Host, path: &Path, ca: &[u8], server: &str) -> Result<()> {
    let existing = Kubeconfig::load(host, path)?;
    let found = existing.authorities(host).map(|pem| issue::certificates(&pem)).unwrap_or_default();
    if existing.cluster().is_none() {
        return fail!("the file {:?} has no current context or its cluster is missing", path.display().to_string());
    }
    if !found.iter().any(|certificate| certificate == ca) {
        return fail!(
            "a kubeconfig file {:?} exists but does not contain a trusted CA in its current context's cluster. Total CA \
             certificates found: {}",
            path.display().to_string(),
            found.len()
        );
    }
    if let Some(other) = existing.server().filter(|other| *other != server) {
        host.warn(&format!(
            "a kubeconfig file {:?} exists already but has an unexpected API Server URL: expected: {server}, got: {other}\n",
            path.display().to_string()
        ));
    }
    Ok(())
}

/// What is known of the certificate inside a file.
pub fn certificate_facts(host: &dyn Host, path: &Path) -> Result<Facts> {
    let file = Kubeconfig::load(host, path)?;
    let pem =
        file.certificate(host).ok_or_else(|| Error::new(format!("no client certificate in {}", path.display())))?;
    issue::facts(&issue::first_certificate(&pem)?)
}
