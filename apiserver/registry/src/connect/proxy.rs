//! `nodes/proxy`, `pods/proxy` and `services/proxy`.

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    admission,
    endpoint::{Call, Handler},
    resource::{Resource, decode_cached},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use machinery::{ApiError, ApiResult};
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use serde_json::{Value, json};
use storage::cache::Freshness;
use streaming::{
    forward,
    upgrade::{self, UpgradeRequest},
};

use super::{
    dial::{self, host_port},
    egress::Dialer,
    kubelet::Kubelets,
};

/// Handler of a proxy subresource.
pub struct Proxy {
    /// What the name is of.
    pub to: Destination,
    /// TLS towards Pods and Services: their certificates are not checked.
    pub tls: Arc<ClientConfig>,
    /// How the network of Pods is reached.
    pub dialer: Dialer,
}

/// Where proxied requests go.
pub enum Destination {
    /// A kubelet, or another port of its machine.
    Nodes(Arc<Kubelets>),
    /// A Pod.
    Pods(Arc<Resource>),
    /// A ready endpoint of a Service: the Services, the Endpoints, the Pods behind them.
    Services(Arc<Resource>, Arc<Resource>, Arc<Resource>),
}

impl Destination {
    /// Kind of the options.
    fn kind(&self) -> &'static str {
        match self {
            Self::Nodes(_) => "NodeProxyOptions",
            Self::Pods(_) => "PodProxyOptions",
            Self::Services(..) => "ServiceProxyOptions",
        }
    }
}

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (https, name, port) = match parts.as_slice() {
            [name] => (false, *name, ""),
            [name, port] => (false, *name, *port),
            ["" | "http", name, port] => (false, *name, *port),
            ["https", name, port] => (true, *name, *port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { https, name, port })
    }
}

/// A back end that was chosen.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    /// `None`: plain HTTP.
    tls: bool,
}

impl Target {
    fn authority(&self) -> String {
        host_port(&self.host, self.port)
    }
}

/// Time for looking a name up.
const LOOKUP: std::time::Duration = std::time::Duration::from_secs(5);
const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
/// Response headers that would speak for this server's origin.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

#[async_trait]
impl Handler for Proxy {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        if !METHODS.contains(&call.method) {
            return Err(ApiError::method_not_allowed());
        }
        let request = call.connection.lock().take().ok_or_else(|| ApiError::internal("the connection is taken"))?;
        let uri = request.uri().clone();
        let (prefix, rest) = split(uri.path());
        let options = if rest.is_empty() { json!({}) } else { json!({"path": rest}) };
        let options = admission::connect(call, self.to.kind(), options).await?;
        let rest = options.get("path").and_then(Value::as_str).unwrap_or("");
        if rest.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
            return redirect(&uri);
        }
        let path = if rest.is_empty() { "/" } else { rest };
        let path = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let (target, connection) = self.connect(call).await?;
        if upgrade::is_upgrade(&call.headers) {
            let headers = request.headers().clone();
            let host = target.authority();
            let outgoing = UpgradeRequest { method: call.method.clone(), target: path, host, headers };
            return upgrade::pass_through(request, connection, outgoing).await.map_err(|e| unreachable(&e));
        }
        let host = call.headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let outgoing = outgoing(call, request, &path, uri.path())?;
        let answer = forward::send(connection, outgoing, &host).await.map_err(|e| unreachable(&e))?;
        Ok(cleaned(answer, prefix, &target))
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {error}"))
}

/// The path up to and with `/proxy`, and the rest.
fn split(path: &str) -> (&str, &str) {
    let end = path.match_indices("/proxy").map(|(at, found)| at + found.len());
    // `/api/v1/namespaces/<ns>/pods/<id>/proxy`: names may be "proxy" too, so count the segments.
    let segments = if path.starts_with("/api/v1/nodes/") { 6 } else { 8 };
    let mut ends =
        end.filter(|end| path[..*end].split('/').count() == segments && !path[*end..].starts_with(|c| c != '/'));
    ends.next().map_or((path, ""), |end| path.split_at(end))
}

fn redirect(uri: &http::Uri) -> ApiResult<Response<Body>> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("{}/{query}", uri.path())).map_err(ApiError::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn outgoing(call: &Call, request: Request<Body>, path: &str, external: &str) -> ApiResult<Request<Body>> {
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::builder().method(parts.method).uri(path).body(body).map_err(ApiError::internal)?;
    *outgoing.headers_mut() = parts.headers;
    let headers = outgoing.headers_mut();
    headers.remove(header::AUTHORIZATION);
    if let Ok(value) = HeaderValue::from_str(external) {
        headers.insert("x-forwarded-uri", value);
    }
    if let Some(address) = call.peer.address {
        let before = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
        let chain = before.map_or_else(|| address.ip().to_string(), |before| format!("{before}, {}", address.ip()));
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert("x-forwarded-for", value);
        }
    }
    Ok(outgoing)
}

