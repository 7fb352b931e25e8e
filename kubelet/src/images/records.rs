//! What is remembered of pulls: with whose credentials an image came, so that it is not used by Pods without them.
//!
//! A pull leaves an intent before it begins; a success turns it into a record. An image that has neither was there
//! before this kubelet.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Reference, parse};
use crate::checkpoint;
use crate::metrics::METRICS;

const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const INTENT: &str = "ImagePullIntent";
const RECORD: &str = "ImagePulledRecord";
/// Secrets that are remembered of one image.
const MAX_SECRETS: usize = 100;

/// Which images have to be pulled anew by Pods whose credentials were not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// None.
    Never,
    /// Those that this kubelet pulled.
    NotPreloaded,
    /// All but those of these names, and of these the ones that this kubelet pulled.
    NotAllowlisted(Vec<String>),
    /// All.
    Always,
}

impl Verification {
    /// As configured.
    pub fn new(policy: &str, allowlist: &[String]) -> Result<Self, String> {
        if policy != "NeverVerifyAllowlistedImages" && !allowlist.is_empty() {
            return Err(
                "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVerificationPolicy` is \
                 not \"NeverVerifyAllowlistedImages\""
                    .to_owned(),
            );
        }
        match policy {
            "NeverVerify" => Ok(Self::Never),
            "" | "NeverVerifyPreloadedImages" => Ok(Self::NotPreloaded),
            "AlwaysVerify" => Ok(Self::Always),
            "NeverVerifyAllowlistedImages" => {
                let bad = allowlist.iter().find(|pattern| {
                    let bare = pattern.strip_suffix("/*").unwrap_or(pattern);
                    bare.contains('*') || parse(bare).is_err() || name_of(bare).as_deref() != Some(bare)
                });
                match bad {
                    Some(pattern) => {
                        Err(format!("invalid pattern {pattern:?} in preloadedImagesVerificationAllowlist"))
                    }
                    None => Ok(Self::NotAllowlisted(allowlist.to_vec())),
                }
            }
            other => Err(format!("unknown image pull credential verification policy: {other}")),
        }
    }

    fn concerns(&self, name: &str, was_pulled: bool) -> bool {
        match self {
            Self::Never => false,
            Self::NotPreloaded => was_pulled,
            Self::Always => true,
            Self::NotAllowlisted(list) => {
                let listed = list.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => pattern == name,
                });
                was_pulled || !listed
            }
        }
    }
}

/// The name of an image without tag and digest.
fn name_of(image: &str) -> Option<String> {
    parse(image).ok().map(|reference| name(&reference))
}

fn name(reference: &Reference) -> String {
    match &reference.domain {
        Some(domain) => format!("{domain}/{}", reference.path),
        None => reference.path.clone(),
    }
}

/// Whose credentials worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Everybody's on this node: none at all, or the node's own.
    Node,
    /// Those of a Secret.
    Secret(PullSecret),
}

/// A Secret with what it holds for an image, as a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PullSecret {
    /// UID.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Hash over the credentials.
    pub credential_hash: String,
}

impl PullSecret {
    fn is_same_object(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    image_ref: String,
    /// By name of the image.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Users>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Users {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<PullSecret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_service_accounts: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

/// Why a Pod has to pull an image, or need not.
enum Check {
    /// The policy has nothing against it.
    NoConcern,
    /// Its credentials are known to be good.
    Known,
    /// They are not.
    Unknown,
    /// What is known of the image cannot be read.
    Unreadable,
}

/// The two directories. Every call blocks.
pub struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
    policy: Verification,
    /// Nothing is written down.
    forgetful: bool,
    /// Pulls under way by image; held while files change.
    running: Mutex<HashMap<String, usize>>,
}

impl Records {
    /// Files below a directory.
    pub fn new(dir: &Path, policy: Verification) -> Self {
        let (pulling, pulled) = (dir.join("pulling"), dir.join("pulled"));
        Self { pulling, pulled, policy, forgetful: false, running: Mutex::default() }
    }

    /// No records at all: every image is everybody's.
    pub fn none(dir: &Path) -> Self {
        Self { forgetful: true, ..Self::new(dir, Verification::Never) }
    }

    /// Makes the directories. Pulls that another kubelet was killed in may have come to their end nevertheless: their
    /// images count as pulled, with credentials of which nothing is known. `images` has ids with all names.
    pub fn recover(&self, images: &[(String, Vec<String>)]) -> io::Result<()> {
        if self.forgetful {
            return Ok(());
        }
        for dir in [&self.pulling, &self.pulled] {
            fs::create_dir_all(dir)?;
        }
        let _held = self.running.lock();
        for entry in fs::read_dir(&self.pulling)?.flatten() {
            let intent = checkpoint::read(&entry.path(), |intent: &Intent| intent.kind == INTENT);
            let Ok(Some(intent)) = intent else { continue };
            for (id, names) in images.iter().filter(|(_, names)| names.contains(&intent.image)) {
                tracing::info!(image = intent.image, id, names = names.len(), "a pull that nobody saw the end of");
                self.add(&intent.image, id, None)?;
            }
            fs::remove_file(entry.path())?;
        }
        self.count();
        Ok(())
    }

