use super::*;

#[test]
fn webhooks() {
    let base = json!({"webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10, "failurePolicy": "Fail", "matchPolicy": "Equivalent",
        "clientConfig": {"url": "https://x/y"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]});
    refused(
        &gvk("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        &base,
        &[
            (
                "/webhooks/0/name",
                json!("a.b"),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated \
                 by dots",
            ),
            (
                "/webhooks/0/sideEffects",
                json!(null),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "/webhooks/0/clientConfig",
                json!({}),
                "webhooks[0].clientConfig.url: Required value: exactly one of url or service is required",
            ),
            (
                "/webhooks/0/rules/0/apiGroups",
                json!(["*", "apps"]),
                "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"apps\"]: if '*' is present, must not specify \
                 other API groups",
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!(["v2"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, \
                 v1beta1",
            ),
        ],
    );
}

#[test]
fn policies() {
    let base = json!({"metadata": {"name": "p"}, "spec": {"failurePolicy": "Fail", "matchConstraints": {
        "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
            {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
        "validations": [{"expression": "true"}]}});
    refused(
        &gvk("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        &base,
        &[("/spec/matchConstraints/resourceRules", json!([]), "spec.matchConstraints.resourceRules: Required value")],
    );
    let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}});
    refused(
        &gvk("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
        &binding,
        &[
            ("/spec/policyName", json!(""), "spec.policyName: Required value"),
            (
                "/spec/paramRef",
                json!({"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}),
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            ),
        ],
    );
}

#[test]
fn definitions() {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
        {"type": "object", "properties": {"spec": {"type": "object"}}}}});
    let base = json!({"metadata": {"name": "foos.a.b"}, "spec": {"group": "a.b", "scope": "Namespaced",
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "conversion": {"strategy": "None"}, "versions": [version]}, "status": {"storedVersions": ["v1"]}});
    let kind = gvk("apiextensions.k8s.io", "CustomResourceDefinition");
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    refused(
        &kind,
        &base,
        &[
            (
                "/metadata/name",
                json!("bars.a.b"),
                "metadata.name: Invalid value: \"bars.a.b\": must be spec.names.plural+\".\"+spec.group",
            ),
            (
                "/spec/versions/0/storage",
                json!(false),
                "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
            ),
            (schema, json!(null), "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
            (
                &format!("{schema}/properties/spec"),
                json!({}),
                "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for \
                 specified object fields",
            ),
        ],
    );
    kept(
        &kind,
        &with(&base, &[("/status/conditions", json!([{"type": "Established", "status": "True"}]))]),
        &[("/spec/scope", json!("Cluster"), "spec.scope: Invalid value: \"Cluster\": field is immutable")],
    );
}

#[test]
fn flow_control() {
    let group = "flowcontrol.apiserver.k8s.io";
    let schema = json!({"metadata": {"name": "f"}, "spec": {"matchingPrecedence": 100,
        "priorityLevelConfiguration": {"name": "l"}, "rules": []}});
    refused(
        &gvk(group, "FlowSchema"),
        &schema,
        &[
            (
                "/spec/priorityLevelConfiguration/name",
                json!(""),
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ),
            (
                "/spec/matchingPrecedence",
                json!(1),
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have \
                 matchingPrecedence 1",
            ),
        ],
    );
    let level = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}});
    refused(
        &gvk(group, "PriorityLevelConfiguration"),
        &level,
        &[("/spec/exempt", json!({}), "spec.exempt: Forbidden: must be nil if the type is Limited")],
    );
}

#[test]
fn cron_jobs() {
    let job = json!({"template": {"spec": with(&pod()["spec"], &[("/restartPolicy", json!("Never"))])}});
    let base = json!({"spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": job}}});
    let kind = gvk("batch", "CronJob");
    refused(
        &kind,
        &base,
        &[
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            (
                "/spec/schedule",
                json!("* * *"),
                "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC * * * * *"),
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use \
                 timeZone field instead",
            ),
            (
                "/spec/timeZone",
                json!("Local"),
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in \
                 https://www.iana.org/time-zones",
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ),
        ],
    );
    let long = "a".repeat(53);
    let expected = format!("metadata.name: Invalid value: {long:?}: must be no more than 52 characters");
    assert_eq!(told(create(&kind, &with(&base, &[("/metadata", json!({"name": long}))]))), [expected]);
    let old = with(&base, &[("/spec/schedule", json!("TZ=UTC * * * * *"))]);
    let new = with(&old, &[("/spec/suspend", json!(true))]);
    assert_eq!(told(update(&kind, &new, &old, "")), [""; 0], "a stored zone is tolerated");
}

