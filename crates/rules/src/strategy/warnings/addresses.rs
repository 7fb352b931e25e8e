//! Addresses that are read differently by different programs.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Warnings;
use crate::validation::{lenient_cidr, lenient_ip};

/// Warns about an IP address in an unusual form.
pub(super) fn ip(value: &str, path: &str, warnings: &mut Warnings) {
    let Some(address) = lenient_ip(value) else { return };
    let plain = match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let odd = value.parse::<IpAddr>().is_err() || plain != address;
    if odd {
        warnings.add(format!("{path}: non-standard IP address \"{value}\" is invalid: use \"{plain}\""));
    } else if address.is_ipv6() && address.to_string() != value {
        warnings
            .add(format!("{path}: IPv6 address \"{value}\" should be in RFC 5952 canonical format (\"{address}\")"));
    }
}

/// Warns about a CIDR in an unusual form.
pub(super) fn cidr(value: &str, path: &str, warnings: &mut Warnings) {
    let Some((address, length)) = lenient_cidr(value) else { return };
    let Ok(net) = IpNet::new(address, length) else { return };
    let whole = net.trunc();
    if whole.addr() != address {
        let host = if address.is_ipv4() { 32 } else { 128 };
        warnings.add(format!(
            "{path}: CIDR value \"{value}\" is ambiguous in this context (should be \"{whole}\" or \
             \"{address}/{host}\"?)"
        ));
        return;
    }
    let (text, digits) = value.split_once('/').unwrap_or((value, ""));
    let odd = text.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0'));
    if odd {
        warnings.add(format!("{path}: non-standard CIDR value \"{value}\" is invalid: use \"{whole}\""));
    } else if address.is_ipv6() && whole.to_string() != value {
        warnings
            .add(format!("{path}: IPv6 CIDR value \"{value}\" should be in RFC 5952 canonical format (\"{whole}\")"));
    }
}