    /// A pull begins.
    pub fn begin(&self, image: &str) -> io::Result<()> {
        if self.forgetful {
            return Ok(());
        }
        let mut running = self.running.lock();
        let count = running.entry(image.to_owned()).or_default();
        *count += 1;
        if *count > 1 {
            return Ok(());
        }
        let intent = Intent { kind: INTENT.to_owned(), api_version: VERSION.to_owned(), image: image.to_owned() };
        fs::create_dir_all(&self.pulling)?;
        checkpoint::write(&self.pulling.join(file_name(image)), &serde_json::to_vec(&intent)?)?;
        self.count();
        Ok(())
    }

    /// A pull ended: with what it brought and whose credentials worked, or with nothing.
    pub fn end(&self, image: &str, brought: Option<(&str, Source)>) -> io::Result<()> {
        if self.forgetful {
            return Ok(());
        }
        let mut running = self.running.lock();
        if let Some((id, source)) = brought {
            fs::create_dir_all(&self.pulled)?;
            self.add(image, id, Some(source))?;
        }
        let left = running.get_mut(image).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left > 0 {
            return Ok(());
        }
        running.remove(image);
        let removed = fs::remove_file(self.pulling.join(file_name(image)));
        self.count();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self, id: &str) -> io::Result<Option<Record>> {
        let whole = |record: &Record| record.kind == RECORD && record.image_ref == id;
        checkpoint::read(&self.pulled.join(file_name(id)), whole)
    }

    /// Adds what is known of an image, with the lock held.
    fn add(&self, image: &str, id: &str, source: Option<Source>) -> io::Result<()> {
        let Some(name) = name_of(image) else { return Ok(()) };
        let known = self.read(id).unwrap_or_else(|error| {
            tracing::warn!(id, %error, "record of an image is written anew");
            None
        });
        let mut record = known.clone().unwrap_or_else(|| Record {
            kind: RECORD.to_owned(),
            api_version: VERSION.to_owned(),
            last_updated_time: Timestamp::now(),
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        });
        let users = record.credential_mapping.entry(name).or_default();
        match source {
            None => {}
            Some(Source::Node) => {
                *users = Users { node_pods_accessible: true, ..Users::default() };
            }
            Some(Source::Secret(_)) if users.node_pods_accessible => {}
            Some(Source::Secret(secret)) => {
                let all = &mut users.kubernetes_secrets;
                match all.iter().position(|one| one.is_same_object(&secret)) {
                    Some(at) => all[at] = secret,
                    None if all.len() < MAX_SECRETS => all.push(secret),
                    None => {}
                }
            }
        }
        if known.as_ref() == Some(&record) {
            return Ok(());
        }
        record.last_updated_time = Timestamp::now();
        let text = serde_json::to_vec(&record)?;
        checkpoint::write(&self.pulled.join(file_name(id)), &text)
    }

    /// Whether a Pod with these Secrets has to pull an image that is there already.
    pub fn must_pull(&self, reference: &Reference, id: &str, secrets: &[PullSecret]) -> io::Result<bool> {
        let checked = self.check(reference, id, secrets);
        let label = match &checked {
            Ok(Check::NoConcern) => "credentialPolicyAllowed",
            Ok(Check::Known) => "credentialRecordFound",
            Ok(Check::Unknown) => "mustAuthenticate",
            Ok(Check::Unreadable) | Err(_) => "error",
        };
        METRICS.images.checks.with_label_values(&[label]).inc();
        Ok(matches!(checked?, Check::Unknown | Check::Unreadable))
    }

    fn check(&self, reference: &Reference, id: &str, secrets: &[PullSecret]) -> io::Result<Check> {
        if self.policy == Verification::Never {
            return Ok(Check::NoConcern);
        }
        let _held = self.running.lock();
        let record = match self.read(id) {
            Ok(record) => record,
            Err(error) => {
                // Pulled it was, but nobody knows by whom.
                tracing::warn!(id, %error, "record of an image cannot be read");
                return Ok(Check::Unreadable);
            }
        };
        let image = &reference.normalized;
        let was_pulled = record.is_some() || self.pulling.join(file_name(image)).exists();
        let name = name(reference);
        if !self.policy.concerns(&name, was_pulled) {
            return Ok(Check::NoConcern);
        }
        let users = record.and_then(|mut record| record.credential_mapping.remove(&name));
        let Some(users) = users else { return Ok(Check::Unknown) };
        if users.node_pods_accessible {
            return Ok(Check::Known);
        }
        for own in secrets {
            let same_hash =
                |one: &&PullSecret| !one.credential_hash.is_empty() && one.credential_hash == own.credential_hash;
            let known = users.kubernetes_secrets.iter();
            if known.clone().any(|one| same_hash(&one) || one.is_same_object(own)) {
                if !known.clone().any(|one| one == own) {
                    self.add(image, id, Some(Source::Secret(own.clone())))?;
                }
                return Ok(Check::Known);
            }
        }
        Ok(Check::Unknown)
    }

