//! String formats that are checked. Others say nothing.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::Regex;

macro_rules! expression {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
    };
}

expression!(UUID, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$");
expression!(UUID3, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$");
expression!(UUID4, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$");
expression!(UUID5, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$");
expression!(OBJECT_ID, r"(?i)^[0-9a-f]{24}$");
expression!(
    MAC,
    r"(?i)^([0-9a-f]{2}[:-]){5}([0-9a-f]{2}[:-][0-9a-f]{2}[:-])?[0-9a-f]{2}$|^([0-9a-f]{4}\.){2}[0-9a-f]{4}$"
);
expression!(EMAIL, r#"^[^\s@<>"]+@[^\s@<>"]+$"#);
expression!(URI, r"^([A-Za-z][A-Za-z0-9+.-]*:\S+|/\S*)$");
expression!(HEX_COLOR, r"(?i)^#?([0-9a-f]{3}|[0-9a-f]{6})$");
expression!(RGB_COLOR, r"^rgb\(\s*(\d{1,2}|1\d\d|2[0-4]\d|25[0-5])\s*(,\s*(\d{1,2}|1\d\d|2[0-4]\d|25[0-5])\s*){2}\)$");
expression!(SSN, r"^\d{3}[- ]?\d{2}[- ]?\d{4}$");
expression!(DATE, r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$");
expression!(
    DATE_TIME,
    r"(?i)^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])t([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(z|[+-]\d{2}:\d{2})$"
);
expression!(
    WORDS,
    r"^(\d+\s*(ns|nanosecond|us|microsecond|µs|μs|ms|millisecond|s|sec|second|m|min|minute|h|hr|hour|d|day|w|week|wk)s?\s*)+$"
);

fn matches(regex: &LazyLock<Option<Regex>>, text: &str) -> bool {
    regex.as_ref().is_some_and(|r| r.is_match(text))
}

/// Whether a text is of a format; formats that are not known say nothing.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format {
        "bsonobjectid" => matches(&OBJECT_ID, text),
        "uri" => matches(&URI, text),
        "email" => matches(&EMAIL, text),
        "hostname" => hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => matches(&MAC, text),
        "uuid" => matches(&UUID, text),
        "uuid3" => matches(&UUID3, text),
        "uuid4" => matches(&UUID4, text),
        "uuid5" => matches(&UUID5, text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => matches(&SSN, text),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "byte" => STANDARD.decode(text).is_ok(),
        "date" => matches(&DATE, text) && in_month(text),
        "date-time" | "datetime" => matches(&DATE_TIME, text) && in_month(text),
        "duration" => machinery::duration::parse(text).is_ok() || matches(&WORDS, text),
        "k8s-short-name" => machinery::names::dns1123_label(text).is_empty(),
        "k8s-long-name" => machinery::names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// Whether a date's day is one of its month.
fn in_month(text: &str) -> bool {
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    day <= days
}

fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let bits: Option<u8> = length.parse().ok().filter(|_| length.bytes().all(|b| b.is_ascii_digit()));
    match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>(), bits) {
        (Ok(_), _, Some(bits)) => bits <= 32,
        (_, Ok(_), Some(bits)) => bits <= 128,
        _ => false,
    }
}

/// Digits without the separators that book and card numbers may have.
fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn isbn10(text: &str) -> bool {
    let text = digits(text);
    let value = |(at, c): (usize, char)| match c {
        'X' | 'x' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = text.chars().enumerate().map(value).collect();
    values.is_some_and(|v| v.len() == 10 && v.iter().zip(1..).map(|(d, n): (_, u32)| d * n).sum::<u32>() % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits(text).chars().map(|c| c.to_digit(10)).collect();
    let weighed = |v: &[u32]| v.iter().enumerate().map(|(at, d)| if at % 2 == 0 { *d } else { d * 3 }).sum::<u32>();
    values.is_some_and(|v| v.len() == 13 && weighed(&v).is_multiple_of(10))
}

fn credit_card(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits(text).chars().map(|c| c.to_digit(10)).collect();
    let luhn = |v: &[u32]| {
        let doubled = |(at, d): (usize, &u32)| match (at % 2, d * 2) {
            (0, _) => *d,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        };
        v.iter().rev().enumerate().map(doubled).sum::<u32>()
    };
    values.is_some_and(|v| (13..=19).contains(&v.len()) && luhn(&v).is_multiple_of(10))
}
