//! `matchConditions`: expressions that must hold for a webhook to be asked.

use cel::{Budget, Type, Val};
use serde_json::Value;

use super::config::Condition;

/// Work that the conditions of one webhook may do, steps.
const BUDGET: u64 = 2_500_000;

/// Whether all conditions hold. One that does not outweighs the errors of others.
pub(super) fn hold(conditions: &[Condition], object: &Value, old: &Value, request: &Value) -> Result<bool, String> {
    let variables = [("object", object), ("oldObject", old), ("request", request)];
    let variables = variables.map(|(name, value)| (name, Val::of(value, &Type::Dyn)));
    let mut budget = Budget::new(BUDGET);
    let mut errors = Vec::new();
    for condition in conditions {
        let expression = &condition.expression;
        let wrong = |why: &str| format!("expression '{}' resulted in error: {why}", expression.text);
        let outcome = match &expression.program {
            Ok(program) => program.run(&variables, &mut budget).map_err(|error| wrong(&error.to_string())),
            Err(why) => Err(format!("compilation failed: {why}")),
        };
        match outcome {
            Ok(Val::Bool(true)) => {}
            Ok(Val::Bool(false)) => return Ok(false),
            Ok(_) => errors.push(wrong("must evaluate to bool")),
            Err(why) => errors.push(why),
        }
    }
    if errors.is_empty() { Ok(true) } else { Err(errors.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conditions(expressions: &[&str]) -> Vec<Condition> {
        let all = expressions.iter().map(|expression| json!({"name": "c", "expression": expression}));
        serde_json::from_value(Value::Array(all.collect())).expect("conditions")
    }

    #[test]
    fn one_that_does_not_hold_is_enough() {
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}});
        let request = json!({"operation": "CREATE", "userInfo": {"username": "u"}});
        let hold = |expressions: &[&str]| hold(&conditions(expressions), &pod, &Value::Null, &request);
        assert_eq!(hold(&[]), Ok(true));
        assert_eq!(hold(&["object.metadata.name == 'p'", "request.userInfo.username != 'x'"]), Ok(true));
        assert_eq!(hold(&["oldObject == null", "request.operation == 'UPDATE'"]), Ok(false));
        let missing = hold(&["object.spec.x == 1"]).expect_err("there is no spec");
        assert!(missing.starts_with("expression 'object.spec.x == 1' resulted in error: "), "{missing}");
        assert_eq!(hold(&["object.spec.x == 1", "false"]), Ok(false));
        assert!(hold(&["object.metadata.name"]).is_err());
        assert!(hold(&["this is nothing"]).expect_err("no expression").starts_with("compilation failed: ERROR: "));
    }
}
