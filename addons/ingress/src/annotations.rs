//! Annotations of Ingresses, and the same settings in the ConfigMap.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::policy::{Affinity, Policy, Protocol};

/// What the names of our annotations begin with.
pub(crate) const PREFIX: &str = "nginx.ingress.kubernetes.io/";
/// Most addresses of a list.
const MAX_RANGES: usize = 10_000;

/// The policy of an Ingress: `defaults` with its annotations, and what is wrong with them. A wrong annotation counts as
/// absent, but one that should have kept requests away keeps all away.
pub(crate) fn read(defaults: &Policy, annotations: &BTreeMap<String, String>) -> (Policy, Vec<String>) {
    let mut policy = defaults.clone();
    let mut problems = Vec::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if let Err(problem) = set(&mut policy, name, value.trim()) {
            problems.push(format!("annotation {key}: {problem}"));
        }
    }
    if let Some(affinity) = &mut policy.affinity {
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            if let Err(problem) = set_affinity(affinity, name, value.trim()) {
                problems.push(format!("annotation {key}: {problem}"));
            }
        }
    }
    let given = |name: &str| annotations.get(&format!("{PREFIX}{name}"));
    if let (Some(code), Some(redirect)) = (given("permanent-redirect-code"), &mut policy.redirect)
        && given("temporal-redirect").is_none()
    {
        match code.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(code) if code.is_redirection() => redirect.0 = code,
            _ => problems.push(format!("annotation {PREFIX}permanent-redirect-code: {code:?} is no redirection")),
        }
    }
    (policy, problems)
}

/// One setting; the names are also those of the ConfigMap.
pub(crate) fn set(policy: &mut Policy, name: &str, value: &str) -> Result<(), String> {
    match name {
        "use-regex" => policy.use_regex = boolean(value)?,
        "rewrite-target" => policy.rewrite_target = (!value.is_empty()).then(|| target(value)).transpose()?,
        "ssl-redirect" => policy.ssl_redirect = boolean(value)?,
        "force-ssl-redirect" => policy.force_ssl_redirect = boolean(value)?,
        "proxy-body-size" => policy.body_limit = Some(size(value)?).filter(|limit| *limit > 0),
        "backend-protocol" => policy.protocol = protocol(value)?,
        "proxy-connect-timeout" => policy.connect_timeout = seconds(value)?,
        "proxy-send-timeout" => policy.send_timeout = seconds(value)?,
        "proxy-read-timeout" => policy.read_timeout = seconds(value)?,
        "proxy-next-upstream-tries" => policy.tries = value.parse().map_err(|_| not("a number", value))?,
        "whitelist-source-range" | "allowlist-source-range" => {
            // Nobody comes in while the list cannot be read.
            policy.allowed = vec![IpNet::from(std::net::IpAddr::from([255, 255, 255, 255]))];
            policy.allowed = ranges(value)?;
        }
        "denylist-source-range" => {
            policy.denied = vec![IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
            policy.denied = ranges(value)?;
        }
        "permanent-redirect" => policy.redirect = Some((StatusCode::MOVED_PERMANENTLY, location(value)?)),
        "temporal-redirect" => policy.redirect = Some((StatusCode::FOUND, location(value)?)),
        "app-root" => policy.app_root = Some(location(value).and_then(rooted)?),
        "upstream-vhost" => policy.upstream_vhost = Some(header(value)?),
        "x-forwarded-prefix" => policy.forwarded_prefix = Some(header(value)?),
        "affinity" if value == "cookie" => policy.affinity = Some(Affinity::default()),
        "affinity" => return Err(not("\"cookie\"", value)),
        "permanent-redirect-code" | "affinity-mode" => {}
        name if name.starts_with("session-cookie-") => {}
        _ => return Err("is not supported".into()),
    }
    Ok(())
}

fn set_affinity(affinity: &mut Affinity, name: &str, value: &str) -> Result<(), String> {
    match name {
        "session-cookie-name" => affinity.cookie = token(value)?,
        "session-cookie-path" => affinity.path = Some(attribute(value)?),
        "session-cookie-domain" => affinity.domain = Some(attribute(value)?),
        "session-cookie-samesite" => match value {
            "None" | "Lax" | "Strict" => affinity.same_site = Some(value.to_owned()),
            _ => return Err(not("None, Lax or Strict", value)),
        },
        "session-cookie-max-age" | "session-cookie-expires" => {
            affinity.max_age = Some(value.parse().map_err(|_| not("a number of seconds", value))?);
        }
        "session-cookie-secure" => affinity.secure = Some(boolean(value)?),
        "session-cookie-change-on-failure" => affinity.change_on_failure = boolean(value)?,
        name if name.starts_with("session-cookie-") => return Err("is not supported".into()),
        // Cookies name their back end whatever the mode.
        "affinity-mode" if !["balanced", "persistent"].contains(&value) => {
            return Err(not("balanced or persistent", value));
        }
        _ => {}
    }
    Ok(())
}

fn not(what: &str, value: &str) -> String {
    format!("{value:?} is not {what}")
}

pub(crate) fn boolean(value: &str) -> Result<bool, String> {
    runtime::flags::boolean(value).map_err(|_| not("a boolean", value))
}

fn seconds(value: &str) -> Result<Duration, String> {
    let number = value.strip_suffix('s').unwrap_or(value);
    match number.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err(not("a number of seconds", value)),
    }
}

