//! Which names a definition gets, and what its conditions say of it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::definition::{Condition, Definition, Names};

const APPROVED: &str = "api-approved.kubernetes.io";

/// Names that the other definitions of a group have.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// The accepted names of definitions.
    pub(crate) fn by<'a>(others: impl IntoIterator<Item = &'a Names>) -> Self {
        let mut taken = Self::default();
        for names in others {
            let resources = [&names.plural, &names.singular].into_iter().chain(&names.short_names);
            taken.resources.extend(resources.filter(|n| !n.is_empty()).cloned());
            taken.kinds.extend([&names.kind, &names.list_kind].into_iter().filter(|n| !n.is_empty()).cloned());
        }
        taken
    }
}

/// The names and conditions that a definition should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) names: Names,
    pub(crate) conditions: Vec<Condition>,
}

impl Verdict {
    /// Whether the definition shows all this already.
    pub(crate) fn is_shown_by(&self, definition: &Definition) -> bool {
        definition.status.accepted_names == self.names
            && self.conditions.iter().all(|wanted| definition.condition(&wanted.kind) == Some(wanted))
    }

    /// Whether the names were accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.conditions.iter().any(|c| c.kind == "NamesAccepted" && c.status == "True")
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition { kind: kind.into(), status: status.into(), reason: reason.into(), message: message.into() }
}

/// Whether a wanted name is the accepted one or free.
fn free(wanted: &str, accepted: &str, taken: &BTreeSet<String>) -> Result<(), String> {
    if wanted == accepted || !taken.contains(wanted) { Ok(()) } else { Err(format!("{wanted:?} is already in use")) }
}

/// Decides on names. `is_served`: the endpoints are ready.
pub(crate) fn decide(definition: &Definition, taken: &Taken, is_served: bool) -> Verdict {
    let wanted = &definition.spec.names;
    let accepted = &definition.status.accepted_names;
    let mut names = accepted.clone();
    let mut conflict: Option<(&str, String)> = None;
    let mut settle = |outcome: Result<(), String>, reason: &'static str| match outcome {
        Ok(()) => true,
        Err(text) => {
            conflict = Some((reason, text));
            false
        }
    };
    if settle(free(&wanted.plural, &accepted.plural, &taken.resources), "PluralConflict") {
        names.plural.clone_from(&wanted.plural);
    }
    if settle(free(&wanted.singular, &accepted.singular, &taken.resources), "SingularConflict") {
        names.singular.clone_from(&wanted.singular);
    }
    let short: Vec<String> = wanted
        .short_names
        .iter()
        .filter(|name| !accepted.short_names.contains(name))
        .filter_map(|name| free(name, "", &taken.resources).err())
        .collect();
    let short = match short.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    };
    if settle(short, "ShortNamesConflict") {
        names.short_names.clone_from(&wanted.short_names);
    }
    if settle(free(&wanted.kind, &accepted.kind, &taken.kinds), "KindConflict") {
        names.kind.clone_from(&wanted.kind);
    }
    if settle(free(&wanted.list_kind, &accepted.list_kind, &taken.kinds), "ListKindConflict") {
        names.list_kind.clone_from(&wanted.list_kind);
    }
    names.categories.clone_from(&wanted.categories);
    let accepted = match &conflict {
        None => condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, text)) => condition("NamesAccepted", "False", reason, text),
    };
    let established = established(definition, conflict.is_none(), is_served);
    let mut conditions = vec![accepted, established];
    conditions.extend(approval(definition));
    Verdict { names, conditions }
}

/// Once established, for ever established.
fn established(definition: &Definition, accepted: bool, is_served: bool) -> Condition {
    const KIND: &str = "Established";
    let accepted_text = "the initial names have been accepted";
    match definition.condition(KIND) {
        Some(present) if present.status == "True" => present.clone(),
        _ if accepted && is_served => condition(KIND, "True", "InitialNamesAccepted", accepted_text),
        _ if accepted => condition(KIND, "False", "Installing", accepted_text),
        _ => condition(KIND, "False", "NotAccepted", "not all names are accepted"),
    }
}

/// Groups of the project need the project's approval.
fn approval(definition: &Definition) -> Option<Condition> {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = &definition.spec.group;
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|p| group == p || group.ends_with(&format!(".{p}")));
    if !is_protected {
        return None;
    }
    let hint = "see https://github.com/kubernetes/enhancements/pull/1111";
    Some(match definition.metadata.annotations.get(APPROVED).map_or("", String::as_str) {
        "" => {
            let text = format!("protected groups must have approval annotation {APPROVED:?}, {hint}");
            condition(KIND, "False", "MissingAnnotation", &text)
        }
        text if text.starts_with("unapproved") => {
            condition(KIND, "False", "UnapprovedAnnotation", &format!("not approved: {text:?}"))
        }
        url if url.contains("://") => condition(KIND, "True", "ApprovedAnnotation", &format!("approved in {url}")),
        _ => {
            let text = format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \
                 \"unapproved\", {hint}"
            );
            condition(KIND, "False", "InvalidAnnotation", &text)
        }
    })
}
