//! Answers of upstreams, kept for as long as they may be.

use std::{collections::HashMap, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};
use parking_lot::Mutex;

use crate::corefile::CacheSettings;

/// A larger answer is not kept: memory is bounded by this times the capacity.
const MAX_RECORDS: usize = 40;

/// What an answer is to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Lower case.
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) class: DNSClass,
    /// Signatures wanted, not to be checked.
    pub(crate) flags: (bool, bool),
}

struct Kept {
    message: Message,
    from: Duration,
    until: Duration,
}

/// The answers. Times are those of a monotonic clock.
#[derive(Default)]
pub(crate) struct Cache(Mutex<HashMap<Key, Kept>>);

impl Cache {
    /// An answer with the times to live that are left.
    pub(crate) fn get(&self, key: &Key, now: Duration) -> Option<Message> {
        let (mut message, age) = {
            let kept = self.0.lock();
            let found = kept.get(key).filter(|k| now < k.until)?;
            (found.message.clone(), now.saturating_sub(found.from))
        };
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for records in [&mut message.answers, &mut message.authorities, &mut message.additionals] {
            records.iter_mut().for_each(|r| r.ttl = r.ttl.saturating_sub(age));
        }
        Some(message)
    }

    /// Keeps an answer if it may be kept.
    pub(crate) fn put(&self, settings: &CacheSettings, key: Key, message: &Message, now: Duration) {
        let Some(time) = lifetime(settings, &key.name, message) else { return };
        let mut message = message.clone();
        let limit = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        for records in [&mut message.answers, &mut message.authorities, &mut message.additionals] {
            records.iter_mut().for_each(|r| r.ttl = r.ttl.min(limit));
        }
        let mut kept = self.0.lock();
        if kept.len() >= settings.capacity && !kept.contains_key(&key) {
            make_room(&mut kept, now);
        }
        kept.insert(key, Kept { message, from: now, until: now + time });
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Drops what is over; if all is fresh, an eighth of it in the order of the map, which nobody can foresee.
fn make_room(kept: &mut HashMap<Key, Kept>, now: Duration) {
    kept.retain(|_, k| now < k.until);
    let excess = kept.len() / 8 + 1;
    let victims: Vec<Key> = kept.keys().take(excess).cloned().collect();
    for key in victims {
        kept.remove(&key);
    }
}

/// How long an answer may be kept; `None` for not at all.
fn lifetime(settings: &CacheSettings, name: &Name, message: &Message) -> Option<Duration> {
    let records = message.answers.len() + message.authorities.len() + message.additionals.len();
    if message.metadata.truncation || records > MAX_RECORDS {
        return None;
    }
    let is_in = |zones: &[Name]| zones.iter().any(|z| z.zone_of(name));
    let positive = message.metadata.response_code == ResponseCode::NoError && !message.answers.is_empty();
    let (limit, seconds) = match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain if positive => {
            let least = message.answers.iter().map(|r| r.ttl).min()?;
            (settings.success, (!is_in(&settings.no_success)).then_some(least)?)
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            // A referral or an answer without SOA says nothing about how long the name stays absent.
            let least = message.authorities.iter().find_map(negative_ttl)?;
            (settings.denial, (!is_in(&settings.no_denial)).then_some(least)?)
        }
        _ => return None,
    };
    Some(limit.min(Duration::from_secs(seconds.into()))).filter(|t| !t.is_zero())
}

fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::OpCode,
        rr::rdata::{A, SOA},
    };

    use super::*;
    use crate::name::parse;

    fn settings(capacity: usize) -> CacheSettings {
        CacheSettings {
            success: Duration::from_secs(30),
            denial: Duration::from_secs(10),
            capacity,
            no_success: vec![parse("off.example").expect("name")],
            no_denial: Vec::new(),
        }
    }

    fn key(name: &str) -> Key {
        Key { name: parse(name).expect("name"), kind: RecordType::A, class: DNSClass::IN, flags: (false, false) }
    }

    fn positive(name: &str, ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        let name = parse(name).expect("name");
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A([192, 0, 2, 1].into()))));
        message
    }

    #[test]
    fn answers_age_and_end() {
        let cache = Cache::default();
        let at = Duration::from_secs;
        cache.put(&settings(8), key("a.example"), &positive("a.example", 300), at(100));
        let ttl = |now| cache.get(&key("a.example"), at(now)).and_then(|m| m.answers.first().map(|r| r.ttl));
        assert_eq!((ttl(100), ttl(110), ttl(129), ttl(130)), (Some(30), Some(20), Some(1), None));
        cache.put(&settings(8), key("x.off.example"), &positive("x.off.example", 300), at(100));
        assert!(cache.get(&key("x.off.example"), at(100)).is_none(), "disabled zones are not kept");
    }

    #[test]
    fn denials_need_a_soa() {
        let cache = Cache::default();
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = ResponseCode::NXDomain;
        cache.put(&settings(8), key("no.example"), &message, Duration::ZERO);
        assert_eq!(cache.len(), 0);
        let zone = parse("example").expect("name");
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 4);
        message.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
        cache.put(&settings(8), key("no.example"), &message, Duration::ZERO);
        assert!(cache.get(&key("no.example"), Duration::from_secs(3)).is_some());
        assert!(cache.get(&key("no.example"), Duration::from_secs(4)).is_none());
        message.metadata.response_code = ResponseCode::ServFail;
        cache.put(&settings(8), key("bad.example"), &message, Duration::ZERO);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn it_never_grows_over_its_capacity() {
        let cache = Cache::default();
        for number in 0..100 {
            let name = format!("n{number}.example");
            cache.put(&settings(16), key(&name), &positive(&name, 60), Duration::ZERO);
            assert!(cache.len() <= 16);
        }
    }
}
