//! How the seats of the server are divided among priority levels: by shares, and from time to time anew by what the
//! levels want of what others lend.

use super::demand::Stats;

/// Weight of what was wanted before, in what is taken to be wanted next.
const SMOOTHING: f64 = 0.977;

/// What a level has by its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Seats by its shares.
    pub(super) nominal: u32,
    /// Seats that it never lends.
    pub(super) least: u32,
    /// Seats with all that it may borrow.
    pub(super) most: u32,
}

/// What a configuration says of the seats of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) shares: u32,
    pub(super) lendable_percent: u32,
    pub(super) borrowing_limit_percent: Option<u32>,
}

fn percent(of: u32, percent: u32) -> u32 {
    let rounded = (f64::from(of) * f64::from(percent) / 100.0).round();
    rounded as u32
}

/// Divides the seats of the server by shares.
pub(super) fn bounds(seats: u32, claims: &[Claim]) -> Vec<Bounds> {
    let all: u64 = claims.iter().map(|claim| u64::from(claim.shares)).sum();
    let divide = |claim: &Claim| {
        let nominal = (u64::from(seats) * u64::from(claim.shares)).div_ceil(all.max(1));
        let nominal = u32::try_from(nominal).unwrap_or(seats);
        let lent = percent(nominal, claim.lendable_percent.min(100));
        let most = match claim.borrowing_limit_percent {
            Some(limit) => nominal.saturating_add(percent(nominal, limit)),
            None => seats.max(nominal),
        };
        Bounds { nominal, least: nominal - lent, most }
    };
    claims.iter().map(divide).collect()
}

/// What a level wants, from what it wanted before and in the last period.
pub(super) fn smooth(before: f64, stats: &Stats) -> f64 {
    let envelope = stats.average + stats.deviation;
    envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
}

/// A level when seats are divided anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) bounds: Bounds,
    /// The most that it wanted at once.
    pub(super) high: f64,
    /// What it is taken to want.
    pub(super) wanted: f64,
    /// Whether it is not limited, and has what it wants before all others.
    pub(super) is_exempt: bool,
}

impl Need {
    /// Seats that it has whatever others want.
    fn floor(&self) -> f64 {
        match self.is_exempt {
            true => self.high.max(f64::from(self.bounds.least)),
            false => self.high.min(f64::from(self.bounds.nominal)).max(f64::from(self.bounds.least)),
        }
    }

    pub(super) fn target(&self) -> f64 {
        self.wanted.max(self.floor())
    }
}

/// Seats of each level, and the part of its target that a level gets which is held back by others only.
pub(super) fn divide(seats: u32, needs: &[Need]) -> (Vec<u32>, f64) {
    let limited: Vec<&Need> = needs.iter().filter(|need| !need.is_exempt).collect();
    let exempt: f64 = needs.iter().filter(|need| need.is_exempt).map(Need::floor).sum();
    let left = (f64::from(seats) - exempt).max(0.0);
    let part = part(left, &limited);
    let of = |need: &Need| {
        let floor = need.floor();
        if need.is_exempt {
            return floor.ceil() as u32;
        }
        let given = (part * need.target()).max(floor).min(f64::from(need.bounds.most));
        // A level that has shares can always do something.
        (given.round() as u32).max(u32::from(need.bounds.nominal > 0))
    };
    (needs.iter().map(of).collect(), part)
}

/// The part of targets at which all seats are given away, when nobody gets less than its floor.
fn part(left: f64, needs: &[&Need]) -> f64 {
    let floors: f64 = needs.iter().map(|need| need.floor()).sum();
    if floors >= left {
        return 0.0;
    }
    // Levels leave their floor in the order of floor per target.
    let mut order: Vec<(f64, f64)> = needs.iter().map(|n| (n.floor(), n.target())).filter(|(_, t)| *t > 0.0).collect();
    order.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (mut at_floor, mut targets) = (floors, 0.0);
    for (index, (floor, target)) in order.iter().enumerate() {
        at_floor -= floor;
        targets += target;
        let part = (left - at_floor) / targets;
        let next = order.get(index + 1).map_or(f64::INFINITY, |(floor, target)| floor / target);
        if part <= next {
            return part;
        }
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(nominal: u32, least: u32, most: u32, high: f64, wanted: f64) -> Need {
        Need { bounds: Bounds { nominal, least, most }, high, wanted, is_exempt: false }
    }

    #[test]
    fn shares_become_seats() {
        let claim = |shares, lendable_percent, borrowing_limit_percent| Claim {
            shares,
            lendable_percent,
            borrowing_limit_percent,
        };
        let all = bounds(600, &[claim(30, 33, None), claim(100, 90, Some(10)), claim(5, 0, None), claim(0, 0, None)]);
        assert_eq!(all[0], Bounds { nominal: 134, least: 90, most: 600 });
        assert_eq!(all[1], Bounds { nominal: 445, least: 44, most: 490 });
        assert_eq!(all[2], Bounds { nominal: 23, least: 23, most: 600 });
        assert_eq!(all[3].nominal, 0, "no shares, no seats");
        assert_eq!(bounds(600, &[claim(0, 0, None)])[0].nominal, 0);
    }

    #[test]
    fn who_wants_borrows_of_who_does_not() {
        let (given, _) = divide(100, &[need(50, 10, 100, 200.0, 200.0), need(50, 10, 100, 0.0, 0.0)]);
        assert_eq!(given, [90, 10]);
        let (given, part) = divide(100, &[need(50, 10, 100, 200.0, 200.0), need(50, 10, 100, 200.0, 200.0)]);
        assert_eq!((given, part), (vec![50, 50], 0.0), "everybody has what is its own");
        let (given, _) = divide(100, &[need(50, 10, 60, 200.0, 200.0), need(50, 10, 100, 0.0, 0.0)]);
        assert_eq!(given, [60, 10], "not more than it may");
        let (given, _) = divide(100, &[need(50, 25, 100, 0.0, 0.0), need(50, 25, 100, 0.0, 0.0)]);
        assert_eq!(given, [50, 50], "nobody wants anything");
    }

    #[test]
    fn what_exempt_requests_use_is_not_divided() {
        let mut exempt = need(0, 0, 0, 40.0, 40.0);
        exempt.is_exempt = true;
        let (given, _) = divide(100, &[exempt, need(100, 0, 100, 100.0, 100.0)]);
        assert_eq!(given, [40, 100], "a level keeps its nominal seats if it uses them");
        let (given, _) = divide(100, &[exempt, need(100, 0, 100, 10.0, 90.0)]);
        assert_eq!(given, [40, 60]);
    }

    #[test]
    fn demand_falls_slowly() {
        let high = Stats { average: 10.0, deviation: 2.0, high: 20.0 };
        assert!((smooth(0.0, &high) - 12.0).abs() < 1e-9);
        let next = smooth(12.0, &Stats::default());
        assert!((next - 12.0 * SMOOTHING).abs() < 1e-9);
    }
}
