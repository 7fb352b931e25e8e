//! Request options: `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions`, `ListOptions`.

use std::time::Duration;

use http::HeaderMap;
use machinery::{
    ApiError, ApiResult, GroupKind,
    field::{ErrorList, Path},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::request::Query;

/// `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Manager of the changed fields: `fieldManager`, else the User-Agent up to its first `/`.
    pub manager: String,
    /// What happens to unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Server-side apply takes over conflicting fields.
    pub force: bool,
}

const MANAGER_LIMIT: usize = 128;

fn kind_of(name: &str) -> GroupKind {
    GroupKind { group: "meta.k8s.io".into(), kind: name.into() }
}

fn finish(kind: &str, errors: ErrorList) -> ApiResult<()> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&kind_of(kind), "", errors.into_causes())) }
}

fn check_dry_run(values: &[&str], errors: &mut ErrorList) {
    if values.iter().any(|v| *v != "All") {
        errors.not_supported(&Path::new("dryRun"), &json!(values), &["All"]);
    }
}

impl WriteOptions {
    /// Reads and validates the options. `kind` names them in errors; `apply` says that this is a server-side apply.
    pub fn parse(kind: &str, query: &Query, headers: &HeaderMap, apply: bool) -> ApiResult<Self> {
        let mut errors = ErrorList::default();
        let dry_run: Vec<&str> = query.all("dryRun").filter(|v| !v.is_empty()).collect();
        let manager = query.get("fieldManager").unwrap_or("");
        let force = query.get("force").map(|v| v != "false" && v != "0");
        if kind == "PatchOptions" {
            if apply && manager.is_empty() {
                errors.required(&Path::new("fieldManager"), "is required for apply patch");
            } else if !apply && force.is_some() {
                errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
            }
        }
        check_manager(manager, &mut errors);
        check_dry_run(&dry_run, &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or("") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.not_supported(&Path::new("fieldValidation"), &json!(other), &supported);
                FieldValidation::Warn
            }
        };
        finish(kind, errors)?;
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            manager: if manager.is_empty() { agent_manager(headers) } else { manager.to_owned() },
            field_validation,
            force: force.unwrap_or(false),
        })
    }
}

fn check_manager(manager: &str, errors: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > MANAGER_LIMIT {
        errors.too_long(&path, MANAGER_LIMIT);
    }
    for (at, c) in manager.chars().enumerate() {
        if c.is_control() {
            let text = format!("invalid character {} (at position {at})", unicode_name(c));
            errors.invalid(&path, &json!(manager), &text);
        }
    }
}

fn unicode_name(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// The manager name that a User-Agent stands for.
fn agent_manager(headers: &HeaderMap) -> String {
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let name: String = agent.split('/').next().unwrap_or("").chars().filter(|c| !c.is_control()).collect();
    let name: String = name.chars().take(MANAGER_LIMIT).collect();
    if name.is_empty() { "unknown".into() } else { name }
}

/// Options of delete and delete collection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeleteOptions {
    /// Seconds of grace.
    pub grace_period_seconds: Option<i64>,
    /// `Orphan`, `Background`, `Foreground`.
    pub propagation_policy: Option<String>,
    /// Deprecated form of the propagation policy.
    pub orphan_dependents: Option<bool>,
    /// `All` or nothing.
    pub dry_run: Vec<String>,
    /// What must be true of the object.
    pub preconditions: Option<Preconditions>,
}

