//! Node selectors: whether a node is among those that are meant.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// Whether any term matches; a term without requirements matches nothing.
pub fn matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_deref()).flatten();
    expressions.iter().all(|one| holds(one, label(&one.key))) && fields.iter().all(|one| holds(one, field(&one.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = |value: &str| values.iter().any(|one| one == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let limit = || values.first().and_then(|text| number(text));
    match (requirement.operator.as_str(), value) {
        ("In", Some(value)) => is_listed(value),
        ("NotIn", value) => !value.is_some_and(is_listed),
        ("Exists", value) => value.is_some(),
        ("DoesNotExist", value) => value.is_none(),
        ("Gt", Some(value)) => number(value).zip(limit()).is_some_and(|(value, limit)| value > limit),
        ("Lt", Some(value)) => number(value).zip(limit()).is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(term: Value) -> bool {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"zone": "a", "cores": "8"}},
        }))
        .unwrap();
        matches(&serde_json::from_value(json!({"nodeSelectorTerms": [term]})).unwrap(), &node)
    }

    #[test]
    fn requirements() {
        let expression = |key: &str, operator: &str, values: Value| {
            check(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        assert!(expression("zone", "In", json!(["a", "b"])));
        assert!(!expression("zone", "NotIn", json!(["a"])));
        assert!(expression("none", "NotIn", json!(["a"])));
        assert!(expression("zone", "Exists", json!([])) && !expression("none", "Exists", json!([])));
        assert!(expression("none", "DoesNotExist", json!([])));
        assert!(expression("cores", "Gt", json!(["4"])) && !expression("cores", "Lt", json!(["4"])));
        assert!(check(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})));
        assert!(!check(json!({})));
    }
}