/// A size as nginx writes it: bytes, or with `k`, `m`, `g`.
fn size(value: &str) -> Result<u64, String> {
    let lower = value.to_ascii_lowercase();
    let (number, unit) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 1 << 10),
        Some((at, 'm')) => (&lower[..at], 1 << 20),
        Some((at, 'g')) => (&lower[..at], 1 << 30),
        _ => (lower.as_str(), 1),
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|n| n.checked_mul(unit)).ok_or_else(|| not("a size", value))
}

fn protocol(value: &str) -> Result<Protocol, String> {
    match value.to_ascii_uppercase().as_str() {
        "HTTP" | "AUTO_HTTP" => Ok(Protocol::Http),
        "HTTPS" => Ok(Protocol::Https),
        "GRPC" => Ok(Protocol::Grpc),
        "GRPCS" => Ok(Protocol::Grpcs),
        _ => Err(not("HTTP, HTTPS, GRPC or GRPCS", value)),
    }
}

fn ranges(value: &str) -> Result<Vec<IpNet>, String> {
    let all: Vec<&str> = value.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if all.is_empty() || all.len() > MAX_RANGES {
        return Err(not("a list of address ranges", value));
    }
    let one = |text: &&str| -> Result<IpNet, String> {
        let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).map_err(|_| not("an address range", text))
    };
    all.iter().map(one).collect()
}

fn header(value: &str) -> Result<HeaderValue, String> {
    let fits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    let header = fits.then(|| HeaderValue::from_str(value).ok()).flatten();
    header.ok_or_else(|| not("a value of a header", value))
}

fn location(value: &str) -> Result<HeaderValue, String> {
    let known = ["/", "http://", "https://"].iter().any(|start| value.starts_with(start));
    if known { header(value) } else { Err(not("an URL or a path", value)) }
}

fn rooted(value: HeaderValue) -> Result<HeaderValue, String> {
    if value.as_bytes().starts_with(b"/") { Ok(value) } else { Err("does not begin with /".into()) }
}

fn target(value: &str) -> Result<String, String> {
    let sound = value.starts_with('/') && value.bytes().all(|b| b.is_ascii_graphic());
    if sound { Ok(value.to_owned()) } else { Err(not("an absolute path", value)) }
}

/// A name of a cookie.
fn token(value: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !value.is_empty() && value.bytes().all(fits) { Ok(value.to_owned()) } else { Err(not("a name", value)) }
}

/// A value of a cookie's attribute.
fn attribute(value: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_graphic() && b != b';' && b != b',';
    if !value.is_empty() && value.bytes().all(fits) { Ok(value.to_owned()) } else { Err(not("an attribute", value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let all = annotations.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned()));
        read(&Policy::default(), &all.collect())
    }

    #[test]
    fn settings() {
        let (policy, problems) = of(&[
            ("rewrite-target", "/admin/$1"),
            ("proxy-body-size", "8m"),
            ("backend-protocol", "grpc"),
            ("proxy-read-timeout", "3600"),
            ("ssl-redirect", "false"),
            ("affinity", "cookie"),
            ("session-cookie-name", "route"),
            ("session-cookie-max-age", "172800"),
            ("permanent-redirect", "https://a.b/"),
            ("permanent-redirect-code", "308"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(policy.rewrite_target.as_deref(), Some("/admin/$1"));
        assert_eq!((policy.body_limit, policy.protocol), (Some(8 << 20), Protocol::Grpc));
        assert_eq!((policy.read_timeout.as_secs(), policy.ssl_redirect), (3600, false));
        let affinity = policy.affinity.expect("affinity");
        assert_eq!((affinity.cookie.as_str(), affinity.max_age), ("route", Some(172_800)));
        assert_eq!(policy.redirect.expect("a redirect").0, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(of(&[("proxy-body-size", "0")]).0.body_limit, None);
    }

    #[test]
    fn problems_are_told() {
        for (name, value) in [
            ("rewrite-target", "admin"),
            ("proxy-body-size", "big"),
            ("proxy-body-size", "99999999999999g"),
            ("backend-protocol", "FCGI"),
            ("proxy-read-timeout", "-1"),
            ("configuration-snippet", "x"),
            ("upstream-vhost", "a\r\nb"),
            ("affinity", "ip"),
        ] {
            let (policy, problems) = of(&[(name, value)]);
            assert_eq!(problems.len(), 1, "{name}={value}");
            assert_eq!(policy, Policy::default(), "{name}={value}");
        }
    }

    #[test]
    fn source_ranges() {
        let admits = |annotations: &[(&str, &str)], address: &str| {
            of(annotations).0.admits(address.parse().expect("an address"))
        };
        let some = [("whitelist-source-range", "10.0.0.0/8, 192.168.1.1")];
        assert!(admits(&some, "10.1.2.3") && admits(&some, "192.168.1.1") && admits(&some, "::ffff:10.0.0.1"));
        assert!(!admits(&some, "192.168.1.2") && !admits(&some, "2001:db8::1"));
        assert!(!admits(&[("denylist-source-range", "10.0.0.0/8")], "10.1.2.3"));
        // A list that cannot be read lets nobody in.
        assert!(!admits(&[("whitelist-source-range", "10.0.0.0/99")], "10.1.2.3"));
        assert!(!admits(&[("denylist-source-range", "10.0.0.0/99")], "11.1.2.3"));
    }
}
