//! `AuthenticationConfiguration` of `apiserver.config.k8s.io`, and what may be wrong with it.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde::Deserialize;
use serde_json::json;

/// apiVersions of the file.
pub const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// Its kind.
pub const KIND: &str = "AuthenticationConfiguration";
const MOST_ISSUERS: usize = 64;

/// The file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    /// Issuers of JSON web tokens.
    pub jwt: Vec<JwtAuthenticator>,
    /// Requests without credentials; as the flags say if absent.
    pub anonymous: Option<AnonymousConfig>,
}

/// Requests without credentials.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousConfig {
    /// Whether there may be any.
    pub enabled: bool,
    /// Where; everywhere if empty.
    pub conditions: Vec<AnonymousCondition>,
}

/// A path.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousCondition {
    /// The path, as it is.
    pub path: String,
}

/// An issuer whose tokens are accepted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct JwtAuthenticator {
    /// Who.
    pub issuer: Issuer,
    /// What must hold for the claims.
    pub claim_validation_rules: Vec<ClaimRule>,
    /// The user that claims stand for.
    pub claim_mappings: ClaimMappings,
    /// What must hold for the user.
    pub user_validation_rules: Vec<UserRule>,
}

/// An issuer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Issuer {
    /// `iss` of its tokens.
    pub url: String,
    /// Where its configuration is, if not below the URL.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// Authorities of its server, PEM.
    #[serde(rename = "certificateAuthority")]
    pub certificate_authority: String,
    /// Audiences, of which a token must have one.
    pub audiences: Vec<String>,
    /// `MatchAny`.
    #[serde(rename = "audienceMatchPolicy")]
    pub audience_match_policy: String,
    /// Not served.
    #[serde(rename = "egressSelectorType")]
    pub egress_selector_type: String,
}

/// A rule on claims.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClaimRule {
    /// A claim, which must have
    pub claim: String,
    /// this value; or
    pub required_value: String,
    /// an expression that must hold.
    pub expression: String,
    /// What to say if it does not.
    pub message: String,
}

/// A rule on users.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct UserRule {
    /// An expression that must hold.
    pub expression: String,
    /// What to say if it does not.
    pub message: String,
}

/// How claims become a user.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimMappings {
    /// Name.
    pub username: Mapping,
    /// Groups.
    pub groups: Mapping,
    /// Uid.
    pub uid: Mapping,
    /// Extra attributes.
    pub extra: Vec<ExtraMapping>,
}

/// A claim or an expression.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// The claim.
    pub claim: String,
    /// What is put in front of it.
    pub prefix: Option<String>,
    /// The expression.
    pub expression: String,
}

impl Mapping {
    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.claim.is_empty() && self.expression.is_empty()
    }
}

/// An extra attribute.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ExtraMapping {
    /// Its key.
    pub key: String,
    /// Its value, or values.
    pub value_expression: String,
}

impl AuthenticationConfiguration {
    /// All that is wrong, expressions aside. `reserved` are issuers of the server itself.
    pub fn validate(&self, reserved: &[String]) -> ErrorList {
        let mut errors = ErrorList::default();
        let root = Path::new("jwt");
        if self.jwt.len() > MOST_ISSUERS {
            errors.too_many(&root, self.jwt.len(), MOST_ISSUERS);
        }
        let (mut urls, mut discoveries) = (HashSet::new(), HashSet::new());
        for (at, jwt) in self.jwt.iter().enumerate() {
            let path = root.index(at);
            let issuer = path.child("issuer");
            if !urls.insert(&jwt.issuer.url) {
                errors.duplicate(&issuer.child("url"), &json!(jwt.issuer.url));
            }
            if let Some(discovery) = jwt.issuer.discovery_url.as_ref().filter(|url| !url.is_empty())
                && !discoveries.insert(discovery)
            {
                errors.duplicate(&issuer.child("discoveryURL"), &json!(discovery));
            }
            jwt.issuer.validate(reserved, &issuer, &mut errors);
            jwt.validate_rules(&path, &mut errors);
            jwt.claim_mappings.validate(&path.child("claimMappings"), &mut errors);
        }
        if let Some(anonymous) = &self.anonymous {
            let path = Path::new("anonymous").child("conditions");
            if !anonymous.enabled && !anonymous.conditions.is_empty() {
                errors.invalid(
                    &path,
                    &json!(anonymous.conditions.iter().map(|c| &c.path).collect::<Vec<_>>()),
                    "enabled should be set to true when conditions are defined",
                );
            }
        }
        errors
    }
}

fn check_url(url: &str, path: &Path, errors: &mut ErrorList) {
    if url.is_empty() {
        errors.required(path, "URL is required");
        return;
    }
    let Ok(parsed) = url.parse::<http::Uri>() else {
        errors.invalid(path, &json!(url), "invalid URL");
        return;
    };
    if parsed.scheme_str() != Some("https") {
        errors.invalid(path, &json!(url), "URL scheme must be https");
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        errors.invalid(path, &json!(url), "URL must not contain a username or password");
    }
    if parsed.query().is_some() {
        errors.invalid(path, &json!(url), "URL must not contain a query");
    }
    if url.contains('#') {
        errors.invalid(path, &json!(url), "URL must not contain a fragment");
    }
}

