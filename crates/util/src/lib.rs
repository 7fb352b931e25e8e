//! Small std-like helpers: error chains, back-off and rate arithmetic, name hashes.

use std::{error::Error, time::Duration};

use rand::Rng;

/// An error with all its causes: `a: b: c`. A cause whose text the outer one ends with is not repeated.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

/// Percent-encodes a path segment or query value: all but RFC 3986's unreserved characters.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Exponential back-off arithmetic: `base * factor^failures`, at most `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// First delay.
    pub base: Duration,
    /// Largest delay.
    pub max: Duration,
    /// Growth per failure.
    pub factor: f64,
    /// Part of the delay that is added at random, 0 for none.
    pub jitter: f64,
}

impl Backoff {
    /// Doubles from `base` to `max`, without jitter.
    pub const fn doubling(base: Duration, max: Duration) -> Self {
        Self { base, max, factor: 2.0, jitter: 0.0 }
    }

    /// The delay after `failures` earlier failures, jitter not included.
    pub fn delay(&self, failures: u32) -> Duration {
        let seconds = self.base.as_secs_f64() * self.factor.powf(f64::from(failures));
        if seconds.is_finite() && seconds < self.max.as_secs_f64() {
            Duration::from_secs_f64(seconds)
        } else {
            self.max
        }
    }

    /// The delay with jitter.
    pub fn jittered(&self, failures: u32) -> Duration {
        jitter(self.delay(failures), self.jitter)
    }
}

/// `duration` plus up to `factor` of itself at random.
pub fn jitter(duration: Duration, factor: f64) -> Duration {
    if factor <= 0.0 {
        return duration;
    }
    duration + duration.mul_f64(rand::rng().random_range(0.0..factor))
}

/// Tokens that come back over time. Times are those of the caller's clock, since any moment.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket: `burst` tokens at most, `rate` a second.
    pub const fn full(rate: f64, burst: f64, now: Duration) -> Self {
        Self { rate, burst, tokens: burst, at: now }
    }

    fn refill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = now;
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    /// Takes a token, if need be one that is still to come: how long until it is there. Without a rate nobody waits.
    pub fn reserve(&mut self, now: Duration) -> Duration {
        self.refill(now);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 || self.rate <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.tokens / self.rate)
    }
}

/// 32-bit FNV-1 hash.
pub fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}

/// 32-bit FNV-1a hash.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// 64-bit FNV-1a hash.
pub fn fnv64a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Letters and digits that names may end in: no vowels, nothing that reads like another character.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Maps any text (a decimal hash, say) to letters that form no words.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(SAFE[usize::from(b) % SAFE.len()])).collect()
}

/// A random suffix of generated names.
pub fn random_suffix(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(SAFE[random.random_range(0..SAFE.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encodes_bytes() {
        assert_eq!(percent_encode("a b/c&d=é"), "a%20b%2Fc%26d%3D%C3%A9");
    }

    #[test]
    fn backoff_is_capped() {
        let backoff = Backoff::doubling(Duration::from_millis(5), Duration::from_secs(1000));
        assert_eq!(backoff.delay(0), Duration::from_millis(5));
        assert_eq!(backoff.delay(3), Duration::from_millis(40));
        assert_eq!(backoff.delay(4_000_000), Duration::from_secs(1000));
        let jittered = jitter(Duration::from_secs(2), 1.2);
        assert!(jittered >= Duration::from_secs(2) && jittered < Duration::from_millis(4400));
    }

    #[test]
    fn tokens_come_back() {
        let at = Duration::from_millis;
        let mut bucket = TokenBucket::full(2.0, 2.0, at(0));
        assert_eq!(
            [0, 0, 0, 400, 500, 9500, 9500, 9500].map(|now| bucket.take(at(now))),
            [true, true, false, false, true, true, true, false]
        );
        let mut bucket = TokenBucket::full(2.0, 1.0, at(0));
        assert_eq!([0, 0, 0, 1000, 5000].map(|now| bucket.reserve(at(now))), [0, 500, 1000, 500, 0].map(at));
        let mut none = TokenBucket::full(0.0, 1.0, at(0));
        assert_eq!([0, 0].map(|now| none.reserve(at(now))), [Duration::ZERO; 2]);
    }

    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(fnv32a(b"a"), 0xe40c_292c);
        assert_eq!(fnv32(b"a"), 0x050c_5d7e);
        assert_eq!(fnv64a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(safe_encode("1234567890").len(), 10);
        assert!(random_suffix(5).bytes().all(|b| SAFE.contains(&b)));
    }

    #[test]
    fn chains_do_not_repeat() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "open: {}", self.0)
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(chain(&Outer(std::io::Error::other("denied"))), "open: denied");
    }
}