/// The back end's answer: without CORS headers, and with redirects that lead through the proxy again.
fn cleaned(mut answer: Response<Body>, prefix: &str, target: &Target) -> Response<Body> {
    let headers = answer.headers_mut();
    for name in CORS {
        headers.remove(name);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let moved = location.and_then(|location| through(location, prefix, target));
    if let Some(value) = moved.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(header::LOCATION, value);
    }
    answer
}

/// A location of the same host, as it is reached through the proxy.
fn through(location: &str, prefix: &str, target: &Target) -> Option<String> {
    let own = [format!("http://{}", target.authority()), format!("https://{}", target.authority())];
    let path = own.iter().find_map(|origin| location.strip_prefix(origin.as_str())).unwrap_or(location);
    let absolute = path.starts_with('/') && !path.starts_with("//");
    (absolute && !path.starts_with(prefix)).then(|| format!("{prefix}{path}"))
}

impl Proxy {
    async fn connect(&self, call: &Call) -> ApiResult<(Target, streaming::Connection)> {
        if let Destination::Nodes(kubelets) = &self.to {
            return node(kubelets, &call.info.name).await;
        }
        let target = match &self.to {
            Destination::Pods(pods) => pod(call, pods).await?,
            Destination::Services(services, endpoints, pods) => service(call, services, endpoints, pods).await?,
            Destination::Nodes(_) => return Err(ApiError::internal("unreachable destination")),
        };
        let tls = target.tls.then_some(&self.tls);
        let connection =
            dial::connect(&self.dialer, &target.host, target.port, tls).await.map_err(|e| unreachable(&e))?;
        Ok((target, connection))
    }
}

async fn node(kubelets: &Kubelets, id: &str) -> ApiResult<(Target, streaming::Connection)> {
    let bad = || ApiError::bad_request(format!("invalid node request {id:?}"));
    let Id { https, name, port } = Id::parse(id).ok_or_else(bad)?;
    let kubelet = kubelets.of(name).await?;
    let wanted: Option<u16> = if port.is_empty() { None } else { Some(port.parse().map_err(|_| bad())?) };
    // The kubelet's own port is spoken to as a kubelet, whatever the scheme.
    let Some(port) = wanted.filter(|port| *port != kubelet.port) else {
        let target = Target { host: kubelet.host.clone(), port: kubelet.port, tls: true };
        return Ok((target, kubelets.connect(&kubelet, true).await.map_err(|e| unreachable(&e))?));
    };
    // Another port could be one of this machine's own: the name is looked up once, and what was checked is dialled
    // (CVE-2020-8562, CVE-2022-3294).
    let looked_up = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((kubelet.host.as_str(), port))).await;
    let found: Vec<IpAddr> = match looked_up {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"the name was not looked up in time")),
    };
    let address = found.first().filter(|_| found.iter().all(|address| is_pod_address(*address)));
    let host = address.ok_or_else(|| ApiError::bad_request("address not allowed"))?.to_string();
    let connection = dial::connect(&kubelets.dialer, &host, port, https.then_some(&kubelets.unverified)).await;
    Ok((Target { host, port, tls: https }, connection.map_err(|e| unreachable(&e))?))
}

/// Addresses that a Pod may have; others would turn the server into a way to its own networks.
pub fn is_pod_address(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

async fn object(resource: &Resource, namespace: &str, name: &str) -> ApiResult<Value> {
    Ok(decode_cached(&*resource.get(namespace, name, Freshness::Any).await?)?.object)
}

fn first_port(pod: &Value) -> Option<u64> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let mut ports = containers.iter().filter_map(|c| c["ports"].as_array()).flatten();
    ports.find_map(|port| port["containerPort"].as_u64())
}

