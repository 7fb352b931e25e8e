//! `--admission-control-config-file`: what the operator sets of admission plugins.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use generic::remote::RemoteError;
use registry::connect::credentials::Credentials;
use rules::pod_security::Policy;
use runtime::{
    clock::Clock,
    config_file::{self, ConfigError},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    event_rate::Limit,
    image_policy::{ImagePolicyFile, ImagePolicySettings, ImageReviewer},
    node_selector::NodeSelectorFile,
    tolerations::TolerationsFile,
};

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
const POD_SECURITY: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

/// Why a configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file, or one that it names.
    #[error("failed to read plugin config: {0}")]
    File(#[from] ConfigError),
    /// What it says of one plugin.
    #[error("couldn't init admission plugin {0:?}: {1}")]
    Plugin(String, String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    plugins: Vec<PluginFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginFile {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    configuration: Option<Value>,
}

/// What the operator sets of admission plugins.
#[derive(Default)]
pub(crate) struct Settings {
    pub(super) pod_security: PodSecuritySettings,
    pub(super) limited: Vec<LimitedResource>,
    /// Absent where nothing is said: the plugin does not run then.
    pub(super) event_rate: Option<Vec<Limit>>,
    /// Absent where nothing is said: the plugin does not run then.
    pub(super) image_policy: Option<ImagePolicySettings>,
    /// Who is asked about images, once [`Settings::connect`] has found it.
    pub(super) image_reviewer: Option<Arc<ImageReviewer>>,
    pub(super) node_selectors: NodeSelectorFile,
    pub(super) tolerations: TolerationsFile,
    pub(super) mutating: Credentials,
    pub(super) validating: Credentials,
}

/// `PodSecurityConfiguration`.
#[derive(Clone, Debug)]
pub(super) struct PodSecuritySettings {
    /// Where namespaces say nothing.
    pub(super) defaults: Policy,
    pub(super) exemptions: Exemptions,
}

impl Default for PodSecuritySettings {
    fn default() -> Self {
        Self { defaults: Policy::DEFAULT, exemptions: Exemptions::default() }
    }
}

/// Who and what is not checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Exemptions {
    pub(super) usernames: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) runtime_classes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PodSecurityFile {
    defaults: PodSecurityDefaults,
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct PodSecurityDefaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

impl PodSecurityFile {
    fn settings(self) -> Result<PodSecuritySettings, String> {
        let given = &self.defaults;
        let label = |key: &str| {
            let text = match key.rsplit_once('/')?.1 {
                "enforce" => &given.enforce,
                "enforce-version" => &given.enforce_version,
                "audit" => &given.audit,
                "audit-version" => &given.audit_version,
                "warn" => &given.warn,
                "warn-version" => &given.warn_version,
                _ => return None,
            };
            Some(text.as_str()).filter(|text| !text.is_empty())
        };
        let (mut defaults, errors) = Policy::of(label);
        if !errors.is_empty() {
            let causes = errors.into_causes();
            let texts: Vec<String> = causes.iter().map(|cause| cause.message.clone()).collect();
            return Err(format!("[{}]", texts.join(", ")));
        }
        // Unlike the labels of a namespace, defaults warn of nothing that they are not told to warn of.
        if given.warn.is_empty() {
            defaults.warn = Policy::DEFAULT.warn;
        }
        Ok(PodSecuritySettings { defaults, exemptions: self.exemptions })
    }
}

/// A resource that cannot be used in namespaces whose quotas do not cover it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct LimitedResource {
    pub(super) api_group: String,
    pub(super) resource: String,
    /// Parts of the names under which usage is counted.
    pub(super) match_contains: Vec<String>,
    /// Scopes, as in a quota's `scopeSelector`.
    pub(super) match_scopes: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct QuotaFile {
    limited_resources: Vec<LimitedResource>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EventRateFile {
    limits: Vec<Limit>,
}

/// Without a version, and what is not known is passed over.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ImagesFile {
    image_policy: ImagePolicyFile,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WebhookFile {
    kube_config_file: Option<PathBuf>,
}

impl Settings {
    /// Reads a file. Others that it names are found from its directory.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigurationError> {
        let read: File = config_file::decode(&config_file::read(file)?, &VERSIONS, "AdmissionConfiguration")?;
        let directory = file.parent().unwrap_or(Path::new("."));
        let mut settings = Self::default();
        for plugin in read.plugins {
            let text = match &plugin.configuration {
                Some(inline) => inline.to_string(),
                None if plugin.path.is_empty() => continue,
                None => config_file::read(&directory.join(&plugin.path))?,
            };
            settings
                .take(&plugin.name, &text, directory)
                .map_err(|why| ConfigurationError::Plugin(plugin.name.clone(), why))?;
        }
        Ok(settings)
    }

    /// Finds who is asked.
    pub(crate) async fn connect(&mut self, clock: Arc<dyn Clock>) -> Result<(), ConfigurationError> {
        let Some(settings) = &self.image_policy else { return Ok(()) };
        let wrong = |error: RemoteError| ConfigurationError::Plugin("ImagePolicyWebhook".into(), error.to_string());
        self.image_reviewer = Some(Arc::new(ImageReviewer::new(settings.clone(), clock).await.map_err(wrong)?));
        Ok(())
    }

    fn take(&mut self, plugin: &str, text: &str, directory: &Path) -> Result<(), String> {
        let wrong = |error: ConfigError| error.to_string();
        match plugin {
            "PodSecurity" => {
                let read: PodSecurityFile =
                    config_file::decode(text, &POD_SECURITY, "PodSecurityConfiguration").map_err(wrong)?;
                self.pod_security = read.settings()?;
            }
            "ResourceQuota" => {
                let (versions, kind) = match text.contains("resourcequota.admission.k8s.io/") {
                    true => (
                        [
                            "resourcequota.admission.k8s.io/v1",
                            "resourcequota.admission.k8s.io/v1beta1",
                            "resourcequota.admission.k8s.io/v1alpha1",
                        ],
                        "Configuration",
                    ),
                    false => (["apiserver.config.k8s.io/v1"; 3], "ResourceQuotaConfiguration"),
                };
                let read: QuotaFile = config_file::decode(text, &versions, kind).map_err(wrong)?;
                if read.limited_resources.iter().any(|limited| limited.resource.is_empty()) {
                    return Err("limitedResources: resource: Required value".into());
                }
                self.limited = read.limited_resources;
            }
            "EventRateLimit" => {
                let versions = ["eventratelimit.admission.k8s.io/v1alpha1"];
                let read: EventRateFile = config_file::decode(text, &versions, "Configuration").map_err(wrong)?;
                let problems: Vec<String> =
                    read.limits.iter().enumerate().flat_map(|(at, limit)| limit.problems(at)).collect();
                match problems.is_empty() {
                    true if read.limits.is_empty() => return Err("limits: Invalid value: []: must not be empty".into()),
                    true => self.event_rate = Some(read.limits),
                    false => return Err(format!("[{}]", problems.join(", "))),
                }
            }
            "ImagePolicyWebhook" => {
                let read: ImagesFile = unversioned(text)?;
                self.image_policy = Some(read.image_policy.settings(directory)?);
            }
            "PodNodeSelector" => self.node_selectors = unversioned(text)?,
            "PodTolerationRestriction" => {
                let versions = ["podtolerationrestriction.admission.k8s.io/v1alpha1"];
                let read: TolerationsFile = config_file::decode(text, &versions, "Configuration").map_err(wrong)?;
                match read.problems().as_slice() {
                    [] => self.tolerations = read,
                    [one] => return Err(one.clone()),
                    all => return Err(format!("[{}]", all.join(", "))),
                }
            }
            "MutatingAdmissionWebhook" => self.mutating = credentials(text, directory)?,
            "ValidatingAdmissionWebhook" => self.validating = credentials(text, directory)?,
            other => tracing::warn!(plugin = other, "this admission plugin has no configuration"),
        }
        Ok(())
    }
}

fn unversioned<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let (value, _) = machinery::decode::decode_yaml(text.as_bytes()).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn credentials(text: &str, directory: &Path) -> Result<Credentials, String> {
    let (versions, kind) = match text.contains("WebhookAdmissionConfiguration") {
        true => (VERSIONS, "WebhookAdmissionConfiguration"),
        false => (["apiserver.config.k8s.io/v1alpha1"; 2], "WebhookAdmission"),
    };
    let read: WebhookFile = config_file::decode(text, &versions, kind).map_err(|error| error.to_string())?;
    match read.kube_config_file {
        None => Ok(Credentials::default()),
        Some(file) if file.as_os_str().is_empty() => Ok(Credentials::default()),
        Some(file) => Credentials::read(&directory.join(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("rates.yaml"),
            "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\n\
             limits: [{type: Namespace, qps: 50, burst: 100}]\n",
        )
        .unwrap();
        let file = dir.path().join("admission.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        std::fs::write(&file, format!("{head}{text}")).unwrap();
        Settings::read(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn plugins_are_configured_in_place_or_by_a_file() {
        let settings = read(
            "plugins:\n- name: EventRateLimit\n  path: rates.yaml\n- name: PodSecurity\n  configuration:\n    \
             apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    \
             defaults: {enforce: baseline, enforce-version: v1.30}\n    exemptions: {namespaces: [kube-system]}\n\
             - name: ResourceQuota\n  configuration:\n    apiVersion: apiserver.config.k8s.io/v1\n    \
             kind: ResourceQuotaConfiguration\n    limitedResources: [{resource: pods, matchContains: [cpu]}]\n",
        );
        let settings = settings.map_err(|why| panic!("{why}")).unwrap();
        assert_eq!(settings.event_rate.map(|limits| limits.len()), Some(1));
        assert_eq!(settings.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(settings.pod_security.defaults.warn.to_string(), "privileged:latest");
        assert_eq!(settings.pod_security.exemptions.namespaces, ["kube-system"]);
        assert_eq!(settings.limited[0].match_contains, ["cpu"]);
    }

    #[test]
    fn plugins_without_a_version_are_configured_too() {
        let settings = read(
            "plugins:\n- name: PodNodeSelector\n  configuration:\n    podNodeSelectorPluginConfig: {a: b=c}\n\
             - name: ImagePolicyWebhook\n  configuration:\n    imagePolicy: {kubeConfigFile: k, denyTTL: 50}\n\
             - name: PodTolerationRestriction\n  configuration:\n    kind: Configuration\n    \
             apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1\n    default: [{key: a, operator: Exists}]\n",
        );
        let settings = settings.map_err(|why| panic!("{why}")).unwrap();
        assert_eq!(settings.node_selectors.pod_node_selector_plugin_config["a"], "b=c");
        assert!(settings.image_policy.is_some());
        assert!(settings.tolerations.problems().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, why) in [
            (
                "plugins: [{name: ImagePolicyWebhook, configuration: {imagePolicy: {allowTTL: 3600}}}]\n",
                "couldn't init admission plugin \"ImagePolicyWebhook\": valid value is between 1s and 30m0s, got 1h0m0s",
            ),
            (
                "plugins: [{name: PodTolerationRestriction, configuration: {kind: Configuration, whitelist: [{key: a, \
                 operator: X}], apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1}}]\n",
                "podtolerationrestriction.whitelist[0].operator: Unsupported value: \"X\"",
            ),
            ("plugin: []\n", "unknown field \"plugin\""),
            ("plugins: [{name: EventRateLimit, path: absent}]\n", "failed to read config file"),
            (
                "plugins: [{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, \
                 kind: PodSecurityConfiguration, defaults: {enforce: strict}}}]\n",
                "must be one of privileged, baseline, restricted",
            ),
            (
                "plugins: [{name: PodSecurity, configuration: {apiVersion: v1, kind: Pod}}]\n",
                "no kind \"Pod\" is registered",
            ),
        ] {
            let told = read(text).err().unwrap_or_default();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
