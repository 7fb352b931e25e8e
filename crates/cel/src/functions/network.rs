//! Addresses, networks and URLs.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::failed;
use crate::{
    eval::Outcome,
    value::{Url, Val},
};

/// An address, without zones and without IPv4 dressed as IPv6.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

fn parse_cidr(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok()?;
    parse_ip(&net.addr().to_string()).map(|_| net)
}

/// An absolute URL or an absolute path.
fn parse_url(text: &str) -> Option<Url> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => {
            let mut chars = scheme.chars();
            let valid = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
                && chars.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            (valid.then_some(scheme)?, rest)
        }
        None if text.starts_with('/') => ("", text),
        None => return None,
    };
    if text.chars().any(|c| c.is_ascii_control() || c == ' ') {
        return None;
    }
    let rest = rest.split('#').next().unwrap_or("");
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match scheme.is_empty() {
        true => ("", place),
        false => place.find('/').map_or((place, ""), |at| place.split_at(at)),
    };
    let host = host.rsplit('@').next().unwrap_or("");
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    });
    Some(Url { scheme: scheme.to_owned(), host: host.to_owned(), path: path.to_owned(), query: query.collect() })
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    match args {
        [Val::Ip(ip)] => return of_ip(name, *ip).map(Ok),
        [Val::Cidr(net), rest @ ..] => return of_cidr(name, net, rest),
        [Val::Url(url)] => return of_url(name, url).map(Ok),
        _ => {}
    }
    let [value] = args else { return None };
    let text = value.as_str()?;
    let wrong = |what: &str| failed(format!("{what} {text:?} parse error during conversion from string"));
    Some(match name {
        "ip" => parse_ip(text).map(Val::Ip).ok_or_else(|| wrong("IP Address")),
        "isIP" => Ok(Val::Bool(parse_ip(text).is_some())),
        "ip.isCanonical" => match parse_ip(text) {
            Some(ip) => Ok(Val::Bool(ip.to_string() == text)),
            None => Err(wrong("IP Address")),
        },
        "cidr" => parse_cidr(text).map(Val::Cidr).ok_or_else(|| wrong("network address")),
        "isCIDR" => Ok(Val::Bool(parse_cidr(text).is_some())),
        "url" => parse_url(text).map(|url| Val::Url(Arc::new(url))).ok_or_else(|| wrong("URL")),
        "isURL" => Ok(Val::Bool(parse_url(text).is_some())),
        _ => return None,
    })
}

fn of_ip<'a>(name: &str, ip: IpAddr) -> Option<Val<'a>> {
    let is_link_local = |multicast: bool| match (ip, multicast) {
        (IpAddr::V4(v4), false) => v4.is_link_local(),
        (IpAddr::V6(v6), false) => v6.segments()[0] & 0xffc0 == 0xfe80,
        (IpAddr::V4(v4), true) => v4.octets()[..3] == [224, 0, 0],
        (IpAddr::V6(v6), true) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    Some(match name {
        ".family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        ".isUnspecified" => Val::Bool(ip.is_unspecified()),
        ".isLoopback" => Val::Bool(ip.is_loopback()),
        ".isLinkLocalUnicast" => Val::Bool(is_link_local(false)),
        ".isLinkLocalMulticast" => Val::Bool(is_link_local(true)),
        ".isGlobalUnicast" => {
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(false);
            Val::Bool(!broadcast && !special)
        }
        _ => return None,
    })
}

fn of_cidr<'a>(name: &str, net: &IpNet, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let network = net.trunc();
    Some(Ok(match (name, rest) {
        (".containsIP", [Val::Ip(ip)]) => Val::Bool(network.contains(ip)),
        (".containsIP", [text]) => match parse_ip(text.as_str()?) {
            Some(ip) => Val::Bool(network.contains(&ip)),
            None => return Some(Err(failed("IP Address parse error during conversion from string"))),
        },
        (".containsCIDR", [Val::Cidr(other)]) => Val::Bool(network.contains(&other.trunc())),
        (".containsCIDR", [text]) => match parse_cidr(text.as_str()?) {
            Some(other) => Val::Bool(network.contains(&other.trunc())),
            None => return Some(Err(failed("network address parse error during conversion from string"))),
        },
        (".ip", []) => Val::Ip(net.addr()),
        (".masked", []) => Val::Cidr(network),
        (".prefixLength", []) => Val::Int(i64::from(net.prefix_len())),
        _ => return None,
    }))
}

fn of_url<'a>(name: &str, url: &Url) -> Option<Val<'a>> {
    let host = url.host.as_str();
    let (hostname, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, port)) => (inner, port.trim_start_matches(':')),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    Some(match name {
        ".getScheme" => Val::text(url.scheme.as_str()),
        ".getHost" => Val::text(host),
        ".getHostname" => Val::text(hostname),
        ".getPort" => Val::text(port),
        ".getEscapedPath" => Val::text(url.path.as_str()),
        ".getQuery" => {
            let mut map: Vec<(Val<'a>, Vec<Val<'a>>)> = Vec::new();
            for (key, value) in &url.query {
                let value = Val::text(value.as_str());
                match map.iter_mut().find(|(own, _)| own.as_str() == Some(key)) {
                    Some((_, values)) => values.push(value),
                    None => map.push((Val::text(key.as_str()), vec![value])),
                }
            }
            Val::Map(map.into_iter().map(|(key, values)| (key, Val::list(values))).collect::<Vec<_>>().into())
        }
        _ => return None,
    })
}
