//! Session affinity: a cookie that names the endpoint of a client's session, so that every controller finds it.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

use crate::policy::Affinity;

/// What a cookie says instead of an address.
fn name_of(endpoint: &SocketAddr) -> String {
    let digest = Sha256::digest(format!("endpoint {endpoint}"));
    hex::encode(&digest[..16])
}

/// The endpoint a request's cookie names.
pub(crate) fn chosen(affinity: &Affinity, headers: &HeaderMap, among: &[SocketAddr]) -> Option<SocketAddr> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == affinity.cookie)?;
    among.iter().find(|endpoint| name_of(endpoint) == value).copied()
}

/// The cookie for an endpoint.
pub(crate) fn cookie(affinity: &Affinity, path: &str, endpoint: &SocketAddr, https: bool) -> Option<HeaderValue> {
    let path = affinity.path.as_deref().unwrap_or(path);
    let mut text = format!("{}={}; Path={path}; HttpOnly", affinity.cookie, name_of(endpoint));
    if affinity.secure.unwrap_or(https) {
        text += "; Secure";
    }
    if let Some(domain) = &affinity.domain {
        text += &format!("; Domain={domain}");
    }
    if let Some(same_site) = &affinity.same_site {
        text += &format!("; SameSite={same_site}");
    }
    if let Some(age) = affinity.max_age {
        text += &format!("; Max-Age={age}");
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_leads_back() {
        let endpoints: Vec<SocketAddr> = (1..4).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect();
        let affinity = Affinity { max_age: Some(60), ..Affinity::default() };
        let set = cookie(&affinity, "/", &endpoints[1], true).expect("a cookie");
        let set = set.to_str().expect("text");
        assert!(set.ends_with("; Path=/; HttpOnly; Secure; Max-Age=60"), "{set}");
        let pair = set.split(';').next().unwrap_or_default();
        let headers = |value: &str| -> HeaderMap {
            [(header::COOKIE, HeaderValue::from_str(value).expect("valid"))].into_iter().collect()
        };
        assert_eq!(chosen(&affinity, &headers(&format!("a=b; {pair}; c")), &endpoints), Some(endpoints[1]));
        assert_eq!(chosen(&affinity, &headers(pair), &endpoints[2..]), None);
        assert_eq!(chosen(&affinity, &headers("INGRESSCOOKIE=x"), &endpoints), None);
    }
}
