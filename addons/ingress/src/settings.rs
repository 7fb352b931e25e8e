//! Settings of the whole controller: its ConfigMap.

use std::collections::BTreeMap;

use http::HeaderValue;

use crate::{
    annotations::{self, boolean},
    policy::Policy,
};

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// What Ingresses begin with.
    pub(crate) policy: Policy,
    /// Whether `X-Forwarded-*` of clients are believed: there is another proxy in front.
    pub(crate) use_forwarded_headers: bool,
    /// `Strict-Transport-Security` of hosts with a certificate.
    pub(crate) hsts: Option<HeaderValue>,
}

impl Default for Settings {
    fn default() -> Self {
        let hsts = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        Self { policy: Policy::default(), use_forwarded_headers: false, hsts: Some(hsts) }
    }
}

/// Keys that set the policy of all Ingresses.
const OF_POLICY: [&str; 9] = [
    "ssl-redirect",
    "force-ssl-redirect",
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-send-timeout",
    "proxy-read-timeout",
    "proxy-next-upstream-tries",
    "whitelist-source-range",
    "denylist-source-range",
];

/// Settings of a ConfigMap, and what is wrong with it.
pub(crate) fn read(data: &BTreeMap<String, String>) -> (Settings, Vec<String>) {
    let mut settings = Settings::default();
    let mut problems = Vec::new();
    let (mut hsts, mut age, mut subdomains, mut preload) = (true, 31_536_000_u64, true, false);
    for (key, value) in data {
        let value = value.trim();
        let done = match key.as_str() {
            "use-forwarded-headers" => boolean(value).map(|on| settings.use_forwarded_headers = on),
            "hsts" => boolean(value).map(|on| hsts = on),
            "hsts-include-subdomains" => boolean(value).map(|on| subdomains = on),
            "hsts-preload" => boolean(value).map(|on| preload = on),
            "hsts-max-age" => value.parse().map(|n| age = n).map_err(|_| format!("{value:?} is not a number")),
            key if OF_POLICY.contains(&key) => annotations::set(&mut settings.policy, key, value),
            _ => Err("is not supported".into()),
        };
        if let Err(problem) = done {
            problems.push(format!("setting {key}: {problem}"));
        }
    }
    let mut text = format!("max-age={age}");
    text += if subdomains { "; includeSubDomains" } else { "" };
    text += if preload { "; preload" } else { "" };
    settings.hsts = hsts.then(|| HeaderValue::from_str(&text).ok()).flatten();
    (settings, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_config_map() {
        let data = [("proxy-body-size", "3m"), ("hsts-max-age", "5"), ("use-forwarded-headers", "true"), ("zz", "1")];
        let (settings, problems) = read(&data.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(problems, ["setting zz: is not supported"]);
        assert_eq!(settings.policy.body_limit, Some(3 << 20));
        assert_eq!(settings.hsts.expect("a header"), "max-age=5; includeSubDomains");
        assert!(settings.use_forwarded_headers);
        assert_eq!(read(&BTreeMap::new()).0, Settings::default());
    }
}