async fn pod(call: &Call, pods: &Resource) -> ApiResult<Target> {
    let id = call.info.name.as_str();
    let bad = || ApiError::bad_request(format!("invalid pod request {id:?}"));
    let Id { https, name, port } = Id::parse(id).ok_or_else(bad)?;
    let pod = object(pods, &call.info.namespace, name).await?;
    let host = pod.pointer("/status/podIP").and_then(Value::as_str).unwrap_or("");
    let address: Option<IpAddr> = host.parse().ok();
    if !address.is_some_and(is_pod_address) {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let port = match port {
        "" => first_port(&pod).and_then(|p| u16::try_from(p).ok()).unwrap_or(if https { 443 } else { 80 }),
        text => text.parse().map_err(|_| bad())?,
    };
    Ok(Target { host: host.to_owned(), port, tls: https })
}

async fn service(call: &Call, services: &Resource, endpoints: &Resource, pods: &Resource) -> ApiResult<Target> {
    let (id, namespace) = (call.info.name.as_str(), call.info.namespace.as_str());
    let bad = || ApiError::bad_request(format!("invalid service request {id:?}"));
    let none = || ApiError::unavailable(format!("no endpoints available for service {id:?}"));
    let Id { https, name, port } = Id::parse(id).ok_or_else(bad)?;
    let service = object(services, namespace, name).await?;
    let port = port_name(&service, name, port)?;
    let endpoints = object(endpoints, namespace, name).await.map_err(|e| if e.is_not_found() { none() } else { e })?;
    let mut candidates = candidates(&endpoints, &port);
    while !candidates.is_empty() {
        let chosen = candidates.choose(&mut rand::rng()).cloned().ok_or_else(none)?;
        candidates.retain(|candidate| candidate != &chosen);
        let pod = match object(pods, namespace, &chosen.pod).await {
            Ok(pod) => pod,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let has = pod["status"]["podIPs"].as_array().is_some_and(|ips| ips.iter().any(|ip| ip["ip"] == chosen.address));
        if has && chosen.address.parse().is_ok_and(is_pod_address) {
            return Ok(Target { host: chosen.address, port: chosen.port, tls: https });
        }
    }
    Err(none())
}

/// The name of the Service port that was asked for by name or number.
fn port_name(service: &Value, name: &str, port: &str) -> ApiResult<String> {
    let Ok(number) = port.parse::<u64>() else { return Ok(port.to_owned()) };
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let found = ports.into_iter().flatten().find(|p| p["port"] == number);
    let missing = || ApiError::unavailable(format!("no service port {number} found for service {name:?}"));
    Ok(found.ok_or_else(missing)?["name"].as_str().unwrap_or("").to_owned())
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    address: String,
    port: u16,
    pod: String,
}

fn candidates(endpoints: &Value, port: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        let ports = subset["ports"].as_array().into_iter().flatten();
        let number = ports.filter(|p| p["name"].as_str().unwrap_or("") == port).find_map(|p| p["port"].as_u64());
        let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
        for address in subset["addresses"].as_array().into_iter().flatten() {
            let reference = &address["targetRef"];
            if let (Some(ip), Some(pod), "Pod") =
                (address["ip"].as_str(), reference["name"].as_str(), reference["kind"].as_str().unwrap_or(""))
            {
                found.push(Candidate { address: ip.to_owned(), port: number, pod: pod.to_owned() });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids() {
        let id = |https, name, port| Some(Id { https, name, port });
        for (text, wanted) in [
            ("a", id(false, "a", "")),
            ("a:80", id(false, "a", "80")),
            ("https:a:web", id(true, "a", "web")),
            (":a:", id(false, "a", "")),
            ("ftp:a:1", None),
            ("", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(Id::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn paths_split_at_the_subresource() {
        for (path, prefix, rest) in [
            ("/api/v1/namespaces/ns/pods/p/proxy", "/api/v1/namespaces/ns/pods/p/proxy", ""),
            (
                "/api/v1/namespaces/proxy/pods/proxy/proxy/a/proxy",
                "/api/v1/namespaces/proxy/pods/proxy/proxy",
                "/a/proxy",
            ),
            ("/api/v1/nodes/n/proxy/healthz/", "/api/v1/nodes/n/proxy", "/healthz/"),
        ] {
            assert_eq!(split(path), (prefix, rest));
        }
    }

    #[test]
    fn locations_lead_through_the_proxy() {
        let target = Target { host: "10.0.0.1".into(), port: 80, tls: false };
        let through = |location| through(location, "/p/proxy", &target);
        assert_eq!(through("/login?x=1").as_deref(), Some("/p/proxy/login?x=1"));
        assert_eq!(through("http://10.0.0.1:80/x").as_deref(), Some("/p/proxy/x"));
        assert_eq!(through("https://elsewhere/x"), None);
        assert_eq!(through("//elsewhere/x"), None);
        assert_eq!(through("/p/proxy/x"), None);
    }

    #[test]
    fn only_pods_of_endpoints_are_reached() {
        let endpoints = json!({"subsets": [{
            "addresses": [{"ip": "10.1.0.2", "targetRef": {"kind": "Pod", "name": "a"}}, {"ip": "169.254.169.254"}],
            "ports": [{"name": "web", "port": 8080}],
        }]});
        let found = candidates(&endpoints, "web");
        assert_eq!(found, [Candidate { address: "10.1.0.2".into(), port: 8080, pod: "a".into() }]);
        assert_eq!(candidates(&endpoints, ""), []);
        assert!(!is_pod_address([169, 254, 169, 254].into()) && !is_pod_address([127, 0, 0, 1].into()));
    }

    #[test]
    fn ports_of_services() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}]}});
        assert_eq!(port_name(&service, "s", "80").unwrap(), "web");
        assert_eq!(port_name(&service, "s", "web").unwrap(), "web");
        let error = port_name(&service, "s", "81").unwrap_err();
        assert_eq!(error.status().message, "no service port 81 found for service \"s\"");
    }
}
