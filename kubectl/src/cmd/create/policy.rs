//! `create poddisruptionbudget`, `create priorityclass`, `create quota`.

use machinery::{
    quantity::Quantity,
    selector::{LabelSelector, Operator},
};
use serde_json::{Map, Value, json};

use super::{Generated, generator_flags};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag};

pub(super) fn disruption_budget() -> Command {
    Command::new("poddisruptionbudget", "Create a pod disruption budget with the specified name")
        .aliases(&["pdb"])
        .usage("NAME --selector=SELECTOR --min-available=N [--dry-run=server|client|none]")
        .examples(&["kubectl create poddisruptionbudget my-pdb --selector=app=rails --min-available=1"])
        .flags(generator_flags())
        .flags([
            Flag::text("max-unavailable", "", "Pods that may be unavailable, a number or a percentage."),
            Flag::text("min-available", "", "Pods that have to be available, a number or a percentage."),
            Flag::text("selector", "", "Label query of the Pods."),
        ])
        .runs(|context| Box::pin(run_budget(context)))
}

fn int_or_percent(text: &str) -> Value {
    text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number))
}

/// A selector's text as an object.
fn selector(text: &str) -> Result<Value, CommandError> {
    let parsed = LabelSelector::parse(text).map_err(|e| CommandError::plain(e.to_string()))?;
    let (mut labels, mut expressions): (Map<String, Value>, Vec<Value>) = Default::default();
    for requirement in parsed.requirements() {
        let key = &requirement.key;
        let expression =
            |operator: &str, values: &[String]| json!({"key": key, "operator": operator, "values": values});
        match &requirement.operator {
            Operator::Equals(value) => {
                labels.insert(key.clone(), json!(value));
            }
            Operator::NotEquals(value) => expressions.push(expression("NotIn", std::slice::from_ref(value))),
            Operator::In(values) => expressions.push(expression("In", values)),
            Operator::NotIn(values) => expressions.push(expression("NotIn", values)),
            Operator::Exists => expressions.push(json!({"key": key, "operator": "Exists"})),
            Operator::DoesNotExist => expressions.push(json!({"key": key, "operator": "DoesNotExist"})),
            Operator::GreaterThan(_) | Operator::LessThan(_) => {
                return Err(CommandError::plain(format!("{text:?} is not a valid label selector operator")));
            }
        }
    }
    let mut object = json!({});
    if !labels.is_empty() {
        object["matchLabels"] = json!(labels);
    }
    if !expressions.is_empty() {
        object["matchExpressions"] = json!(expressions);
    }
    Ok(object)
}

async fn run_budget(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let flags = &context.flags;
    let Some(text) = flags.non_empty("selector") else {
        return Err(CommandError::plain("a selector must be specified"));
    };
    let mut spec = json!({"selector": selector(text)?});
    match (flags.non_empty("min-available"), flags.non_empty("max-unavailable")) {
        (None, None) => return Err(CommandError::plain("one of min-available or max-unavailable must be specified")),
        (Some(_), Some(_)) => {
            return Err(CommandError::plain("min-available and max-unavailable cannot be both specified"));
        }
        (Some(number), None) => spec["minAvailable"] = int_or_percent(number),
        (None, Some(number)) => spec["maxUnavailable"] = int_or_percent(number),
    }
    let object = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    });
    Generated::new(object, "failed to create poddisruptionbudgets: ").finish(context).await
}

pub(super) fn priority_class() -> Command {
    Command::new("priorityclass", "Create a priority class with the specified name")
        .aliases(&["pc"])
        .usage("NAME --value=VALUE --global-default=BOOL [--dry-run=server|client|none]")
        .examples(&["kubectl create priorityclass high-priority --value=1000 --description=\"high priority\""])
        .flags(generator_flags())
        .flags([
            Flag::text("description", "", "When it should be used."),
            Flag::switch("global-default", "Pods without a class get this one."),
            Flag::text("preemption-policy", "PreemptLowerPriority", "PreemptLowerPriority or Never."),
            Flag::int("value", "0", "The priority."),
        ])
        .runs(|context| Box::pin(run_class(context)))
}

async fn run_class(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let mut object = json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": context.one_name()?},
        "value": flags.int("value"),
        "preemptionPolicy": flags.text("preemption-policy"),
    });
    if flags.bool("global-default") {
        object["globalDefault"] = json!(true);
    }
    if let Some(text) = flags.non_empty("description") {
        object["description"] = json!(text);
    }
    Generated::new(object, "failed to create priorityclass: ").in_cluster_scope().finish(context).await
}

pub(super) fn quota() -> Command {
    Command::new("quota", "Create a quota with the specified name")
        .aliases(&["resourcequota"])
        .usage("NAME [--hard=key1=value1,key2=value2] [--scopes=Scope1,Scope2] [--dry-run=server|client|none]")
        .examples(&["kubectl create quota my-quota --hard=cpu=1,memory=1G,pods=2,services=3"])
        .flags(generator_flags())
        .flags([
            Flag::text("hard", "", "Pairs resource=quantity of the hard limits."),
            Flag::text("scopes", "", "Scopes of the quota."),
        ])
        .runs(|context| Box::pin(run_quota(context)))
}

async fn run_quota(context: &Context) -> Result<(), CommandError> {
    let mut spec = json!({});
    for pair in context.flags.text("hard").split(',').filter(|p| !p.is_empty()) {
        let parts: Vec<&str> = pair.split('=').collect();
        let [resource, amount] = parts.as_slice() else {
            return Err(CommandError::plain(format!("Invalid argument syntax {pair}, expected <resource>=<value>")));
        };
        let quantity = Quantity::parse(amount).map_err(|e| CommandError::plain(e.to_string()))?;
        spec["hard"][*resource] = json!(quantity.to_string());
    }
    let mut scopes: Vec<&str> = Vec::new();
    for scope in context.flags.text("scopes").split(',').filter(|s| !s.is_empty()) {
        if scopes.contains(&scope) {
            return Err(CommandError::plain(format!("failed to parse quota scopes: duplicate scope: {scope}")));
        }
        scopes.push(scope);
    }
    if !scopes.is_empty() {
        spec["scopes"] = json!(scopes);
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": context.one_name()?},
        "spec": spec,
        "status": {},
    });
    Generated::new(object, "failed to create quota: ").finish(context).await
}
