//! How much work a request makes: the seats that it needs, and what follows from it.

use std::time::Duration;

use crate::{
    request::{Query, RequestInfo},
    resource::Resource,
};

/// Seats of one request at most.
pub(super) const MOST_SEATS: u32 = 10;
/// Objects of a list that a seat stands for.
const OBJECTS_PER_SEAT: usize = 100;
/// Watches that a seat stands for, when they are told of a write.
const WATCHES_PER_SEAT: usize = 10;
/// Time that the work of one seat takes then.
const TELLING: Duration = Duration::from_millis(5);

/// The work that a request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Seats while it runs.
    pub(super) initial_seats: u32,
    /// Seats after it.
    pub(super) final_seats: u32,
    /// How long they are taken after it.
    pub(super) after: Duration,
}

impl Work {
    /// One seat, and nothing after.
    pub(super) const ONE: Self = Self { initial_seats: 1, final_seats: 0, after: Duration::ZERO };

    /// The most seats that it needs at any time.
    pub(super) fn most_seats(self) -> u32 {
        self.initial_seats.max(self.final_seats)
    }

    /// Seat seconds of the request that runs for `seconds`.
    pub(super) fn initial(self, seconds: f64) -> f64 {
        f64::from(self.initial_seats) * seconds
    }

    /// All seat seconds.
    pub(super) fn total(self, seconds: f64) -> f64 {
        self.initial(seconds) + f64::from(self.final_seats) * self.after.as_secs_f64()
    }

    /// How long seats are taken after the request.
    pub(super) fn lingers(self) -> Option<Duration> {
        (self.final_seats > 0 && !self.after.is_zero()).then_some(self.after)
    }
}

/// The watches that are told of a write; `None` if the request is none.
pub(super) fn watches(info: &RequestInfo, resource: &Resource) -> Option<usize> {
    let writes = matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete");
    writes.then(|| resource.cache().watches_of(&info.namespace, &info.name))
}

/// The work of a request on a stored resource, at most `most` seats. `watches` are those that are told of it.
pub(super) fn estimate(
    info: &RequestInfo,
    query: &Query,
    resource: &Resource,
    watches: Option<usize>,
    most: u32,
) -> Work {
    match info.verb.as_str() {
        verb if verb == "list" || (verb == "watch" && begins_with_all(query)) => {
            list(query, resource.cache().len(), !info.name.is_empty(), most)
        }
        // Nothing changes that anybody watches.
        _ if info.subresource == "token" || query.get("dryRun").is_some() => Work::ONE,
        _ => watches.map_or(Work::ONE, |watches| write(watches, most)),
    }
}

/// Whether a watch shows what is there already.
fn begins_with_all(query: &Query) -> bool {
    query.flag("sendInitialEvents") || matches!(query.get("resourceVersion").unwrap_or(""), "" | "0")
}

fn list(query: &Query, stored: usize, is_one: bool, most: u32) -> Work {
    if is_one {
        return Work::ONE;
    }
    let limit = query.get("limit").and_then(|text| text.parse::<usize>().ok()).filter(|limit| *limit > 0);
    let returned = limit.map_or(stored, |limit| limit.min(stored));
    let selects = ["labelSelector", "fieldSelector"].iter().any(|key| query.get(key).is_some_and(|v| !v.is_empty()));
    // What a selector refuses is looked at too.
    let looked_at = if selects { stored } else { returned };
    let seats = u32::try_from(looked_at.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(most);
    Work { initial_seats: seats.clamp(1, most.max(1)), ..Work::ONE }
}

fn write(watches: usize, most: u32) -> Work {
    if watches < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let seats = u32::try_from(watches.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
    let final_seats = seats.min(most.max(1));
    Work { final_seats, after: TELLING.mul_f64(f64::from(seats) / f64::from(final_seats)), ..Work::ONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_need_seats_by_what_they_look_at() {
        let seats = |query: &str, stored, one| list(&Query::parse(query), stored, one, 10).initial_seats;
        assert_eq!(seats("", 0, false), 1);
        assert_eq!(seats("", 100, false), 1);
        assert_eq!(seats("", 301, false), 4);
        assert_eq!(seats("", 30_000, false), 10);
        assert_eq!(seats("limit=50", 30_000, false), 1);
        assert_eq!(seats("limit=50&labelSelector=a", 30_000, false), 10);
        assert_eq!(seats("limit=500", 30_000, true), 1);
        assert_eq!(list(&Query::parse(""), 30_000, false, 3).initial_seats, 3);
    }

    #[test]
    fn writes_are_told_to_watches() {
        assert_eq!(write(9, 10), Work::ONE);
        let work = write(25, 10);
        assert_eq!((work.final_seats, work.after), (3, Duration::from_millis(5)));
        let work = write(1000, 10);
        assert_eq!((work.final_seats, work.after), (10, Duration::from_millis(50)));
        assert_eq!(work.most_seats(), 10);
    }

    #[test]
    fn watches_may_begin_with_a_list() {
        let begins = |query: &str| begins_with_all(&Query::parse(query));
        assert!(begins("watch=1") && begins("resourceVersion=0") && begins("sendInitialEvents=true&resourceVersion=7"));
        assert!(!begins("watch=1&resourceVersion=7"));
    }
}
