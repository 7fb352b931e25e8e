//! Expressions of ValidatingAdmissionPolicies are checked against the schemas of what they are about; what is wrong with
//! them stands in the status of the policy.

mod types;

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole};
use client::ApiErrorExt;
use k8s_openapi::{
    api::admissionregistration::v1::ValidatingAdmissionPolicy,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client};
use rules::policy::typecheck;
use serde_json::{Value, json};

use crate::{StartError, context::Context, table::Started};

const CONTROLLER: &str = "validatingadmissionpolicy-status-controller";
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let policies: Informer<Whole<ValidatingAdmissionPolicy>> = context.informers.get();
    let definitions: Informer<Whole<CustomResourceDefinition>> = context.informers.get();
    let queue = context.queue("validatingadmissionpolicy-status");
    let keys = queue.clone();
    policies.on_change(move |change| {
        if let Change::Added { new, .. } | Change::Updated { new, .. } = change {
            keys.add(new.key.clone());
        }
    });
    let workers = context.options.workers.concurrent_validating_admission_policy_status_syncs;
    let checker = Checker { client, policies: policies.clone(), definitions: definitions.clone() };
    context.drive(CONTROLLER, queue, workers, checker, &[&policies, &definitions]);
    Ok(Started::Running)
}

struct Checker {
    client: Client,
    policies: Informer<Whole<ValidatingAdmissionPolicy>>,
    definitions: Informer<Whole<CustomResourceDefinition>>,
}

impl Reconcile for Checker {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(policy) = self.policies.get(key) else { return Ok(Outcome::Done) };
        let generation = policy.metadata.generation.unwrap_or(0);
        let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        if generation <= observed {
            return Ok(Outcome::Done);
        }
        let spec = serde_json::to_value(&policy.spec).unwrap_or(Value::Null);
        let warnings = self.warnings(&spec);
        let wanted = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": key.name},
            "status": {"observedGeneration": generation, "typeChecking": type_checking(&warnings)},
        });
        let api: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        match client::apply_status(&api, &key.name, MANAGER, &wanted).await {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) if error.is_conflict() => Ok(Outcome::Backoff),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Outcome::Done),
        }
    }
}

impl Checker {
    fn warnings(&self, spec: &Value) -> Vec<typecheck::Warning> {
        let definitions = self.definitions.list();
        let definitions: Vec<&CustomResourceDefinition> = definitions.iter().map(|cached| &****cached).collect();
        let kinds = typecheck::kinds(spec, |resource| types::kind(resource, &definitions));
        let known = kinds.into_iter().filter_map(|kind| types::of_kind(&kind, &definitions).map(|known| (kind, known)));
        let params = types::of_params(spec, &definitions);
        typecheck::check(spec, &known.collect::<Vec<_>>(), &params)
    }
}

/// `status.typeChecking`; empty if there is nothing to warn of.
fn type_checking(warnings: &[typecheck::Warning]) -> Value {
    if warnings.is_empty() {
        return json!({});
    }
    let warnings = warnings.iter().map(|warning| json!({"fieldRef": warning.field, "warning": warning.text}));
    json!({"expressionWarnings": warnings.collect::<Vec<_>>()})
}
