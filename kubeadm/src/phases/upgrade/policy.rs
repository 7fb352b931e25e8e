//! Which version a cluster may be upgraded to. Pure.

use crate::config::version::Version;

/// Minor versions that a kubelet may be older than the API server (version skew policy).
const KUBELET_SKEW: u32 = 3;

/// Versions that matter to an upgrade.
#[derive(Clone, Debug)]
pub struct Versions {
    /// Of the cluster, as its configuration says.
    pub cluster: Version,
    /// Of this program.
    pub kubeadm: Version,
    /// Of the kubelets, each once.
    pub kubelets: Vec<Version>,
}

/// Unstable versions that the user agreed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Alpha, beta and release candidates.
    pub experimental: bool,
    /// Release candidates.
    pub candidates: bool,
}

impl Allowed {
    /// Whether a version is stable, or of a sort that is allowed.
    pub fn covers(&self, version: &Version) -> bool {
        let is_candidate = version.pre.starts_with("rc");
        version.pre.is_empty() || self.experimental || (is_candidate && self.candidates)
    }
}

/// What speaks against a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objections {
    /// Cannot be overridden.
    pub fatal: Vec<String>,
    /// `--force` overrides them.
    pub skippable: Vec<String>,
}

impl Objections {
    /// What is printed: the worst list; with `force` only what stays fatal.
    pub fn text(&self, force: bool) -> Option<String> {
        let list = |errors: &[String]| errors.iter().map(|e| format!("\t- {e}\n")).collect::<String>();
        if !self.fatal.is_empty() {
            return Some(format!(
                "the version argument is invalid due to these fatal errors:\n\n{}",
                list(&self.fatal)
            ));
        }
        if self.skippable.is_empty() || force {
            return None;
        }
        Some(format!(
            "the version argument is invalid due to these errors:\n\n{}\nCan be bypassed if you pass the --force flag",
            list(&self.skippable)
        ))
    }
}

/// Applies the policy to a target.
pub fn objections(target: &Version, versions: &Versions, allowed: Allowed) -> Objections {
    let mut found = Objections::default();
    let (major, minor) = versions.kubeadm.minor();
    let minimum = (major, minor.saturating_sub(1));
    if target.minor() < minimum {
        let text = format!(
            "Specified version to upgrade to {:?} is equal to or lower than the minimum supported version \
            \"v{}.{}.0\". Please specify a higher version to upgrade to",
            target.to_string(),
            minimum.0,
            minimum.1
        );
        found.fatal.push(text);
    }
    skew(target, versions, &mut found);
    if target.numbers[2] > versions.kubeadm.numbers[2] && target.minor() == versions.kubeadm.minor() {
        found.skippable.push(format!(
            "Specified version to upgrade to {:?} is higher than the kubeadm version {:?}. Upgrade kubeadm first using the \
             tool you used to install kubeadm",
            target.to_string(),
            versions.kubeadm.to_string()
        ));
    }
    if versions.kubeadm.minor() > target.minor() {
        found.skippable.push(format!(
            "Kubeadm version {} can only be used to upgrade to Kubernetes version {major}.{minor}",
            versions.kubeadm
        ));
    }
    unstable(target, allowed, &mut found);
    let old: Vec<String> = versions
        .kubelets
        .iter()
        .filter(|v| v.minor().1 + KUBELET_SKEW < target.minor().1)
        .map(|v| v.to_string())
        .collect();
    if !old.is_empty() {
        let text = "There are kubelets in this cluster that are too old that have these versions";
        found.skippable.push(format!("{text} [{}]", old.join(" ")));
    }
    found
}

/// Distance in minor versions to the cluster and to kubeadm. Of prereleases it can be overridden.
fn skew(target: &Version, versions: &Versions, found: &mut Objections) {
    let mut errors = Vec::new();
    let (wanted, have) = (target.minor(), versions.cluster.minor());
    if wanted.0 != have.0 || wanted.1 > have.1 + 1 {
        errors.push(format!(
            "Specified version to upgrade to {:?} is too high; kubeadm can upgrade only 1 minor version at a time",
            target.to_string()
        ));
    } else if wanted.1 + 1 < have.1 {
        errors.push(format!(
            "Specified version to upgrade to {:?} is too low; kubeadm can downgrade only 1 minor version at a time",
            target.to_string()
        ));
    }
    if wanted > versions.kubeadm.minor() {
        errors.push(format!(
            "Specified version to upgrade to {:?} is at least one minor release higher than the kubeadm minor release ({} > \
             {}). Such an upgrade is not supported",
            target.to_string(),
            wanted.1,
            versions.kubeadm.minor().1
        ));
    }
    if target.pre.is_empty() { found.fatal.extend(errors) } else { found.skippable.extend(errors) }
}

fn unstable(target: &Version, allowed: Allowed, found: &mut Objections) {
    if allowed.covers(target) {
        return;
    }
    let flag = if target.pre.starts_with("rc") {
        "--allow-experimental-upgrades or --allow-release-candidate-upgrades"
    } else {
        "--allow-experimental-upgrades"
    };
    found.skippable.push(format!(
        "Specified version to upgrade to {:?} is an unstable version and such upgrades weren't allowed via setting the {flag} \
         flag",
        target.to_string()
    ));
}
