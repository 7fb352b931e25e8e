//! The authorizer library: what somebody may do.
//!
//! Nothing is asked here. An expression that needs an answer ends in [`EvalError::Undecided`]; whoever evaluates finds
//! the answer, adds it to the activation and evaluates again.

use std::sync::Arc;

use super::failed;
use crate::{
    eval::{Budget, EvalError, Outcome},
    value::Val,
};

/// Work that one question costs.
pub(crate) const WORK: u32 = 350_000;

/// A question to the authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// The service account that is asked about (namespace and name); whoever makes the request if absent.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Verb.
    pub verb: String,
    /// Field selector.
    pub field_selector: String,
    /// Label selector.
    pub label_selector: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// What `authorizer` is in expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorizer {
    service_account: Option<(String, String)>,
    /// What the request is about: `authorizer.requestResource`.
    request: Option<Check>,
}

impl Authorizer {
    /// The authorizer of a request about a resource.
    pub fn of_request(request: Check) -> Self {
        Self { service_account: None, request: Some(request) }
    }

    pub(crate) fn field<'a>(&self, name: &str) -> Option<Val<'a>> {
        let check = self.request.clone().filter(|_| name == "requestResource")?;
        Some(Val::ResourceCheck(Arc::new(check)))
    }
}

fn is_name(text: &str) -> bool {
    machinery::names::dns1123_subdomain(text).is_empty()
}

fn service_account<'a>(namespace: &str, name: &str) -> Outcome<'a> {
    if !is_name(name) {
        return Err(failed("Invalid service account name"));
    }
    if !machinery::names::dns1123_label(namespace).is_empty() {
        return Err(failed("Invalid service account namespace"));
    }
    let service_account = Some((namespace.to_owned(), name.to_owned()));
    Ok(Val::Authorizer(Arc::new(Authorizer { service_account, request: None })))
}

/// What a method makes of a question that is not complete yet.
fn refined<'a>(name: &str, check: &Check, text: &str) -> Option<Val<'a>> {
    let mut check = check.clone();
    let field = match name {
        ".subresource" => &mut check.subresource,
        ".namespace" => &mut check.namespace,
        ".name" => &mut check.name,
        ".fieldSelector" => &mut check.field_selector,
        ".labelSelector" => &mut check.label_selector,
        _ => return None,
    };
    text.clone_into(field);
    Some(Val::ResourceCheck(Arc::new(check)))
}

fn ask<'a>(check: &Check, verb: &str, known: &[(Check, Arc<Decision>)], budget: &mut Budget) -> Outcome<'a> {
    budget.spend(WORK as usize)?;
    let check = Check { verb: verb.to_owned(), ..check.clone() };
    match known.iter().find(|(own, _)| *own == check) {
        Some((_, decision)) => Ok(Val::Decision(Arc::clone(decision))),
        None => Err(EvalError::Undecided(Box::new(check))),
    }
}

pub(crate) fn call<'a>(
    name: &str,
    args: &[Val<'a>],
    known: &[(Check, Arc<Decision>)],
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    let (target, rest) = args.split_first()?;
    if !matches!(
        target,
        Val::Authorizer(_) | Val::PathCheck(_) | Val::GroupCheck(_) | Val::ResourceCheck(_) | Val::Decision(_)
    ) {
        return None;
    }
    let texts: Vec<&str> = rest.iter().map(Val::as_str).collect::<Option<_>>()?;
    Some(match (target, name, texts.as_slice()) {
        (Val::Authorizer(_), ".serviceAccount", [namespace, account]) => service_account(namespace, account),
        (Val::Authorizer(own), ".path", [path]) => {
            let service_account = own.service_account.clone();
            Ok(Val::PathCheck(Arc::new(Check { service_account, path: Some((*path).to_owned()), ..Check::default() })))
        }
        (Val::Authorizer(own), ".group", [group]) => {
            let service_account = own.service_account.clone();
            Ok(Val::GroupCheck(Arc::new(Check { service_account, group: (*group).to_owned(), ..Check::default() })))
        }
        (Val::GroupCheck(check), ".resource", [resource]) => {
            Ok(Val::ResourceCheck(Arc::new(Check { resource: (*resource).to_owned(), ..(**check).clone() })))
        }
        (Val::PathCheck(check) | Val::ResourceCheck(check), ".check", [verb]) => ask(check, verb, known, budget),
        (Val::ResourceCheck(check), name, [text]) => Ok(refined(name, check, text)?),
        (Val::Decision(decision), ".allowed", []) => Ok(Val::Bool(decision.allowed)),
        (Val::Decision(decision), ".reason", []) => Ok(Val::text(decision.reason.as_str())),
        (Val::Decision(_), ".errored", []) => Ok(Val::Bool(false)),
        (Val::Decision(_), ".error", []) => Ok(Val::text("")),
        _ => return None,
    })
}
