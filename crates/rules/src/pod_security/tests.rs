use serde_json::json;

use super::*;

fn asked(labels: &Value) -> (Policy, ErrorList) {
    Policy::of(|key| labels.get(key).and_then(Value::as_str))
}

fn standard(level: Level) -> Standard {
    Standard { level, version: Version::Latest }
}

fn shown(level: Level, spec: &Value) -> String {
    describe(&evaluate(standard(level), &Value::Null, spec))
}

#[test]
fn labels_are_read() {
    let (policy, errors) = asked(&json!({}));
    assert!(errors.is_empty());
    assert_eq!(policy, Policy { enforce: Standard::DEFAULT, audit: Standard::DEFAULT, warn: Standard::DEFAULT });
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "v1.30", "pod-security.kubernetes.io/audit": "baseline"});
    let (policy, errors) = asked(&labels);
    assert!(errors.is_empty());
    assert_eq!(policy.enforce.to_string(), "restricted:v1.30");
    assert_eq!(policy.audit.to_string(), "baseline:latest");
    assert_eq!(policy.warn, policy.enforce, "what is enforced is warned of too");
    let labels = json!({"pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/warn-version": "1.30"});
    let (policy, errors) = asked(&labels);
    assert_eq!(policy.enforce.level, Level::Restricted);
    let causes = errors.into_causes();
    assert_eq!(causes[0].field, "metadata.labels[pod-security.kubernetes.io/enforce]");
    assert_eq!(causes[0].message, "Invalid value: \"strict\": must be one of privileged, baseline, restricted");
    assert_eq!(causes[1].message, "Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"");
}

#[test]
fn versions_are_canonical() {
    assert_eq!(Version::parse("v1.0"), Some(Version::Minor(0)));
    for wrong in ["v1.", "v1.01", "v2.0", "v1.x", "1.2", "", "v1.+3"] {
        assert_eq!(Version::parse(wrong), None, "{wrong}");
    }
    assert!(Version::Latest > Version::Minor(u32::MAX));
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let spec = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "nfs": {}}]});
    assert_eq!(shown(Level::Privileged, &spec), "");
    assert_eq!(shown(Level::Baseline, &spec), "");
    assert_eq!(
        shown(Level::Restricted, &spec),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         restricted volume types (volume \"v\" uses restricted volume type \"nfs\"), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
}

#[test]
fn a_hardened_pod_is_restricted() {
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "v", "projected": {}}, {"name": "w"}],
    });
    assert_eq!(shown(Level::Restricted, &spec), "");
}

#[test]
fn baseline_violations_are_told_in_order() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"appArmorProfile": {"type": "Unconfined"}, "sysctls": [{"name": "kernel.msgmax"}],
            "seLinuxOptions": {"type": "x_t", "user": "u"}, "seccompProfile": {"type": "Unconfined"},
            "windowsOptions": {"hostProcess": true}},
        "initContainers": [{"name": "i", "securityContext": {"privileged": true, "procMount": "Unmasked"}}],
        "containers": [
            {"name": "a", "ports": [{"hostPort": 81}, {"hostPort": 80}, {"containerPort": 1}],
                "livenessProbe": {"httpGet": {"host": "1.2.3.4"}},
                "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}},
            {"name": "b", "ports": [{"hostPort": 80}], "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}],
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}],
    });
    assert_eq!(
        shown(Level::Baseline, &spec),
        "forbidden AppArmor profile (pod and container \"b\" must not set AppArmor profile type to \"Unconfined\"), \
         non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), \
         host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volumes \"v\", \"w\"), \
         hostPorts (containers \"a\", \"b\" use hostPorts 80, 81), \
         probe or lifecycle host (container \"a\" uses probe or lifecycle host \"1.2.3.4\"), \
         privileged (container \"i\" must not set securityContext.privileged=true), \
         procMount (container \"i\" must not set securityContext.procMount to \"Unmasked\"), \
         seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x_t\"; user may not be set), \
         seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), \
         forbidden sysctl (kernel.msgmax), \
         hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"
    );
}

#[test]
fn old_versions_ask_for_less_and_own_users_waive() {
    let spec = json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h"}}}]});
    let old = Standard { level: Level::Baseline, version: Version::Minor(33) };
    assert!(evaluate(old, &Value::Null, &spec).is_empty());
    assert_eq!(evaluate(standard(Level::Baseline), &Value::Null, &spec).len(), 1);
    let reasons = |version, spec: &Value| -> Vec<String> {
        let found = evaluate(Standard { level: Level::Restricted, version }, &Value::Null, spec);
        found.into_iter().map(|v| v.reason).collect()
    };
    let plain = json!({"containers": [{"name": "a"}]});
    assert_eq!(reasons(Version::Minor(7), &plain), ["runAsNonRoot != true"]);
    let own = json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "seccompProfile": {"type": "Localhost"}},
        "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked", "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}}}]});
    assert_eq!(reasons(Version::Latest, &own), ["procMount"]);
    assert!(evaluate(standard(Level::Baseline), &Value::Null, &own).is_empty());
    assert_eq!(reasons(Version::Minor(34), &own), ["procMount", "runAsNonRoot != true", "runAsUser=0"]);
    let annotated = json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
    let found = evaluate(standard(Level::Baseline), &annotated, &plain);
    assert_eq!(
        describe(&found),
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
         \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
    );
}