impl Issuer {
    fn validate(&self, reserved: &[String], path: &Path, errors: &mut ErrorList) {
        check_url(&self.url, &path.child("url"), errors);
        if reserved.contains(&self.url) {
            let text = format!("URL must not overlap with disallowed issuers: [{}]", reserved.join(" "));
            errors.invalid(&path.child("url"), &json!(self.url), &text);
        }
        if let Some(discovery) = self.discovery_url.as_ref().filter(|url| !url.is_empty()) {
            let path = path.child("discoveryURL");
            if discovery.trim_end_matches('/') == self.url.trim_end_matches('/') {
                errors.invalid(&path, &json!(discovery), "discoveryURL must be different from URL");
            }
            check_url(discovery, &path, errors);
        }
        let audiences = path.child("audiences");
        if self.audiences.is_empty() {
            errors.required(&audiences, &format!("at least one {audiences} is required"));
        }
        let mut seen = HashSet::new();
        for (at, audience) in self.audiences.iter().enumerate() {
            let path = audiences.index(at);
            if audience.is_empty() {
                errors.required(&path, "audience can't be empty");
            }
            if !seen.insert(audience) {
                errors.duplicate(&path, &json!(audience));
            }
        }
        let policy = path.child("audienceMatchPolicy");
        match self.audience_match_policy.as_str() {
            "MatchAny" => {}
            "" if self.audiences.len() <= 1 => {}
            "" => errors.invalid(&policy, &json!(""), "audienceMatchPolicy must be MatchAny for multiple audiences"),
            other => errors.invalid(&policy, &json!(other), "audienceMatchPolicy must be empty or MatchAny"),
        }
        let pem = &self.certificate_authority;
        if !pem.is_empty() && runtime::tls::certificates(pem.as_bytes()).is_err() {
            errors.invalid(
                &path.child("certificateAuthority"),
                &json!("<snipped>"),
                "data does not contain any valid RSA or ECDSA certificates",
            );
        }
        if !self.egress_selector_type.is_empty() {
            let text = "egress selector is not supported";
            errors.invalid(&path.child("egressSelectorType"), &json!(self.egress_selector_type), text);
        }
    }
}

impl JwtAuthenticator {
    fn validate_rules(&self, path: &Path, errors: &mut ErrorList) {
        let mut seen = HashSet::new();
        for (at, rule) in self.claim_validation_rules.iter().enumerate() {
            let path = path.child("claimValidationRules").index(at);
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (true, true) => errors.required(&path, "claim or expression is required"),
                (false, false) => {
                    errors.invalid(&path, &json!(rule.claim), "claim and expression can't both be set");
                }
                (false, true) => {
                    if !rule.message.is_empty() {
                        let text = "message can't be set when claim is set";
                        errors.invalid(&path.child("message"), &json!(rule.message), text);
                    }
                    if !seen.insert(&rule.claim) {
                        errors.duplicate(&path.child("claim"), &json!(rule.claim));
                    }
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        let text = "requiredValue can't be set when expression is set";
                        errors.invalid(&path.child("requiredValue"), &json!(rule.required_value), text);
                    }
                    if !seen.insert(&rule.expression) {
                        errors.duplicate(&path.child("expression"), &json!(rule.expression));
                    }
                }
            }
        }
        for (at, rule) in self.user_validation_rules.iter().enumerate() {
            if rule.expression.is_empty() {
                let path = path.child("userValidationRules").index(at);
                errors.required(&path.child("expression"), "expression is required");
            }
        }
    }
}

impl ClaimMappings {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        for (name, mapping, is_needed) in
            [("username", &self.username, true), ("groups", &self.groups, false), ("uid", &self.uid, false)]
        {
            let path = path.child(name);
            match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
                (true, true) if is_needed => errors.required(&path, "claim or expression is required"),
                (true, true) if mapping.prefix.is_some() => {
                    errors.required(&path.child("claim"), "non-empty claim name is required when prefix is set");
                }
                (false, false) => errors.invalid(&path, &json!(""), "claim and expression can't both be set"),
                (true, false) if mapping.prefix.is_some() => {
                    let text = "prefix can't be set when expression is set";
                    errors.invalid(&path.child("prefix"), &json!(mapping.prefix), text);
                }
                (false, true) if mapping.prefix.is_none() && name != "uid" => {
                    let text =
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    errors.required(&path.child("prefix"), text);
                }
                _ => {}
            }
        }
        let mut seen = HashSet::new();
        for (at, extra) in self.extra.iter().enumerate() {
            let path = path.child("extra").index(at);
            let (key, value) = (path.child("key"), path.child("valueExpression"));
            if extra.key.is_empty() {
                errors.required(&key, "key is required");
            } else {
                check_key(&extra.key, &key, errors);
            }
            if !seen.insert(&extra.key) {
                errors.duplicate(&key, &json!(extra.key));
            }
            if extra.value_expression.is_empty() {
                errors.required(&value, "valueExpression is required");
            }
        }
    }
}

fn check_key(key: &str, path: &Path, errors: &mut ErrorList) {
    let domain = key.split_once('/').map(|(domain, rest)| (domain, rest.is_empty()));
    match domain {
        None | Some((_, true)) => {
            errors.invalid(path, &json!(key), "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
        Some((domain, false)) => {
            errors.invalid_all(path, &json!(domain), machinery::names::dns1123_subdomain(domain));
            let is_own = ["k8s.io", "kubernetes.io"]
                .iter()
                .any(|own| domain == *own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')));
            if is_own {
                let text = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                errors.invalid(path, &json!(key), text);
            }
        }
    }
    if key.chars().any(char::is_uppercase) {
        errors.invalid(path, &json!(key), "key must be lowercase");
    }
}
