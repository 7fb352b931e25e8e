//! What a list, a watch or a removal of many is limited to, for authorizers that care.

use machinery::selector::{FieldSelector, LabelSelector, Operator};
use serde_json::{Value, json};

use crate::request::Query;

/// One term of a selector, with the operators of the API (`In`, `NotIn`, `Exists`, `DoesNotExist`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Field or label.
    pub key: String,
    /// The operator.
    pub operator: &'static str,
    /// What the value is compared with.
    pub values: Vec<String>,
}

impl Term {
    fn json(&self) -> Value {
        let mut term = json!({"key": self.key, "operator": self.operator});
        if !self.values.is_empty() {
            term["values"] = json!(self.values);
        }
        term
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
        let operator = operators.into_iter().find(|known| *known == text("operator"));
        let values = value.get("values").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            key: text("key").to_owned(),
            operator: operator
                .ok_or_else(|| format!("{:?} is not a valid label selector operator", text("operator")))?,
            values: values.filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        })
    }
}

/// Both selectors of a request; empty where there is none, or one that nobody understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// Terms on fields.
    pub fields: Vec<Term>,
    /// Terms on labels.
    pub labels: Vec<Term>,
}

impl Selectors {
    /// The selectors of a request. Those that do not parse limit nothing: the request itself will fail.
    pub fn of(verb: &str, query: &Query) -> Self {
        if !matches!(verb, "list" | "watch" | "deletecollection") {
            return Self::default();
        }
        let text = |key: &str| query.get(key).unwrap_or_default();
        Self {
            fields: fields(text("fieldSelector")).unwrap_or_default(),
            labels: labels(text("labelSelector")).unwrap_or_default(),
        }
    }

    /// The selectors in texts, and what is wrong with them.
    pub fn of_texts(field_selector: &str, label_selector: &str) -> (Self, Vec<String>) {
        let (fields, labels) = (fields(field_selector), labels(label_selector));
        let problems = [fields.as_ref().err(), labels.as_ref().err()].into_iter().flatten().cloned().collect();
        (Self { fields: fields.unwrap_or_default(), labels: labels.unwrap_or_default() }, problems)
    }

    /// The selectors of `resourceAttributes` of a review, and what is wrong with them.
    pub fn of_review(attributes: &Value) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut read = |name: &str, parse: fn(&str) -> Result<Vec<Term>, String>| {
            let Some(selector) = attributes.get(name).filter(|selector| !selector.is_null()) else { return Vec::new() };
            let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or_default();
            let listed = selector.get("requirements").and_then(Value::as_array);
            let terms = match listed.filter(|list| !list.is_empty()) {
                Some(list) => list.iter().map(Term::read).collect(),
                None => parse(raw),
            };
            terms.unwrap_or_else(|problem| {
                problems.push(format!("spec.resourceAttributes.{name} ignored due to: {problem}"));
                Vec::new()
            })
        };
        let (fields, labels) = (read("fieldSelector", fields), read("labelSelector", labels));
        (Self { fields, labels }, problems)
    }

    /// Puts the selectors among `resourceAttributes` of a review.
    pub fn write(&self, attributes: &mut serde_json::Map<String, Value>) {
        for (name, terms) in [("fieldSelector", &self.fields), ("labelSelector", &self.labels)] {
            if !terms.is_empty() {
                let terms: Vec<Value> = terms.iter().map(Term::json).collect();
                attributes.insert(name.to_owned(), json!({"requirements": terms}));
            }
        }
    }

    /// Whether only objects with this value of a field are selected.
    pub fn requires_field(&self, field: &str, value: &str) -> bool {
        self.fields.iter().any(|term| term.key == field && term.operator == "In" && term.values == [value])
    }
}

fn fields(text: &str) -> Result<Vec<Term>, String> {
    let selector = FieldSelector::parse(text).map_err(|error| error.full_text())?;
    let term = |requirement: &machinery::selector::FieldRequirement| Term {
        key: requirement.field.clone(),
        operator: if requirement.equal { "In" } else { "NotIn" },
        values: vec![requirement.value.clone()],
    };
    Ok(selector.requirements().iter().map(term).collect())
}

fn labels(text: &str) -> Result<Vec<Term>, String> {
    let selector = LabelSelector::parse(text).map_err(|error| error.full_text())?;
    let term = |requirement: &machinery::selector::Requirement| {
        let (operator, values) = match &requirement.operator {
            Operator::Equals(value) => ("In", vec![value.clone()]),
            Operator::NotEquals(value) => ("NotIn", vec![value.clone()]),
            Operator::In(values) => ("In", values.clone()),
            Operator::NotIn(values) => ("NotIn", values.clone()),
            Operator::Exists => ("Exists", Vec::new()),
            Operator::DoesNotExist => ("DoesNotExist", Vec::new()),
            // The API has no words for these; without them the request only looks wider.
            Operator::GreaterThan(_) | Operator::LessThan(_) => return None,
        };
        Some(Term { key: requirement.key.clone(), operator, values })
    };
    Ok(selector.requirements().iter().filter_map(term).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_requests_are_told_in_the_words_of_the_api() {
        let query =
            Query::parse("fieldSelector=spec.nodeName%3Dn,metadata.name!%3Dx&labelSelector=a%20in%20(b,c),!d,e");
        let mut attributes = serde_json::Map::new();
        Selectors::of("list", &query).write(&mut attributes);
        assert_eq!(
            Value::Object(attributes),
            json!({
                "fieldSelector": {"requirements": [
                    {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                    {"key": "metadata.name", "operator": "NotIn", "values": ["x"]},
                ]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "In", "values": ["b", "c"]},
                    {"key": "d", "operator": "DoesNotExist"},
                    {"key": "e", "operator": "Exists"},
                ]},
            })
        );
        assert!(Selectors::of("list", &query).requires_field("spec.nodeName", "n"));
        assert!(!Selectors::of("list", &query).requires_field("metadata.name", "x"));
        assert_eq!(Selectors::of("get", &query), Selectors::default());
        let broken = Query::parse("labelSelector=a%20in&fieldSelector=a");
        assert_eq!(Selectors::of("watch", &broken), Selectors::default());
    }

    #[test]
    fn selectors_of_reviews_are_raw_or_listed() {
        let listed = json!({"fieldSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}});
        let raw = json!({"fieldSelector": {"rawSelector": "a=b"}});
        assert_eq!(Selectors::of_review(&listed), Selectors::of_review(&raw));
        let (selectors, problems) = Selectors::of_review(&json!({
            "fieldSelector": {"rawSelector": "a"},
            "labelSelector": {"requirements": [{"key": "a", "operator": "Near"}]},
        }));
        assert_eq!(selectors, Selectors::default());
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("spec.resourceAttributes.fieldSelector ignored due to: "), "{problems:?}");
    }
}
