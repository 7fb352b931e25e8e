//! Registry credentials from Secrets and node files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Reference;
use crate::cri::v1;

const DEFAULT_REGISTRY: &str = "index.docker.io";
const MAX_FILE: u64 = 1 << 20;

/// Where a node may keep its credentials, in the order in which they are looked for.
pub fn node_files(root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let (here, top) = (Path::new("."), Path::new("/"));
    let json = [
        Some(root.to_owned()),
        Some(here.to_owned()),
        home.map(|home| home.join(".docker")),
        Some(top.join(".docker")),
    ];
    let old = [Some(root), Some(here), home, Some(top)];
    let json = json.into_iter().flatten().map(|dir| dir.join("config.json"));
    json.chain(old.into_iter().flatten().map(|dir| dir.join(".dockercfg"))).collect()
}

/// A user at a registry. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    username: String,
    password: String,
}

impl Credential {
    pub(super) fn new(username: String, password: String) -> Self {
        Self { username, password }
    }

    /// A hash that tells whether two are the same.
    pub(super) fn hash(&self) -> String {
        let fields = [("username", &self.username), ("password", &self.password)];
        let given: BTreeMap<_, _> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        hex::encode(Sha256::digest(serde_json::json!(given).to_string()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl From<Credential> for v1::AuthConfig {
    fn from(from: Credential) -> Self {
        Self { username: from.username, password: from.password, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Entry {
    fn credential(self) -> Option<Credential> {
        if self.auth.is_empty() {
            return Some(Credential { username: self.username, password: self.password });
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        let password = password.trim_matches('\0').to_owned();
        Some(Credential { username: username.to_owned(), password })
    }
}

/// Credentials by registry pattern; those found first are tried first.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: BTreeMap<String, Vec<Credential>>,
}

impl Keyring {
    /// From Secrets, then from the node's files.
    pub fn new<'a>(secrets: impl Iterator<Item = &'a Secret>, files: &[&Path]) -> Self {
        let mut ring = Self::default();
        for secret in secrets {
            let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
            match secret.type_.as_deref() {
                Some("kubernetes.io/dockerconfigjson") => ring.add_json(data(".dockerconfigjson").unwrap_or_default()),
                Some("kubernetes.io/dockercfg") => ring.add_map(data(".dockercfg").unwrap_or_default()),
                _ => false,
            };
        }
        // The first file that is one counts.
        for path in files {
            let dir = path.parent().unwrap_or(Path::new("/"));
            let name = path.file_name().map(Path::new).unwrap_or(Path::new(""));
            if let Ok(bytes) = runtime::beneath::read(dir, name, MAX_FILE) {
                let is_json = path.extension().is_some_and(|extension| extension == "json");
                let is_taken = if is_json { ring.add_json(&bytes) } else { ring.add_map(&bytes) };
                if is_taken {
                    break;
                }
                tracing::warn!(path = %path.display(), "credentials for registries that cannot be read");
            }
        }
        ring
    }

    /// Whether that was what it should be.
    fn add_json(&mut self, bytes: &[u8]) -> bool {
        let config = serde_json::from_slice::<DockerConfigJson>(bytes);
        config.map(|config| self.add_all(config.auths)).is_ok()
    }

    /// Whether that was what it should be.
    fn add_map(&mut self, bytes: &[u8]) -> bool {
        serde_json::from_slice(bytes).map(|entries| self.add_all(entries)).is_ok()
    }

    /// From logins by registry.
    pub(super) fn of(logins: impl Iterator<Item = (String, Credential)>) -> Self {
        let mut ring = Self::default();
        logins.for_each(|(registry, credential)| ring.add(&registry, credential));
        ring
    }

    fn add(&mut self, registry: &str, credential: Credential) {
        let list = self.entries.entry(pattern(registry)).or_default();
        if !list.contains(&credential) {
            list.push(credential);
        }
    }

    fn add_all(&mut self, entries: BTreeMap<String, Entry>) {
        for (registry, entry) in entries {
            if let Some(credential) = entry.credential() {
                self.add(&registry, credential);
            }
        }
    }

    /// Credentials to try for an image, most specific registry first.
    pub fn lookup(&self, image: &Reference) -> Vec<Credential> {
        let is_default = matches!(image.domain.as_deref(), None | Some("docker.io" | "index.docker.io"));
        let target = match &image.domain {
            Some(domain) => format!("{domain}/{}", image.path),
            None => image.path.clone(),
        };
        let matching = self.entries.iter().rev().filter(|(pattern, _)| matches(pattern, &target));
        let found: Vec<Credential> = matching.flat_map(|(_, list)| list.iter().cloned()).collect();
        if found.is_empty() && is_default {
            return self.entries.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }
}

/// A registry key without scheme and API version.
pub(super) fn pattern(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path
        .strip_prefix("v1")
        .or_else(|| path.strip_prefix("v2"))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path);
    let path = path.trim_matches('/');
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Labels match one by one with `*` inside them; ports must be equal; the path must begin with the key's.
pub(super) fn matches(pattern: &str, target: &str) -> bool {
    let (pattern_host, pattern_path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (target_host, target_path) = target.split_once('/').unwrap_or((target, ""));
    if !target_path.starts_with(pattern_path) {
        return false;
    }
    let split = |host: &str| -> (Vec<String>, Option<String>) {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (host, None),
        };
        (name.split('.').map(str::to_owned).collect(), port)
    };
    let ((labels, port), (target_labels, target_port)) = (split(pattern_host), split(target_host));
    port == target_port
        && labels.len() == target_labels.len()
        && labels.iter().zip(&target_labels).all(|(label, text)| glob(label.as_bytes(), text.as_bytes()))
}

/// Patterns come from whoever may write a Secret: only the last star is ever tried again.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(next) {
            Some(b'*') => {
                star = Some((next, at));
                next += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[at] => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((position, taken)) = star else { return false };
                star = Some((position, taken + 1));
                at = taken + 1;
                next = position + 1;
            }
        }
    }
    pattern[next..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::parse;

    fn secret(json: &str) -> Secret {
        let data = STANDARD.encode(json);
        serde_json::from_value(serde_json::json!({
            "type": "kubernetes.io/dockerconfigjson", "data": { ".dockerconfigjson": data } }))
        .unwrap()
    }

    #[test]
    fn stars_stand_for_anything_and_cost_little() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*b?", "aabbc", true),
            ("?", "", false),
            ("a", "ab", false),
            ("*a*b*", "xxaxxbxx", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(!glob(&b"*a".repeat(100), &b"a".repeat(99)));
    }

    #[test]
    fn the_first_file_of_the_node_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (root, home) = (dir.path().join("root"), dir.path().join("home"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(home.join(".docker")).unwrap();
        let files = node_files(&root, Some(&home));
        assert_eq!(files[2], home.join(".docker/config.json"));
        assert_eq!(files.last().unwrap(), Path::new("/.dockercfg"));
        let own = |name: &str| format!(r#"{{"reg.io":{{"username":"{name}","password":"x"}}}}"#);
        let user = || {
            let files: Vec<&Path> = [&files[0], &files[2], &files[4]].map(PathBuf::as_path).to_vec();
            let found = Keyring::new(std::iter::empty(), &files).lookup(&parse("reg.io/x").unwrap());
            found.into_iter().map(|credential| credential.username).collect::<Vec<_>>()
        };
        std::fs::write(&files[4], own("old")).unwrap();
        assert_eq!(user(), ["old"]);
        std::fs::write(&files[2], format!(r#"{{"auths":{}}}"#, own("home"))).unwrap();
        assert_eq!(user(), ["home"]);
        std::fs::write(&files[0], "no json").unwrap();
        assert_eq!(user(), ["home"]);
    }

    #[test]
    fn finds_the_most_specific() {
        let auth = STANDARD.encode("bob:pa:ss");
        let secret = secret(&format!(
            r#"{{"auths":{{"https://reg.io/v1/":{{"auth":"{auth}"}},"*.example.com":{{"username":"star","password":"x"}},
                "reg.io/team":{{"username":"team","password":"y"}},"index.docker.io":{{"username":"hub","password":"z"}}}}}}"#
        ));
        let ring = Keyring::new([&secret].into_iter(), &[]);
        let users = |image: &str| -> Vec<String> {
            ring.lookup(&parse(image).unwrap()).into_iter().map(|credential| credential.username).collect()
        };
        assert_eq!(users("reg.io/team/app"), ["team", "bob"]);
        assert_eq!(users("reg.io/other"), ["bob"]);
        assert_eq!(users("a.example.com/x"), ["star"]);
        assert!(users("a.b.example.com/x").is_empty());
        assert!(users("reg.io:5000/x").is_empty());
        assert_eq!(users("busybox"), ["hub"]);
        assert_eq!(format!("{:?}", ring.lookup(&parse("busybox").unwrap())), "[Credential(..)]");
    }
}