/// What must be true of an object for a delete.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Preconditions {
    /// Uid.
    pub uid: Option<String>,
    /// resourceVersion.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// From the body, or from the query when the body is empty.
    pub fn parse(body: Option<Value>, query: &Query) -> ApiResult<Self> {
        let options = match body {
            Some(body) => serde_json::from_value(body)
                .map_err(|e| ApiError::bad_request(format!("the object provided is unrecognized: {e}")))?,
            None => Self {
                grace_period_seconds: match query.get("gracePeriodSeconds") {
                    Some(text) => Some(text.parse().map_err(|_| {
                        ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
                    })?),
                    None => None,
                },
                propagation_policy: query.get("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.get("orphanDependents").map(|v| v != "false" && v != "0"),
                dry_run: query.all("dryRun").filter(|v| !v.is_empty()).map(str::to_owned).collect(),
                preconditions: None,
            },
        };
        options.validate()?;
        Ok(options)
    }

    fn validate(&self) -> ApiResult<()> {
        let mut errors = ErrorList::default();
        let path = Path::new("propagationPolicy");
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                let text = "orphanDependents and deletionPropagation cannot be both set";
                errors.invalid(&path, &json!(policy), text);
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan" | "") {
                errors.not_supported(&path, &json!(policy), &["Foreground", "Background", "Orphan", "nil"]);
            }
        }
        let dry_run: Vec<&str> = self.dry_run.iter().map(String::as_str).collect();
        check_dry_run(&dry_run, &mut errors);
        finish("DeleteOptions", errors)
    }

    /// Whether nothing is stored.
    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }
}

/// Options of list and watch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Label selector text.
    pub label_selector: String,
    /// Field selector text.
    pub field_selector: String,
    /// resourceVersion text.
    pub resource_version: String,
    /// `Exact` or `NotOlderThan` or empty.
    pub resource_version_match: String,
    /// Page size; 0 for all.
    pub limit: usize,
    /// Continue token.
    pub continue_token: String,
    /// Bookmarks wanted.
    pub allow_bookmarks: bool,
    /// Streaming list.
    pub send_initial_events: Option<bool>,
    /// Wanted length of a watch.
    pub timeout: Option<Duration>,
}

impl ListOptions {
    /// Reads and validates the options of a list (`watch` false) or watch.
    pub fn parse(query: &Query, watch: bool) -> ApiResult<Self> {
        let text = |key: &str| query.get(key).unwrap_or("").to_owned();
        let number = |key: &str| match query.get(key) {
            None | Some("") => Ok(0_i64),
            Some(value) => value
                .parse::<i64>()
                .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax"))),
        };
        let seconds = number("timeoutSeconds")?;
        let options = Self {
            label_selector: text("labelSelector"),
            field_selector: text("fieldSelector"),
            resource_version: text("resourceVersion"),
            resource_version_match: text("resourceVersionMatch"),
            limit: usize::try_from(number("limit")?).unwrap_or(0),
            continue_token: text("continue"),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|v| v != "false" && v != "0"),
            timeout: u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs),
        };
        options.validate(watch)?;
        Ok(options)
    }

    fn validate(&self, watch: bool) -> ApiResult<()> {
        let mut errors = ErrorList::default();
        let path = Path::new("resourceVersionMatch");
        let rule = self.resource_version_match.as_str();
        if watch {
            self.validate_watch(&mut errors);
        } else {
            if self.send_initial_events.is_some() {
                errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
            }
            if !rule.is_empty() {
                if !self.continue_token.is_empty() {
                    errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
                }
                if self.resource_version.is_empty() {
                    let text = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    errors.forbidden(&path, text);
                }
                if !matches!(rule, "Exact" | "NotOlderThan") {
                    errors.not_supported(&path, &json!(rule), &["Exact", "NotOlderThan", ""]);
                }
                if rule == "Exact" && self.resource_version == "0" {
                    let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    errors.forbidden(&path, text);
                }
            }
        }
        finish("ListOptions", errors)
    }

    fn validate_watch(&self, errors: &mut ErrorList) {
        let path = Path::new("resourceVersionMatch");
        let rule = self.resource_version_match.as_str();
        match self.send_initial_events {
            Some(_) if rule != "NotOlderThan" => {
                let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.forbidden(&path, text);
            }
            Some(_) => {}
            None if !rule.is_empty() => {
                let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.forbidden(&path, text);
            }
            None => {}
        }
    }
}
