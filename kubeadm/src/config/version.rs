//! Versions of Kubernetes and the labels that stand for one.

use std::{fmt, time::Duration};

use crate::{
    error::{Result, fail},
    host::Host,
};

/// `vMAJOR.MINOR.PATCH[-PRE][+BUILD]`, ordered as semantic versions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major, minor and patch.
    pub numbers: [u32; 3],
    /// What follows a dash.
    pub pre: String,
    /// What follows a plus.
    pub build: String,
}

impl Version {
    /// Reads a version with or without a leading `v`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.trim().strip_prefix('v').unwrap_or(text.trim());
        let (rest, build) = rest.split_once('+').unwrap_or((rest, ""));
        let (core, pre) = rest.split_once('-').unwrap_or((rest, ""));
        let numbers: Vec<u32> = core.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        Some(Self { numbers: numbers.try_into().ok()?, pre: pre.to_owned(), build: build.to_owned() })
    }

    /// The version of this program.
    pub fn own() -> Self {
        Self::parse(runtime::version::git_version()).unwrap_or(Self {
            numbers: [1, 36, 0],
            pre: String::new(),
            build: String::new(),
        })
    }

    /// Major and minor.
    pub fn minor(&self) -> (u32, u32) {
        (self.numbers[0], self.numbers[1])
    }

    /// Numbers and whether it is a release.
    pub fn order(&self) -> ([u32; 3], bool, &str) {
        (self.numbers, self.pre.is_empty(), &self.pre)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "v{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre)?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

/// Where a label may be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// At the release server.
    Network,
    /// Nowhere: labels mean the version of this program.
    Own,
}

/// Replaces a label by a version and checks that this program can deploy it.
pub async fn resolve(host: &dyn Host, text: &str, lookup: Lookup) -> Result<String> {
    let version = match Version::parse(text) {
        Some(version) => version,
        None => of_label(host, text, lookup).await?,
    };
    let (major, minor) = Version::own().minor();
    if version.minor() < (major, minor - 1) {
        return fail!(
            "this version of kubeadm only supports deploying clusters with the control plane version >= v{major}.{}.0. \
             Current version: {version}",
            minor - 1
        );
    }
    Ok(version.to_string())
}

async fn of_label(host: &dyn Host, label: &str, lookup: Lookup) -> Result<Version> {
    let (base, name) = match label.strip_prefix("ci/").or_else(|| label.strip_prefix("ci-cross/")) {
        Some(name) => ("https://storage.googleapis.com/k8s-release-dev/ci", name),
        None => ("https://dl.k8s.io/release", label.strip_prefix("release/").unwrap_or(label)),
    };
    let word = name.split('-').next().unwrap_or_default();
    if !["stable", "latest"].contains(&word) || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
        return fail!(
            "version {label:?} doesn't match patterns for neither semantic version nor labels (stable, latest, ...)"
        );
    }
    let own = Version::own();
    if lookup == Lookup::Own {
        return Ok(own);
    }
    let url = format!("{base}/{name}.txt");
    match crate::client::fetch(&url, Duration::from_secs(10)).await.map(|text| Version::parse(&text)) {
        Ok(Some(found)) if found.minor() > own.minor() => {
            let (major, minor) = own.minor();
            host.warn(&format!("remote version is much newer: {found}; falling back to: stable-{major}.{minor}\n"));
            let url = format!("{base}/stable-{major}.{minor}.txt");
            let fallback = crate::client::fetch(&url, Duration::from_secs(10)).await;
            Ok(fallback.ok().and_then(|text| Version::parse(&text)).unwrap_or(own))
        }
        Ok(Some(found)) => Ok(found),
        other => {
            let cause = other.err().map_or_else(|| "not a version".to_owned(), |e| e.to_string());
            host.warn(&format!(
                "could not fetch a Kubernetes version from the internet: unable to get URL {url:?}: {cause}\n"
            ));
            host.warn(&format!("falling back to the local client version: {own}\n"));
            Ok(own)
        }
    }
}
