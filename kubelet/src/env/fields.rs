//! Downward API: values of Pod fields and of container resources.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::node::NodeFacts;
use crate::pods;
use crate::pods::{quantity, resources};

/// A reference that names nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    /// No such field.
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    /// No such container.
    #[error("container {0} not found")]
    Container(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
}

/// The text of a field, `node` being needed for addresses.
pub fn field(
    pod: &Pod,
    selector: &ObjectFieldSelector,
    node: &NodeFacts,
    ips: &[IpAddr],
) -> Result<String, FieldError> {
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return Err(FieldError::Path(path.to_owned())),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => pods::name(pod).to_owned(),
        "metadata.namespace" => pods::namespace(pod).to_owned(),
        "metadata.uid" => pods::uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => pods::spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pods::spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&node.addresses),
        "status.hostIPs" => join(&node.addresses),
        "status.podIP" => first(ips),
        "status.podIPs" => join(ips),
        _ => return Err(FieldError::Path(path.to_owned())),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", machinery::field::go_quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The number of a resource reference; `container` is used where the selector names none.
pub fn resource(
    pod: &Pod,
    container: &str,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, FieldError> {
    let wanted = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(container);
    let found = pods::find_container(pod, wanted).map(|(container, _)| container.into_owned());
    let found = found.ok_or_else(|| FieldError::Container(wanted.to_owned()))?;
    let unsupported = || FieldError::Resource(selector.resource.clone());
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let own = found.resources.as_ref();
    let map = match kind {
        "limits" => own.and_then(|resources| resources.limits.as_ref()),
        "requests" => own.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let pod_limits = pods::spec(pod).resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let amount = resources::amount(map, name).or_else(|| {
        let fallback = resources::amount(pod_limits, name).or_else(|| node.allocatable.get(name));
        fallback.filter(|_| kind == "limits")
    });
    let divisor = selector.divisor.as_ref();
    Ok(divided(name, amount.map_or(0, |amount| resources::number(name, amount)), divisor))
}

fn divided(
    name: &str,
    amount: i64,
    divisor: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
) -> String {
    let unit = |quantity| if name == "cpu" { quantity::milli(quantity) } else { quantity::value(quantity) };
    let default = if name == "cpu" { 1000 } else { 1 };
    let divisor = divisor.map(unit).filter(|divisor| *divisor > 0).unwrap_or(default);
    amount.div_euclid(divisor).saturating_add(i64::from(amount.rem_euclid(divisor) != 0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "b": "2", "a": "1\n" } },
            "spec": { "containers": [{ "name": "c", "resources": { "limits": { "cpu": "250m", "memory": "64Mi" } } }] }
        }))
        .unwrap()
    }

    fn at(path: &str) -> Result<String, FieldError> {
        let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
        let ips = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        field(&pod(), &selector, &NodeFacts::default(), &ips)
    }

    #[test]
    fn fields() {
        assert_eq!(at("metadata.labels").unwrap(), "a=\"1\\n\"\nb=\"2\"");
        assert_eq!(at("metadata.labels['b']").unwrap(), "2");
        assert_eq!(at("metadata.annotations['x']").unwrap(), "");
        assert_eq!(at("status.podIPs").unwrap(), "10.0.0.2,fd00::2");
        assert!(at("spec.containers").is_err());
    }

    #[test]
    fn resources() {
        let read = |name: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                container_name: None,
                resource: name.into(),
                divisor: divisor.map(|d| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into())),
            };
            resource(&pod(), "c", &selector, &NodeFacts::default())
        };
        assert_eq!(read("limits.cpu", None).unwrap(), "1");
        assert_eq!(read("limits.cpu", Some("1m")).unwrap(), "250");
        assert_eq!(read("limits.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(read("requests.memory", None).unwrap(), "0");
        assert!(read("limits.x", None).is_err());
    }
}