    /// Tells how many files there are.
    fn count(&self) {
        for (dir, gauge) in [(&self.pulling, &METRICS.images.intents), (&self.pulled, &METRICS.images.records)] {
            let count = fs::read_dir(dir).into_iter().flatten().flatten().count();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Forgets images that are not there any more, as of some time.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool, until: Timestamp) -> io::Result<()> {
        let _held = self.running.lock();
        let entries = match fs::read_dir(&self.pulled) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries.flatten() {
            let record = checkpoint::read(&entry.path(), |record: &Record| record.kind == RECORD);
            let keeps = match record {
                Ok(Some(record)) => record.last_updated_time > until || is_there(&record.image_ref),
                Ok(None) => true,
                Err(_) => false,
            };
            if !keeps {
                fs::remove_file(entry.path())?;
            }
        }
        self.count();
        Ok(())
    }
}

fn file_name(of: &str) -> String {
    format!("sha256-{}", hex::encode(Sha256::digest(of.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, hash: &str) -> PullSecret {
        let (uid, namespace) = (format!("{name}-uid"), "n".to_owned());
        PullSecret { uid, namespace, name: name.into(), credential_hash: hash.into() }
    }

    #[test]
    fn images_are_for_those_whose_credentials_brought_them() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path(), Verification::NotPreloaded);
        records.recover(&[]).unwrap();
        let image = parse("reg.io/team/app:1").unwrap();
        let must = |secrets: &[PullSecret]| records.must_pull(&image, "id", secrets).unwrap();
        assert!(!must(&[]), "it was there before");
        records.begin(&image.normalized).unwrap();
        assert!(must(&[]), "it may have come from this pull");
        let source = Source::Secret(secret("a", "1"));
        records.end(&image.normalized, Some(("id", source))).unwrap();
        assert!(must(&[]));
        assert!(!must(&[secret("a", "2")]), "the same Secret with other contents");
        assert!(!must(&[secret("b", "2")]), "another Secret with the same contents");
        assert!(must(&[secret("c", "3")]));
        let other = parse("reg.io/other/app:1").unwrap();
        assert!(records.must_pull(&other, "id", &[secret("a", "1")]).unwrap(), "another name of it");
        records.begin(&image.normalized).unwrap();
        records.end(&image.normalized, Some(("id", Source::Node))).unwrap();
        assert!(!must(&[]), "it is everybody's now");
        assert_eq!(fs::read_dir(dir.path().join("pulling")).unwrap().count(), 0);
        records.retain(|_| true, Timestamp::MAX).unwrap();
        assert!(records.read("id").unwrap().is_some());
        records.retain(|_| false, Timestamp::MAX).unwrap();
        assert!(!must(&[]));
    }

    #[test]
    fn a_pull_that_nobody_saw_the_end_of_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Records::new(dir.path(), Verification::NotPreloaded);
        let image = parse("reg.io/team/app:1").unwrap();
        open().begin(&image.normalized).unwrap();
        open().recover(&[("id".to_owned(), vec![image.normalized.clone()])]).unwrap();
        assert!(open().must_pull(&image, "id", &[secret("a", "1")]).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("pulling")).unwrap().count(), 0);
    }

    #[test]
    fn policies() {
        let list = ["reg.io/base".to_owned(), "reg.io/kept/*".to_owned()];
        let listed = Verification::new("NeverVerifyAllowlistedImages", &list).unwrap();
        for (name, was_pulled, expected) in [
            ("reg.io/base", false, [false, false, false, true]),
            ("reg.io/base", true, [false, true, true, true]),
            ("reg.io/kept/a", false, [false, false, false, true]),
            ("reg.io/base2", false, [false, false, true, true]),
        ] {
            let all = [Verification::Never, Verification::NotPreloaded, listed.clone(), Verification::Always];
            assert_eq!(all.map(|policy| policy.concerns(name, was_pulled)), expected, "{name} {was_pulled}");
        }
        assert!(Verification::new("Sometimes", &[]).is_err());
        assert!(Verification::new("AlwaysVerify", &list).is_err());
        for bad in ["reg.io/*/a", "reg.io/a:1", "*"] {
            assert!(Verification::new("NeverVerifyAllowlistedImages", &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
