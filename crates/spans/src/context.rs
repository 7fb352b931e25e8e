//! Which trace a piece of work belongs to, as W3C Trace Context writes it in headers.

use http::{HeaderMap, HeaderName, HeaderValue};

/// `traceparent`.
const PARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest state that is passed on, bytes.
const LONGEST_STATE: usize = 512;
/// Most members of a state.
const MOST_MEMBERS: usize = 32;
const SAMPLED: u8 = 1;

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The piece of work.
    pub span: [u8; 8],
    /// Whether the trace was chosen to be sent.
    pub sampled: bool,
    /// What other tools carry along.
    pub state: String,
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let lower = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.as_bytes().iter().all(lower) {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Context {
    /// Reads a `traceparent`. Later versions may say more behind what is known.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(5, '-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex(version)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex(flags)?);
        if trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self { trace, span, sampled: flags & SAMPLED != 0, state: String::new() })
    }

    /// What the headers of a request say. A header that stands twice says nothing.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(PARENT).iter();
        let (one, None) = (all.next()?, all.next()) else { return None };
        let mut context = Self::parse(one.to_str().ok()?)?;
        let states: Vec<&str> = headers.get_all(STATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let state = states.join(",");
        if state.len() <= LONGEST_STATE && state.split(',').count() <= MOST_MEMBERS {
            context.state = state;
        }
        Some(context)
    }

    /// As a `traceparent`.
    pub fn header(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", shown(&self.trace), shown(&self.span))
    }

    /// Writes the headers of a request.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.header()) {
            headers.insert(PARENT, value);
        }
        match HeaderValue::try_from(&self.state) {
            Ok(value) if !value.is_empty() => drop(headers.insert(STATE, value)),
            _ => drop(headers.remove(STATE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn headers_come_out_as_they_went_in() {
        let context = Context::parse(PLAIN).unwrap();
        assert!(context.sampled);
        assert_eq!(context.header(), PLAIN);
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, HeaderValue::from_static(PLAIN));
        headers.append(STATE, HeaderValue::from_static("a=1"));
        headers.append(STATE, HeaderValue::from_static("b=2"));
        let read = Context::of_headers(&headers).unwrap();
        assert_eq!(read.state, "a=1,b=2");
        let mut written = HeaderMap::new();
        written.insert(STATE, HeaderValue::from_static("old=1"));
        read.inject(&mut written);
        assert_eq!(Context::of_headers(&written), Some(read));
        context.inject(&mut written);
        assert!(!written.contains_key(STATE));
        headers.append(PARENT, HeaderValue::from_static(PLAIN));
        assert_eq!(Context::of_headers(&headers), None);
    }

    #[test]
    fn what_is_no_context_is_none() {
        for (text, is) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01", false),
            ("", false),
        ] {
            assert_eq!(Context::parse(text).is_some(), is, "{text}");
        }
    }
}
