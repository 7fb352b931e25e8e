//! `[LOCAL:]REMOTE`, by number or name.

use serde_json::Value;

/// A local port and the port of the Pod behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// 0 lets the system choose.
    pub(super) local: u16,
    pub(super) remote: u16,
    /// What is told of the remote port.
    pub(super) shown: u16,
}

impl Pair {
    /// Reads a pair of a Pod, or of a Service that leads to it.
    pub(super) fn resolve(spec: &str, service: Option<&Value>, pod: &Value) -> Result<Self, String> {
        let parts: Vec<&str> = spec.split(':').collect();
        let (local, remote) = match parts.as_slice() {
            [one] => (*one, *one),
            [local, remote] => (*local, *remote),
            _ => return Err(format!("invalid port format '{spec}'")),
        };
        let same = parts.len() == 1;
        let target = match service {
            Some(service) => of_service(remote, service, pod)?,
            None => of_pod(remote, pod, same)?,
        };
        let local = match local {
            _ if same && service.is_some() => by_service_number(remote, service, target)?,
            _ if same => target,
            "" => 0,
            text => number(text, "local", text)?,
        };
        Ok(Self { local, remote: target, shown: target })
    }
}

fn number(text: &str, side: &str, shown: &str) -> Result<u16, String> {
    match text.parse::<u64>() {
        Ok(port) => u16::try_from(port).map_err(|_| {
            format!("error parsing {side} port '{shown}': strconv.ParseUint: parsing {text:?}: value out of range")
        }),
        Err(_) => {
            Err(format!("error parsing {side} port '{shown}': strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }
    }
}

fn of_pod(remote: &str, pod: &Value, same: bool) -> Result<u16, String> {
    if remote.chars().all(|c| c.is_ascii_digit()) {
        let port = number(remote, if same { "local" } else { "remote" }, remote)?;
        if let Some(container) = container_port(pod, |p| p["containerPort"].as_u64() == Some(u64::from(port)))
            && container["protocol"] == "UDP"
        {
            return Err(format!("UDP protocol is not supported for {remote}"));
        }
        return if port == 0 { Err("remote port must be > 0".into()) } else { Ok(port) };
    }
    let found = container_port(pod, |port| port["name"] == remote);
    found
        .and_then(|port| port["containerPort"].as_u64())
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| format!("Pod '{}' does not have a named port '{remote}'", name(pod)))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("")
}

fn container_port(pod: &Value, fits: impl Fn(&Value) -> bool) -> Option<&Value> {
    let containers = ["containers", "initContainers"].iter().filter_map(|list| pod["spec"][*list].as_array()).flatten();
    containers.filter_map(|container| container["ports"].as_array()).flatten().find(|port| fits(port))
}

fn service_port<'a>(text: &str, service: &'a Value) -> Result<&'a Value, String> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut fitting = ports.filter(|port| match text.parse::<u64>() {
        Ok(number) => port["port"].as_u64() == Some(number),
        Err(_) => port["name"] == text,
    });
    fitting.next().ok_or_else(|| match text.parse::<u64>() {
        Ok(_) => format!("Service {} does not have a service port {text}", name(service)),
        Err(_) => format!("Service '{}' does not have a named port '{text}'", name(service)),
    })
}

/// The port of the Pod behind the port of a Service.
fn of_service(remote: &str, service: &Value, pod: &Value) -> Result<u16, String> {
    let port = service_port(remote, service)?;
    if port["protocol"] == "UDP" {
        return Err(format!("UDP protocol is not supported for {remote}"));
    }
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    if service["spec"]["clusterIP"] == "None" {
        return number(&port["port"]).ok_or_else(|| format!("Service {} has no port {remote}", name(service)));
    }
    match &port["targetPort"] {
        Value::String(text) => of_pod(text, pod, false),
        target => Ok(number(target).filter(|port| *port > 0).or_else(|| number(&port["port"])).unwrap_or(0)),
    }
}

/// The local port of a Service's port that was given alone: its own number.
fn by_service_number(remote: &str, service: Option<&Value>, target: u16) -> Result<u16, String> {
    let Some(service) = service else { return Ok(target) };
    let port = service_port(remote, service)?["port"].as_u64();
    Ok(port.and_then(|port| u16::try_from(port).ok()).unwrap_or(target))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_of_pods_and_services() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports":
            [{"containerPort": 8080, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "1.1.1.1", "ports":
            [{"port": 80, "name": "web", "targetPort": "http"}, {"port": 81, "targetPort": 9}]}});
        let pair = |spec: &str, of_service: bool| {
            Pair::resolve(spec, Some(&service).filter(|_| of_service), &pod).map(|pair| (pair.local, pair.remote))
        };
        assert_eq!(pair("80", false), Ok((80, 80)));
        assert_eq!(pair("5000:http", false), Ok((5000, 8080)));
        assert_eq!(pair(":80", false), Ok((0, 80)));
        assert_eq!(pair("80", true), Ok((80, 8080)));
        assert_eq!(pair("web", true), Ok((80, 8080)));
        assert_eq!(pair("1:81", true), Ok((1, 9)));
        assert_eq!(pair("82", true), Err("Service s does not have a service port 82".into()));
        assert_eq!(pair("nope", false), Err("Pod 'p' does not have a named port 'nope'".into()));
        assert_eq!(pair("53", false), Err("UDP protocol is not supported for 53".into()));
        assert!(pair("99999", false).is_err() && pair("1:2:3", false).is_err());
    }
}
