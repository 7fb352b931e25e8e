//! Host names, `/etc/hosts` and resolver configuration of Pods, all pure.

pub(crate) mod chains;
pub mod dns;
pub mod hosts;

use k8s_openapi::api::core::v1::Pod;

use crate::pods;

const MAX_HOSTNAME: usize = 63;
const MAX_FQDN: usize = 64;

/// A host name that the kernel cannot hold.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {length} characters requested)"
)]
pub struct FqdnError {
    fqdn: String,
    length: usize,
}

/// `(host name, domain)` of a Pod; the domain is empty without a subdomain.
pub fn host_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pods::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (truncate(name), String::new());
    }
    let host = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(|| pods::name(pod));
    let domain = match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", pods::namespace(pod)),
        None => String::new(),
    };
    (truncate(host), domain)
}

fn truncate(name: &str) -> String {
    let cut: String = name.chars().take(MAX_HOSTNAME).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// What the kernel is told: the host name, or the whole name if the Pod asks for that.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, FqdnError> {
    let (host, domain) = host_and_domain(pod, cluster_domain);
    if pods::spec(pod).set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(host);
    }
    let fqdn = format!("{host}.{domain}");
    if fqdn.len() > MAX_FQDN {
        return Err(FqdnError { length: fqdn.len(), fqdn });
    }
    Ok(fqdn)
}
