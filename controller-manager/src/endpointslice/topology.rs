//! Which zone each endpoint serves, so that zones get endpoints in proportion to their processors: pure.

use std::collections::BTreeMap;

/// Why endpoints are for all zones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unshared {
    #[error("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")]
    Nodes,
    #[error("Insufficient number of endpoints ({endpoints} endpoints, {zones} zones)")]
    TooFew { endpoints: usize, zones: usize },
    #[error(
        "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
         ({endpoints} endpoints, {zones} zones)"
    )]
    Overload { endpoints: usize, zones: usize },
    #[error("One or more endpoints do not have a zone specified")]
    NoZone,
}

/// How much more than its share of the traffic an endpoint may get.
const OVERLOAD: f64 = 0.2;

/// Shares of zones in the processors of all nodes.
pub(super) type Shares = BTreeMap<String, f64>;

/// The shares of zones, from zone and thousandths of a processor of each node; `None` if a node does not tell, or if
/// there are no two zones.
pub(super) fn shares<'a>(nodes: impl Iterator<Item = (&'a str, i64)>) -> Option<Shares> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for (zone, milli) in nodes {
        if zone.is_empty() || milli <= 0 {
            return None;
        }
        *sums.entry(zone.to_owned()).or_default() += milli;
    }
    let total: i64 = sums.values().sum();
    #[allow(clippy::cast_precision_loss)]
    let share = |sum: i64| sum as f64 / total as f64;
    (sums.len() >= 2).then(|| sums.into_iter().map(|(zone, sum)| (zone, share(sum))).collect())
}

/// The zone that each endpoint is for, given the zones that endpoints are in.
pub(super) fn assign(shares: &Shares, zones: &[Option<&str>]) -> Result<Vec<String>, Unshared> {
    let desired = desired(shares, zones.len())?;
    let mut assigned: Vec<String> = Vec::with_capacity(zones.len());
    for zone in zones {
        assigned.push(zone.filter(|zone| desired.contains_key(*zone)).ok_or(Unshared::NoZone)?.to_owned());
    }
    let mut surplus: BTreeMap<&str, f64> = BTreeMap::new();
    let mut shortage: BTreeMap<&str, f64> = BTreeMap::new();
    for (zone, wanted) in &desired {
        let present = number(assigned.iter().filter(|a| *a == zone).count());
        if present > *wanted {
            surplus.insert(zone, present - wanted);
        } else if present < *wanted {
            shortage.insert(zone, wanted - present);
        }
    }
    while let (Some((giver, gives)), Some((taker, takes))) = (most(&surplus), most(&shortage)) {
        if gives < 1.0 && takes < 1.0 || gives < 0.5 || takes < 0.5 {
            break;
        }
        let Some(moved) = assigned.iter_mut().find(|zone| *zone == giver) else { break };
        taker.clone_into(moved);
        surplus.insert(giver, gives - 1.0);
        shortage.insert(taker, takes - 1.0);
    }
    Ok(assigned)
}

/// Endpoints that zones should have.
fn desired(shares: &Shares, endpoints: usize) -> Result<BTreeMap<String, f64>, Unshared> {
    let zones = shares.len();
    if zones > endpoints {
        return Err(Unshared::TooFew { endpoints, zones });
    }
    let (mut desired, mut least) = (BTreeMap::new(), 0.0);
    for (zone, share) in shares {
        let wanted = share * number(endpoints);
        let minimum = (wanted / (1.0 + OVERLOAD)).ceil();
        least += minimum;
        desired.insert(zone.clone(), wanted.max(minimum));
    }
    if least > number(endpoints) { Err(Unshared::Overload { endpoints, zones }) } else { Ok(desired) }
}

fn most<'a>(of: &BTreeMap<&'a str, f64>) -> Option<(&'a str, f64)> {
    of.iter().map(|(zone, count)| (*zone, *count)).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[(&str, i64)]) -> Option<Shares> {
        shares(nodes.iter().copied())
    }

    fn assigned(nodes: &[(&str, i64)], zones: &str) -> Option<String> {
        let names: Vec<String> = zones.chars().map(String::from).collect();
        let zones: Vec<Option<&str>> = names.iter().map(|z| Some(z.as_str()).filter(|z| *z != "-")).collect();
        assign(&of(nodes)?, &zones).ok().map(|all| all.concat())
    }

    #[test]
    fn nodes_have_to_tell() {
        assert_eq!(of(&[("a", 1000), ("", 1000)]), None);
        assert_eq!(of(&[("a", 1000), ("b", 0)]), None);
        assert_eq!(of(&[("a", 1000), ("a", 3000)]), None, "one zone");
        let shares = of(&[("a", 1000), ("b", 2000), ("a", 1000)]).unwrap();
        assert!((shares["a"] - 0.5).abs() < 1e-9 && (shares["b"] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn why_endpoints_are_for_all_zones() {
        let even = of(&[("a", 4000), ("b", 4000)]).unwrap();
        for (zones, told) in [
            (vec![Some("a")], "Insufficient number of endpoints (1 endpoints, 2 zones)"),
            (vec![Some("a"), None], "One or more endpoints do not have a zone specified"),
            (
                vec![Some("a"), Some("a"), Some("b")],
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
                 (3 endpoints, 2 zones)",
            ),
        ] {
            assert_eq!(assign(&even, &zones).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn endpoints_go_where_processors_are() {
        let even = [("a", 4000), ("b", 4000)];
        let cases = [
            ("ab", Some("ab")),
            ("aabb", Some("aabb")),
            // Two of four go over.
            ("aaaa", Some("bbaa")),
            ("aaab", Some("baab")),
            // Too few, unknown zones, zones without nodes.
            ("a", None),
            ("a-", None),
            ("ac", None),
            // Three for two: each zone would need two at least.
            ("aab", None),
            ("aaabb", None),
            ("aaabbbb", Some("aaabbbb")),
        ];
        for (zones, expected) in cases {
            assert_eq!(assigned(&even, zones).as_deref(), expected, "{zones}");
        }
        let uneven = [("a", 2000), ("b", 6000)];
        assert_eq!(assigned(&uneven, "aabbaabb").as_deref(), Some("bbbbaabb"));
    }
}