#[test]
fn indexed_jobs_and_policies() {
    let base = with(
        &workload(),
        &[
            ("/spec/manualSelector", json!(true)),
            ("/spec/template/spec/restartPolicy", json!("Never")),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "Ignore", "onExitCodes":
                {"operator": "In", "values": [1, 2]}}]}),
            ),
        ],
    );
    let rule = "/spec/podFailurePolicy/rules/0";
    refused(
        &gvk("batch", "Job"),
        &base,
        &[
            (
                "/spec/template/spec/restartPolicy",
                json!("OnFailure"),
                "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when \
                 podFailurePolicy is specified",
            ),
            (
                &format!("{rule}/onExitCodes/values"),
                json!([2, 1]),
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered",
            ),
            (
                &format!("{rule}/onExitCodes/values"),
                json!([0]),
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In \
                 operator",
            ),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ),
        ],
    );
}

#[test]
fn claims_on_devices() {
    let base = json!({"spec": {"devices": {"requests": [{"name": "r", "exactly":
        {"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}}]}}});
    let kind = gvk("resource.k8s.io", "ResourceClaim");
    refused(
        &kind,
        &base,
        &[(
            "/spec/devices/requests/0/exactly",
            json!(null),
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        )],
    );
    let texts = told(update(&kind, &with(&base, &[("/spec/devices/requests/0/name", json!("s"))]), &base, ""));
    assert!(texts.len() == 1 && texts[0].ends_with("field is immutable"), "{texts:?}");
    let reserved = with(&base, &[("/status", json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}))]);
    let expected = "status.reservedFor: Forbidden: may not be specified when `allocated` is not set";
    assert_eq!(told(update(&kind, &reserved, &base, "status")), [expected]);
}

#[test]
fn budgets_events_and_system_classes() {
    let budget = json!({"spec": {"minAvailable": 1, "selector": {}}});
    refused(
        &gvk("policy", "PodDisruptionBudget"),
        &budget,
        &[(
            "/spec/minAvailable",
            json!("101%"),
            "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%",
        )],
    );
    let event = json!({"metadata": {"namespace": "d"}, "involvedObject": {"namespace": "d"}});
    refused(
        &gvk("", "Event"),
        &event,
        &[(
            "/involvedObject/namespace",
            json!("e"),
            "involvedObject.namespace: Invalid value: \"e\": does not match event.namespace",
        )],
    );
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
    let kind = gvk("scheduling.k8s.io", "PriorityClass");
    assert_eq!(told(create(&kind, &class("system-node-critical", 2_000_001_000))), [""; 0]);
    let texts = told(create(&kind, &class("system-mine", 1)));
    let expected = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use \
                    only. error: system-mine is not a known system priority class";
    assert_eq!(texts, [expected]);
}

#[test]
fn signing_requests() {
    let kind = gvk("certificates.k8s.io", "CertificateSigningRequest");
    let spec = json!({"spec": {"request": "bm8=", "usages": ["client auth", "client auth"], "signerName": "a.b/c",
        "expirationSeconds": 60}});
    assert_eq!(
        told(create(&kind, &spec)),
        [
            "spec.request: Invalid value: \"bm8=\": PEM block type must be CERTIFICATE REQUEST",
            "spec.usages[1]: Duplicate value: \"client auth\"",
            "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)",
        ]
    );
}
