use super::*;

const V4: &[&str] = &["IPv4"];
const V6: &[&str] = &["IPv6"];
const BOTH: &[&str] = &["IPv4", "IPv6"];
const BOTH_V6: &[&str] = &["IPv6", "IPv4"];

fn of(spec: Value) -> Value {
    json!({"spec": spec})
}

/// Policy and families, or the texts of what is wrong.
fn settled(new: &Value, old: Option<&Value>, cluster: &[&'static str]) -> String {
    let mut new = new.clone();
    match settle(&mut new, old, cluster) {
        Ok(()) => {
            let addresses = strings(&new, "clusterIPs").join(",");
            let families = strings(&new, "ipFamilies").join(",");
            format!("{} {families} {addresses}", text(&new, "/spec/ipFamilyPolicy")).trim_end().to_owned()
        }
        Err(errors) => {
            let texts: Vec<String> = errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            texts.join("; ")
        }
    }
}

#[test]
fn new_services() {
    let selected = |mut spec: Value| {
        spec["selector"] = json!({"a": "b"});
        spec
    };
    let headless = || json!({"clusterIP": "None", "clusterIPs": ["None"]});
    let single_families = "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or \
                           'PreferDualStack' when multiple IP families are specified";
    let single_addresses = "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or \
                            'PreferDualStack' when multiple cluster IPs are specified";
    let no_dual = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
                   dual-stack services";
    let pair = json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7", "10.0.0.7"]});
    for (cluster, spec, expected) in [
        (V4, json!({}), "SingleStack IPv4"),
        (V6, json!({}), "SingleStack IPv6"),
        (BOTH_V6, json!({}), "SingleStack IPv6"),
        (BOTH, json!({"ipFamilies": ["IPv6"]}), "SingleStack IPv6"),
        (V4, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4"),
        (BOTH, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4,IPv6"),
        (BOTH, json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}), "PreferDualStack IPv6,IPv4"),
        (BOTH_V6, json!({"ipFamilyPolicy": "RequireDualStack"}), "RequireDualStack IPv6,IPv4"),
        (V4, json!({"ipFamilyPolicy": "RequireDualStack"}), no_dual),
        (
            V4,
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (BOTH, json!({"ipFamilies": ["IPv4", "IPv6"]}), single_families),
        (BOTH, json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7"]}), "SingleStack IPv6 fd00::7"),
        (
            V4,
            json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7"]}),
            "spec.clusterIPs[0]: Invalid value: [\"fd00::7\"]: IPv6 is not configured on this cluster",
        ),
        (BOTH, pair.clone(), single_addresses),
        (
            BOTH,
            json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7", "10.0.0.7"], "ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack IPv6,IPv4 fd00::7,10.0.0.7",
        ),
        (
            BOTH,
            json!({"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilyPolicy": "RequireDualStack"}),
            "RequireDualStack IPv4,IPv6 10.0.0.7",
        ),
        (
            BOTH,
            json!({"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.7\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            BOTH,
            json!({"clusterIPs": ["10.0.0.7"]}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.7\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            BOTH,
            json!({"clusterIP": "None", "clusterIPs": ["None", "10.0.0.7"]}),
            "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.7\"]: 'None' must be the first and only value",
        ),
        (V4, headless(), "RequireDualStack IPv4,IPv6 None"),
        (V6, headless(), "RequireDualStack IPv6,IPv4 None"),
        (V4, selected(headless()), "SingleStack IPv4 None"),
        (
            BOTH,
            selected(json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilyPolicy": "PreferDualStack"})),
            "PreferDualStack IPv4,IPv6 None",
        ),
        (
            V4,
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}),
            "SingleStack IPv6 None",
        ),
        (V4, json!({"type": "ExternalName"}), ""),
    ] {
        assert_eq!(settled(&of(spec.clone()), None, cluster), expected, "{spec} in {cluster:?}");
    }
}

#[test]
fn updates() {
    let service = |policy: &str, addresses: &[&str], families: &[&str]| {
        of(json!({"clusterIP": addresses.first(), "clusterIPs": addresses, "ipFamilies": families,
            "ipFamilyPolicy": policy}))
    };
    let (four, six) = ("10.0.0.7", "fd00::7");
    let dual = |policy| service(policy, &[four, six], BOTH);
    let single = |policy| service(policy, &[four], V4);
    for (cluster, old, new, expected) in [
        // Nothing changes because the cluster does.
        (BOTH, single(PREFER), single(PREFER), "PreferDualStack IPv4 10.0.0.7"),
        (V4, dual(PREFER), dual(PREFER), "PreferDualStack IPv4,IPv6 10.0.0.7,fd00::7"),
        (BOTH, single(SINGLE), single(PREFER), "PreferDualStack IPv4,IPv6 10.0.0.7"),
        (BOTH, single(SINGLE), single(REQUIRE), "RequireDualStack IPv4,IPv6 10.0.0.7"),
        (BOTH, single(PREFER), service(PREFER, &[four], BOTH), "PreferDualStack IPv4,IPv6 10.0.0.7"),
        (BOTH, dual(REQUIRE), dual(SINGLE), "SingleStack IPv4 10.0.0.7"),
        (BOTH, dual(REQUIRE), service(SINGLE, &[four], BOTH), "SingleStack IPv4 10.0.0.7"),
        (BOTH, dual(REQUIRE), single(SINGLE), "SingleStack IPv4 10.0.0.7"),
        (
            BOTH,
            dual(REQUIRE),
            service(REQUIRE, &[four], BOTH),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary \
             cluster IP",
        ),
        (
            BOTH,
            dual(PREFER),
            service(PREFER, &[four, six], V4),
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary IP \
             family",
        ),
        (BOTH, of(json!({"type": "ExternalName"})), of(json!({})), "SingleStack IPv4"),
        (
            BOTH,
            dual(REQUIRE),
            of(json!({"clusterIP": four, "clusterIPs": [four, six]})),
            "RequireDualStack IPv4,IPv6 10.0.0.7,fd00::7",
        ),
    ] {
        assert_eq!(settled(&new, Some(&old), cluster), expected, "{old} -> {new} in {cluster:?}");
    }
}

#[test]
fn both_address_fields_agree() {
    let old = of(json!({"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7", "fd00::7"]}));
    for (old, new, expected) in [
        (None, json!({"clusterIP": "10.0.0.1"}), json!(["10.0.0.1"])),
        (None, json!({"clusterIPs": ["10.0.0.1"]}), json!(["10.0.0.1"])),
        (None, json!({}), Value::Null),
        (Some(&old), json!({"clusterIP": "10.0.0.7"}), json!(["10.0.0.7", "fd00::7"])),
        (Some(&old), json!({"clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.7", "fd00::7"]}), json!(["10.0.0.8"])),
        (Some(&old), json!({"clusterIP": "", "clusterIPs": ["10.0.0.7", "fd00::7"]}), Value::Null),
        (Some(&old), json!({"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"]}), json!(["10.0.0.7"])),
    ] {
        let mut new = of(new);
        synchronize(&mut new, old);
        assert_eq!(new["spec"]["clusterIPs"], expected);
    }
}
