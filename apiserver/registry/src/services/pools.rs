//! Ranges that cluster IPs are given out from: pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use serde_json::Value;

use super::families;

/// Shortest prefix of an IPv6 range.
const SHORTEST_V6: u8 = 64;

/// One range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pool(pub(super) IpNet);

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Pool {
    pub(super) fn new(range: IpNet) -> Option<Self> {
        let short = matches!(range, IpNet::V6(v6) if v6.prefix_len() < SHORTEST_V6);
        (!short).then(|| Self(range.trunc()))
    }

    pub(super) fn family(self) -> &'static str {
        families::family(matches!(self.0, IpNet::V4(_)))
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// The numbers of the addresses that can be given out: not the network's own, nor the broadcast address of IPv4.
    fn numbers(self) -> RangeInclusive<u128> {
        let last = number(self.0.broadcast());
        let first = number(self.0.network()) + 1;
        first..=(if self.0.addr().is_ipv4() { last - 1 } else { last })
    }

    /// How many of the first ones are left to those who ask for an address.
    fn reserved(self) -> u128 {
        let size = 1_u128 << (self.0.max_prefix_len() - self.0.prefix_len());
        if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
    }

    /// What is given out first, and what is given out when that is used up.
    pub(super) fn bands(self) -> (RangeInclusive<u128>, RangeInclusive<u128>) {
        let (first, last) = self.numbers().into_inner();
        let middle = first + self.reserved();
        (middle..=last, first..=(middle - 1))
    }

    pub(super) fn address(self, number: u128) -> IpAddr {
        match self.0 {
            // The numbers of an IPv4 range have 32 bits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or_default())),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// The first address that can be given out.
    pub(super) fn first(self) -> IpAddr {
        self.address(*self.numbers().start())
    }

    pub(super) fn gives(self, address: IpAddr) -> bool {
        self.contains(address) && self.numbers().contains(&number(address))
    }
}

/// The ranges of a ServiceCIDR.
pub(super) fn ranges_of(object: &Value) -> impl Iterator<Item = Pool> {
    let list = object.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|range| Pool::new(range.as_str()?.parse().ok()?))
}

/// Whether addresses are given out from a ServiceCIDR. One that nobody has looked at yet is ready.
pub(super) fn is_ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    !machinery::meta::is_deleting(object) && ready.is_none_or(|ready| ready["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(text: &str) -> Pool {
        Pool::new(text.parse().expect("a range")).expect("a pool")
    }

    #[test]
    fn ranges_give_all_but_their_ends() {
        for (range, address, expected) in [
            ("10.0.0.0/28", "10.0.0.0", false),
            ("10.0.0.0/28", "10.0.0.1", true),
            ("10.0.0.0/28", "10.0.0.14", true),
            ("10.0.0.0/28", "10.0.0.15", false),
            ("10.0.0.0/28", "10.0.0.16", false),
            ("fd00::/112", "fd00::", false),
            ("fd00::/112", "fd00::1", true),
            ("fd00::/112", "fd00::ffff", true),
            ("fd00::/112", "fd00::1:0", false),
            ("fd00::/112", "10.0.0.1", false),
            ("10.0.0.4/32", "10.0.0.4", false),
        ] {
            assert_eq!(pool(range).gives(address.parse().expect("an address")), expected, "{address} of {range}");
        }
        assert_eq!(Pool::new("fd00::/63".parse().expect("a range")), None);
    }

    #[test]
    fn the_upper_part_is_given_out_first() {
        for (range, upper, lower) in [
            ("10.0.0.0/28", ("10.0.0.1", "10.0.0.14"), None),
            ("10.0.0.0/24", ("10.0.0.17", "10.0.0.254"), Some(("10.0.0.1", "10.0.0.16"))),
            ("10.0.0.0/16", ("10.0.1.1", "10.0.255.254"), Some(("10.0.0.1", "10.0.1.0"))),
            ("fd00::/112", ("fd00::101", "fd00::ffff"), Some(("fd00::1", "fd00::100"))),
            ("fd00::/64", ("fd00::101", "fd00::ffff:ffff:ffff:ffff"), Some(("fd00::1", "fd00::100"))),
        ] {
            let pool = pool(range);
            let ends = |band: RangeInclusive<u128>| {
                let text = |number: &u128| pool.address(*number).to_string();
                (!band.is_empty()).then(|| (text(band.start()), text(band.end())))
            };
            let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
            let (first, second) = pool.bands();
            assert_eq!((ends(first), ends(second)), (Some(owned(upper)), lower.map(owned)), "{range}");
        }
        assert!(pool("10.0.0.4/32").bands().0.is_empty());
    }

    #[test]
    fn ranges_that_are_going_give_nothing() {
        let mut object = json!({"metadata": {}, "spec": {"cidrs": ["10.1.0.0/24", "fd00::/112"]}});
        assert!(ranges_of(&object).map(Pool::family).eq(["IPv4", "IPv6"]));
        assert!(is_ready(&object));
        object["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]});
        assert!(!is_ready(&object));
        object["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert!(is_ready(&object));
        object["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert!(!is_ready(&object));
    }
}
