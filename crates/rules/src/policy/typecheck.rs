//! What is wrong with the expressions of a ValidatingAdmissionPolicy, given what is known of the kinds it is about.

use cel::Type;
use machinery::{GroupVersionKind, GroupVersionResource};
use serde_json::Value;

use super::{Asks, Fault, Scope, Yields};
use crate::validation::read::{list, present, text};

/// Kinds of one policy that are looked at.
const MAX_KINDS: usize = 10;

/// A warning, and the field it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Path of the expression.
    pub field: String,
    /// What is wrong, for each kind.
    pub text: String,
}

fn texts<'a>(holder: &'a Value, field: &str) -> Vec<&'a str> {
    list(holder, field).iter().filter_map(Value::as_str).collect()
}

/// The kinds that a policy names without wildcards, sorted. `kind`: the kind of a resource, if it is known.
pub fn kinds(
    spec: &Value,
    mut kind: impl FnMut(&GroupVersionResource) -> Option<GroupVersionKind>,
) -> Vec<GroupVersionKind> {
    let mut found: Vec<GroupVersionKind> = Vec::new();
    let rules = spec.pointer("/matchConstraints/resourceRules").and_then(Value::as_array);
    for rule in rules.into_iter().flatten() {
        let (groups, versions) = (texts(rule, "apiGroups"), texts(rule, "apiVersions"));
        if groups.contains(&"*") || versions.contains(&"*") {
            continue;
        }
        let resources = texts(rule, "resources").into_iter().filter(|name| !name.contains(['*', '/']));
        let resources: Vec<&str> = resources.collect();
        for group in &groups {
            for version in &versions {
                for resource in &resources {
                    let known = kind(&GroupVersionResource::new(*group, *version, *resource));
                    found.extend(known.filter(|known| !found.contains(known)));
                    if found.len() == MAX_KINDS {
                        found.sort();
                        return found;
                    }
                }
            }
        }
    }
    found.sort();
    found
}

/// Checks the validations of a policy against the types of its objects and parameters.
pub fn check(spec: &Value, kinds: &[(GroupVersionKind, Type)], params: &Type) -> Vec<Warning> {
    let scopes: Vec<(&GroupVersionKind, Scope)> =
        kinds.iter().map(|(kind, object)| (kind, scope(spec, object, params))).collect();
    let mut warnings = Vec::new();
    for (at, validation) in list(spec, "validations").iter().enumerate() {
        for (field, yields, asks) in
            [("expression", Yields::Bool, Asks::Authorizer), ("messageExpression", Yields::Text, Asks::Nobody)]
        {
            let expression = text(validation, field);
            if expression.trim().is_empty() {
                continue;
            }
            let wrong = scopes.iter().filter_map(|(kind, scope)| {
                let why = match scope.compile(expression, yields, asks).err()? {
                    Fault::Syntax(why) => why,
                    Fault::Yields(why) => why.to_owned(),
                };
                Some(format!("{}, Kind={}: {why}", kind.api_version(), kind.kind))
            });
            let wrong: Vec<String> = wrong.collect();
            if !wrong.is_empty() {
                let field = format!("spec.validations[{at}].{field}");
                warnings.push(Warning { field, text: wrong.join("\n") });
            }
        }
    }
    warnings
}

fn scope(spec: &Value, object: &Type, params: &Type) -> Scope {
    let has_params = present(spec, "paramKind").is_some();
    let mut scope = Scope::of_validation(has_params).typed(object.clone(), params.clone());
    for variable in list(spec, "variables") {
        let program = scope.compile(text(variable, "expression"), Yields::Any, Asks::Authorizer);
        scope.declare(text(variable, "name"), program.map(|program| program.result().clone()).unwrap_or_default());
    }
    scope
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wildcards_and_subresources_name_no_kind() {
        let rule = |groups: &[&str], versions: &[&str], resources: &[&str]| json!({"apiGroups": groups, "apiVersions": versions, "resources": resources});
        let spec = |rules: Vec<Value>| json!({"matchConstraints": {"resourceRules": rules}});
        let known = |resource: &GroupVersionResource| {
            let GroupVersionResource { group, version, resource } = resource;
            (resource != "unknown").then(|| GroupVersionKind::new(group, version, resource.to_uppercase()))
        };
        let found = |rules| kinds(&spec(rules), known).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            found(vec![
                rule(&["apps"], &["v1"], &["b", "a", "a/scale", "*", "unknown"]),
                rule(&["*"], &["v1"], &["c"]),
                rule(&["apps"], &["*"], &["d"]),
                rule(&["apps"], &["v1"], &["a"]),
            ]),
            ["apps/v1, Kind=A", "apps/v1, Kind=B"]
        );
        let many: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(found(vec![rule(&["g"], &["v1"], &many)]).len(), 10);
    }

    #[test]
    fn every_kind_has_its_own_warning() {
        let types = |replicas: Type| {
            let spec = Type::object([("replicas".to_owned(), replicas)]);
            Type::object([("spec".to_owned(), spec)])
        };
        let kinds = [
            (GroupVersionKind::new("apps", "v1", "Deployment"), types(Type::Int)),
            (GroupVersionKind::new("", "v1", "Other"), types(Type::String)),
        ];
        let spec = json!({
            "variables": [{"name": "r", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "object.spec.replicas > '1'"},
                {"expression": "variables.r == 1 || true", "messageExpression": "object.spec.maxRetries"},
                {"expression": "has(object.spec.replicas)"},
            ],
        });
        let warnings = check(&spec, &kinds, &Type::Dyn);
        let fields: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.validations[0].expression",
                "spec.validations[1].expression",
                "spec.validations[1].messageExpression"
            ]
        );
        assert_eq!(
            warnings[0].text,
            "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, \
             string)'\n | object.spec.replicas > '1'\n | .....................^"
        );
        assert!(
            warnings[1].text.starts_with("v1, Kind=Other: ERROR: <input>:1:13: found no matching overload for '_==_'")
        );
        assert_eq!(warnings[2].text.matches("undefined field 'maxRetries'").count(), 2);
    }
}
