//! Admission policies, as the stock kubectl tells its user of them.

use std::time::{Duration, Instant};

use harness::{
    ApiServer, Kubectl,
    process::{Process, binary, free_port},
    server::ADMIN_TOKEN,
};
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io/v1";

async fn with_kubectl(test: impl FnOnce(&Kubectl)) {
    with_server(|_, kubectl| test(kubectl)).await;
}

async fn with_server(test: impl FnOnce(&ApiServer, &Kubectl)) {
    let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
    let server = ApiServer::start().await;
    let kubectl = Kubectl::new(&binary, &server.kubeconfig_file(ADMIN_TOKEN));
    tokio::task::block_in_place(|| {
        kubectl.ok("create serviceaccount default");
        test(&server, &kubectl);
    });
}

/// Policies take effect when the server's watch of them has brought them.
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !look() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rules(groups: &str, resources: &str, operations: &[&str]) -> Value {
    json!({"resourceRules": [
        {"apiGroups": [groups], "apiVersions": ["*"], "resources": [resources], "operations": operations}]})
}

/// A policy and a binding of the same name. `spec` and `binding` add to what each needs.
fn bound(kind: &str, name: &str, spec: &Value, binding: &Value) -> String {
    let mut bound = json!({"policyName": name});
    if kind == "Validating" {
        bound["validationActions"] = json!(["Deny"]);
    }
    for (field, value) in binding.as_object().expect("fields") {
        bound[field] = value.clone();
    }
    let object = |kind: String, spec: &Value| json!({"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let policy = object(format!("{kind}AdmissionPolicy"), spec);
    let binding = object(format!("{kind}AdmissionPolicyBinding"), &bound);
    json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string()
}

fn apply(kubectl: &Kubectl, manifest: &str) {
    let applied = kubectl.run_with("apply -f -", manifest);
    assert_eq!(applied.code, 0, "{manifest}: {}", applied.err);
}

fn deployment(name: &str, replicas: u32) -> String {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_refuses_warns_and_is_configured_by_parameters() {
    with_kubectl(|kubectl| {
        let create = |replicas| kubectl.run_with("create --dry-run=server -f -", &deployment("web", replicas));
        let spec = json!({
            "matchConstraints": rules("apps", "deployments", &["CREATE", "UPDATE"]),
            "matchConditions": [{"name": "others", "expression": "object.metadata.name != 'free'"}],
            "variables": [
                {"name": "replicas", "expression": "object.spec.replicas"},
                {"name": "unused", "expression": "object.spec.nothing.at.all"},
                {"name": "many", "expression": "variables.replicas > 5"},
            ],
            "validations": [
                {"expression": "!variables.many", "messageExpression": "'no more than 5 replicas, not ' + string(variables.replicas)"},
                {"expression": "namespaceObject.metadata.name == request.namespace", "reason": "Forbidden"},
            ],
        });
        apply(kubectl, &bound("Validating", "replicas", &spec, &json!({})));
        until("a refusal", || create(6).code != 0);
        let refused = create(6);
        assert_eq!(
            (refused.code, refused.err.as_str()),
            (
                1,
                "The deployments \"web\" is invalid: : ValidatingAdmissionPolicy 'replicas' with binding 'replicas' \
                 denied request: no more than 5 replicas, not 6\n"
            )
        );
        assert_eq!(create(5).code, 0);
        assert_eq!(kubectl.run_with("create --dry-run=server -f -", &deployment("free", 9)).code, 0);

        // The binding of today warns; it has parameters.
        kubectl.ok("delete validatingadmissionpolicybinding replicas");
        until("the end", || create(6).code == 0);
        kubectl.ok("create configmap limits --from-literal=max=3");
        let spec = json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": rules("apps", "deployments", &["CREATE"]),
            "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}],
        });
        let binding = json!({"validationActions": ["Warn", "Audit"],
            "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
        apply(kubectl, &bound("Validating", "limits", &spec, &binding));
        until("a warning", || !create(4).err.is_empty());
        let warned = create(4);
        assert_eq!(
            (warned.code, warned.err.as_str()),
            (
                0,
                "Warning: Validation failed for ValidatingAdmissionPolicy 'limits' with binding 'limits': failed \
                 expression: object.spec.replicas <= int(params.data.max)\n"
            )
        );
        assert_eq!(create(3).err, "");
        kubectl.ok("delete configmap limits");
        let missing = create(3);
        assert!(
            missing.err.ends_with(
                "denied request: failed to configure binding: no params found for policy binding with `Deny` \
                 parameterNotFoundAction\n"
            ),
            "{}",
            missing.err
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_ask_the_authorizer_and_take_custom_parameters() {
    with_kubectl(|kubectl| {
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "limits.rules.example.com"},
            "spec": {"group": "rules.example.com", "scope": "Cluster",
                "names": {"plural": "limits", "singular": "limit", "kind": "Limit", "listKind": "LimitList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"max": {"type": "integer"}}}}}]}});
        let spec = json!({
            "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "Limit"},
            "matchConstraints": rules("", "configmaps", &["CREATE"]),
            "validations": [{"reason": "Forbidden", "message": "too much or not allowed",
                "expression": "size(object.data) <= params.max || \
                    authorizer.group('').resource('nodes').name(object.metadata.name).check('explode').allowed()"}],
        });
        let binding =
            json!({"paramRef": {"selector": {"matchLabels": {"on": "yes"}}, "parameterNotFoundAction": "Allow"}});
        apply(kubectl, &bound("Validating", "limits", &spec, &binding));
        let create = |user: &str| {
            kubectl.run(&format!("create configmap c --from-literal=a=1 --from-literal=b=2 --dry-run=server {user}"))
        };
        until("a refusal for want of a kind", || create("").code != 0);
        assert!(
            create("").err.contains(
                "failed to configure policy: failed to find resource referenced by paramKind: 'rules.example.com/v1, \
                 Kind=Limit'"
            ),
            "{}",
            create("").err
        );
        apply(kubectl, &definition.to_string());
        until("the kind", || create("").code == 0);
        for (name, max) in [("low", 1), ("high", 5)] {
            let limit = json!({"apiVersion": "rules.example.com/v1", "kind": "Limit", "max": max,
                "metadata": {"name": name, "labels": {"on": "yes"}}});
            apply(kubectl, &limit.to_string());
        }
        kubectl.ok("create clusterrole maps --verb=create --resource=configmaps");
        kubectl.ok("create clusterrolebinding maps --clusterrole=maps --user=someone");
        assert_eq!(create("").code, 0, "the administrator may do everything");
        let someone = create("--as=someone");
        assert_eq!(
            someone.err,
            "error: failed to create configmap: configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'limits' with \
             binding 'limits' denied request: too much or not allowed\n"
        );
        kubectl.ok("label limits.rules.example.com low on-");
        until("the other parameter", || create("--as=someone").code == 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_do_not_compile_are_refused() {
    with_kubectl(|kubectl| {
        let spec = json!({
            "matchConstraints": rules("apps", "deployments", &["CREATE"]),
            "variables": [{"name": "a", "expression": "variables.b"}],
            "validations": [{"expression": "request.nothing == 1"}, {"expression": "1 + 1"},
                {"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}],
        });
        let refused = kubectl.run_with("create -f -", &bound("Validating", "wrong", &spec, &json!({})));
        for text in [
            "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: undefined field 'b'",
            "spec.validations[0].expression: Invalid value: \"request.nothing == 1\": compilation failed: ERROR: <input>:1:8: undefined field 'nothing'",
            "spec.validations[1].expression: Invalid value: \"1 + 1\": must evaluate to bool",
            "spec.validations[2].messageExpression: Invalid value:",
        ] {
            assert!(refused.err.contains(text), "{text}: {}", refused.err);
        }
        let spec = json!({
            "matchConstraints": rules("", "pods", &["CREATE", "DELETE"]), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}}, {"patchType": "ApplyConfiguration"}],
        });
        let refused = kubectl.run_with("create -f -", &bound("Mutating", "wrong", &spec, &json!({})));
        for text in [
            "spec.matchConstraints.resourceRules[0].operations[1]: Unsupported value: \"DELETE\"",
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch)",
            "spec.mutations[1].applyConfiguration: Required value",
        ] {
            assert!(refused.err.contains(text), "{text}: {}", refused.err);
        }
        let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": rules("", "pods", &["CREATE"]), "validations": [{"expression": "true"}]});
        kubectl.ok("create clusterrole policies --verb=create --resource=validatingadmissionpolicies");
        kubectl.ok("create clusterrolebinding policies --clusterrole=policies --user=someone");
        let mut list: Value = serde_json::from_str(&bound("Validating", "params", &spec, &json!({}))).expect("a list");
        let policy = list["items"][0].take().to_string();
        let refused = kubectl.run_with("create --as=someone -f -", &policy);
        let text = "spec.paramKind: Forbidden: user &{someone  [system:authenticated] map[]} must have \"get\" permission \
                    on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)";
        assert!(refused.err.contains(text), "{}", refused.err);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_policies_merge_and_patch() {
    with_kubectl(|kubectl| {
        let pod = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"containers": [{"name": "c", "image": "i"}]}})
            .to_string()
        };
        let spec = json!({
            "matchConstraints": rules("", "pods", &["CREATE"]), "reinvocationPolicy": "IfNeeded",
            "variables": [{"name": "who", "expression": "request.userInfo.username"}],
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                    "Object{metadata: Object.metadata{labels: {'by': variables.who}}, spec: Object.spec{ \
                     initContainers: [Object.spec.initContainers{name: 'mesh', image: 'proxy'}]}}"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "has(object.metadata.annotations) ? [] : [JSONPatch{op: 'add', path: '/metadata/annotations', \
                     value: {}}, JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('x/y'), \
                     value: 'labels: ' + string(size(object.metadata.labels))}]"}},
            ],
        });
        apply(kubectl, &bound("Mutating", "mesh", &spec, &json!({})));
        let created = |name: &str| {
            let output = kubectl.run_with("create --dry-run=server -o json -f -", &pod(name));
            assert_eq!(output.code, 0, "{}", output.err);
            serde_json::from_str::<Value>(&output.out).expect("a Pod")
        };
        until("a change", || created("p")["spec"].get("initContainers").is_some());
        let changed = created("p");
        assert_eq!(changed["metadata"]["labels"], json!({"by": "admin"}));
        assert_eq!(changed["metadata"]["annotations"], json!({"x/y": "labels: 1"}));
        let added = &changed["spec"]["initContainers"][0];
        assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("mesh"), &json!("File")));
        assert_eq!(added["volumeMounts"][0]["readOnly"], true, "the built-in plugins are asked again");

        let atomic = json!({
            "matchConstraints": rules("", "pods", &["CREATE"]), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}"}}],
        });
        apply(kubectl, &bound("Mutating", "atomic", &atomic, &json!({})));
        until("a refusal", || kubectl.run_with("create --dry-run=server -f -", &pod("p")).code != 0);
        let refused = kubectl.run_with("create --dry-run=server -f -", &pod("p")).err;
        let text = "The pods \"p\" is invalid: : policy 'atomic' with binding 'atomic' denied request: invalid \
                    ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
                    .spec.containers[name=\"c\"].args\n";
        assert_eq!(refused, text);
        let mut open = atomic.clone();
        open["failurePolicy"] = json!("Ignore");
        apply(kubectl, &bound("Mutating", "atomic", &open, &json!({})));
        until("the failure policy", || kubectl.run_with("create --dry-run=server -f -", &pod("p")).code == 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_checked_against_schemas() {
    with_server(|server, kubectl| {
        let arguments = [
            format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", free_port()),
            "--leader-elect=false".to_owned(),
            "--controllers=validatingadmissionpolicy-status-controller".to_owned(),
        ];
        let log = server.path().join("controller-manager.log");
        let _manager = Process::start(&binary("kube-controller-manager"), &arguments, log);
        let spec = |expression: &str| {
            json!({"matchConstraints": rules("apps", "deployments", &["CREATE"]), "validations": [
                {"expression": expression, "messageExpression": "string(object.spec.nothing)"}]})
        };
        let mut wrong = spec("object.spec.replicas > '1'");
        wrong["matchConstraints"]["resourceRules"][0]["apiVersions"] = json!(["v1"]);
        apply(kubectl, &bound("Validating", "wrong", &wrong, &json!({})));
        apply(kubectl, &bound("Validating", "anything", &spec("object.spec.replicas > '1'"), &json!({})));
        let status = |name: &str| {
            let found = kubectl.ok(&format!("get validatingadmissionpolicy {name} -o jsonpath={{.status}}"));
            serde_json::from_str::<Value>(&found).unwrap_or_default()
        };
        until("the check", || status("wrong")["observedGeneration"] == 1 && status("anything")["observedGeneration"] == 1);
        assert_eq!(status("anything"), json!({"observedGeneration": 1, "typeChecking": {}}));
        assert_eq!(
            status("wrong")["typeChecking"]["expressionWarnings"],
            json!([
                {"fieldRef": "spec.validations[0].expression", "warning":
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, \
                     string)'\n | object.spec.replicas > '1'\n | .....................^"},
                {"fieldRef": "spec.validations[0].messageExpression", "warning":
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:19: undefined field 'nothing'\n \
                     | string(object.spec.nothing)\n | ..................^"},
            ])
        );
        wrong["validations"] = json!([{"expression": "object.spec.replicas > 1"}]);
        apply(kubectl, &bound("Validating", "wrong", &wrong, &json!({})));
        until("the second check", || status("wrong") == json!({"observedGeneration": 2, "typeChecking": {}}));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_are_seen_as_what_they_take() {
    with_kubectl(|kubectl| {
        let guard = |name: &str, resources: &str, operation: &str, expression: &str| {
            let group = if resources.starts_with("deployments") { "apps" } else { "" };
            let spec = json!({"matchConstraints": rules(group, resources, &[operation]),
                "validations": [{"reason": "Forbidden", "expression": expression}]});
            apply(kubectl, &bound("Validating", name, &spec, &json!({})));
        };
        guard("exec", "pods/exec", "CONNECT", "object.kind == 'PodExecOptions' && object.command[0] != 'rm'");
        guard("forward", "pods/portforward", "CONNECT", "!(8080 in object.ports)");
        guard("proxy", "services/proxy", "CONNECT", "object.path != '/secret' && request.name == 's'");
        guard("scale", "deployments/scale", "UPDATE", "object.kind == 'Scale' && object.spec.replicas <= oldObject.spec.replicas + 2");
        guard("evict", "pods/eviction", "CREATE", "object.kind == 'Eviction' && request.name != 'p'");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        apply(kubectl, &pod.to_string());
        let by = |name: &str| format!("ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: ");
        let refused = |name: &str, command: &str, input: &str| {
            until(name, || kubectl.run_with(command, input).err.contains(&by(name)));
        };
        refused("exec", "exec p -- rm x", "");
        let allowed = kubectl.run("exec p -- ls").err;
        assert!(allowed.contains("pod p does not have a host assigned"), "{allowed}");
        refused("forward", "create --raw /api/v1/namespaces/default/pods/p/portforward?ports=8080 -f -", "{}");
        let raw = "/api/v1/namespaces/default";
        refused("proxy", &format!("get --raw {raw}/services/s/proxy/secret"), "");
        let open = kubectl.run(&format!("get --raw {raw}/services/s/proxy/open")).err;
        assert!(open.contains("services \"s\" not found"), "{open}");

        kubectl.ok("create deployment d --image=i");
        refused("scale", "scale deployment d --replicas=4", "");
        kubectl.ok("scale deployment d --replicas=3");
        assert_eq!(kubectl.ok("get deployment d -o jsonpath={.spec.replicas}"), "3");
        let spec = json!({"matchConstraints": rules("apps", "deployments/scale", &["UPDATE"]), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{spec: Object.spec{replicas: 2}}"}}]});
        apply(kubectl, &bound("Mutating", "two", &spec, &json!({})));
        until("the change", || {
            kubectl.ok("scale deployment d --replicas=1");
            kubectl.ok("get deployment d -o jsonpath={.spec.replicas}") == "2"
        });

        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}).to_string();
        refused("evict", &format!("create --raw {raw}/pods/p/eviction -f -"), &eviction);
        kubectl.ok("delete validatingadmissionpolicybinding evict");
        until("the end of it", || kubectl.run_with(&format!("create --raw {raw}/pods/p/eviction -f -"), &eviction).code == 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_annotations_stand_in_the_audit_log() {
    let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
    let directory = tempfile::tempdir().expect("a directory");
    let (policy, log) = (directory.path().join("policy.yaml"), directory.path().join("audit.log"));
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
        .expect("the policy");
    let flags = [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    let server = ApiServer::start_with(&[&flags[0], &flags[1]]).await;
    let kubectl = Kubectl::new(&binary, &server.kubeconfig_file(ADMIN_TOKEN));
    let notes = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut noted = events.map(|event| event["annotations"].clone());
        noted.rfind(|notes| notes.get("sizes/keys").is_some()).unwrap_or_default()
    };
    tokio::task::block_in_place(|| {
        let spec = json!({"matchConstraints": rules("", "configmaps", &["CREATE"]),
        "validations": [{"expression": "size(object.data) > 1", "message": "too small"}],
        "auditAnnotations": [
            {"key": "keys", "valueExpression": "'has ' + string(size(object.data)) + ' keys'"},
            {"key": "never", "valueExpression": "null"},
        ]});
        apply(&kubectl, &bound("Validating", "sizes", &spec, &json!({"validationActions": ["Audit"]})));
        until("a note", || {
            kubectl.ok("create configmap c --from-literal=a=1 --dry-run=server");
            !notes().is_null()
        });
    });
    let notes = notes();
    assert_eq!(notes["sizes/keys"], "has 1 keys");
    assert_eq!(notes.get("sizes/never"), None);
    let failure = notes["validation.policy.admission.k8s.io/validation_failure"].as_str().expect("a failure");
    let failure: Value = serde_json::from_str(failure).expect("a list");
    assert_eq!(
        failure,
        json!([{"message": "too small", "policy": "sizes", "binding": "sizes", "expressionIndex": 0,
            "validationActions": ["Audit"]}])
    );
}
