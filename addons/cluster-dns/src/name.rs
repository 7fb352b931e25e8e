//! Names as labels: what is below a zone, addresses in names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// Labels of `name` below `zone`, lower case; `None` if it is not in the zone.
pub(crate) fn below(zone: &Name, name: &Name) -> Option<Vec<String>> {
    if !zone.zone_of(name) {
        return None;
    }
    let count = name.iter().count().saturating_sub(zone.iter().count());
    Some(name.iter().take(count).map(|l| String::from_utf8_lossy(l).to_lowercase()).collect())
}

/// `labels` in front of `zone`; `None` if that is too long for a name.
pub(crate) fn within(zone: &Name, labels: &[&str]) -> Option<Name> {
    let labels = labels.iter().map(|l| l.as_bytes()).chain(zone.iter());
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The name a text of an object stands for; `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text.trim_end_matches('.')).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// An address in a label: dots and colons are dashes there.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label stands for.
pub(crate) fn from_dashed(label: &str) -> Option<IpAddr> {
    if let Ok(v4) = label.replace('-', ".").parse::<Ipv4Addr>() {
        return Some(v4.into());
    }
    label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// The address that a name below `in-addr.arpa.` or `ip6.arpa.` stands for.
pub(crate) fn reversed(name: &Name) -> Option<IpAddr> {
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).to_lowercase()).collect();
    match labels.as_slice() {
        [d, c, b, a, zone, top] if zone == "in-addr" && top == "arpa" => {
            let mut octets = [0; 4];
            for (octet, label) in octets.iter_mut().zip([a, b, c, d]) {
                *octet = label.parse().ok()?;
            }
            Some(Ipv4Addr::from(octets).into())
        }
        [nibbles @ .., zone, top] if nibbles.len() == 32 && zone == "ip6" && top == "arpa" => {
            let mut bits = 0_u128;
            for label in nibbles.iter().rev() {
                if label.len() != 1 {
                    return None;
                }
                bits = bits << 4 | u128::from_str_radix(label, 16).ok()?;
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_below_a_zone() {
        let zone = parse("cluster.local").expect("name");
        let name = parse("Web.Default.svc.CLUSTER.local.").expect("name");
        assert_eq!(below(&zone, &name).expect("inside"), ["web", "default", "svc"]);
        assert_eq!(below(&zone, &parse("xcluster.local").expect("name")), None);
        let made = within(&zone, &["web", "default", "svc"]).expect("a name");
        assert_eq!(made, name);
        assert_eq!(within(&zone, &["x".repeat(64).as_str()]), None);
    }

    #[test]
    fn addresses_in_names() {
        for (label, address) in [
            ("10-1-2-3", Some("10.1.2.3")),
            ("fd00-10--7", Some("fd00:10::7")),
            ("10-1-2", None),
            ("10-1-2-300", None),
            ("web", None),
        ] {
            assert_eq!(from_dashed(label), address.map(|a| a.parse().expect("address")), "{label}");
        }
        assert_eq!(dashed("10.1.2.3".parse().expect("address")), "10-1-2-3");
        let nibbles = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";
        for (name, address) in [
            ("3.2.1.10.in-addr.arpa.", Some("10.1.2.3")),
            (nibbles, Some("fd00:10::7")),
            ("2.1.10.in-addr.arpa.", None),
            ("x.2.1.10.in-addr.arpa.", None),
            ("example.org.", None),
        ] {
            let name = parse(name).expect("name");
            assert_eq!(reversed(&name), address.map(|a| a.parse().expect("address")), "{name}");
        }
    }
}
