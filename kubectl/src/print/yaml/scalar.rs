//! The style of a string and its text in that style.

/// Column after which lines are folded.
const WIDTH: usize = 80;

/// What a text has in it.
#[derive(Default)]
struct Analysis {
    plain: bool,
    single: bool,
    block: bool,
}

/// A key; never folded.
pub(super) fn key(text: &str) -> String {
    let analysis = analyse(text);
    if !is_string(text) || !analysis.single {
        return double(text, None);
    }
    if analysis.plain && !text.is_empty() { text.to_owned() } else { single(text, None) }
}

/// A value that begins at `column`; following lines begin at `indent`.
pub(super) fn value(text: &str, indent: usize, column: usize) -> String {
    let analysis = analyse(text);
    let place = Some((indent, column));
    if text.contains('\n') {
        return if analysis.block { literal(text, indent) } else { double(text, place) };
    }
    if !is_string(text) || (!analysis.plain && !analysis.single) {
        return double(text, place);
    }
    if analysis.plain { plain(text, indent, column) } else { single(text, place) }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    match c {
        '\n' | ' '..='~' | '\u{85}' => true,
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        c => ('\u{a0}'..='\u{ffff}').contains(&c),
    }
}

fn analyse(text: &str) -> Analysis {
    let chars: Vec<char> = text.chars().collect();
    if chars.is_empty() {
        return Analysis { single: true, ..Analysis::default() };
    }
    let (mut indicators, mut special, mut breaks) = (text.starts_with("---") || text.starts_with("..."), false, false);
    let (mut edge, mut trailing_space, mut break_space, mut space_break) = (false, false, false, false);
    let (mut after_space, mut after_break) = (false, false);
    let mut preceded = true;
    for (at, c) in chars.iter().copied().enumerate() {
        let followed = chars.get(at + 1).is_none_or(|n| *n == ' ' || *n == '\t' || is_break(*n));
        indicators |= match c {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
                if at == 0 =>
            {
                true
            }
            '?' | '-' if at == 0 => followed,
            ':' => followed,
            '#' => preceded,
            _ => false,
        };
        special |= !is_printable(c);
        let last = at + 1 == chars.len();
        if c == ' ' {
            edge |= at == 0 || last;
            trailing_space |= last;
            break_space |= after_break;
            (after_space, after_break) = (true, false);
        } else if is_break(c) {
            breaks = true;
            edge |= at == 0 || last;
            space_break |= after_space;
            (after_space, after_break) = (false, true);
        } else {
            (after_space, after_break) = (false, false);
        }
        preceded = c == ' ' || c == '\t' || is_break(c);
    }
    let hard = space_break || special;
    Analysis {
        plain: !(edge || breaks || break_space || hard || indicators),
        single: !(break_space || hard),
        block: !(trailing_space || hard),
    }
}

/// Whether YAML 1.1 reads the plain text as a string.
fn is_string(text: &str) -> bool {
    let other = matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "<<"
            | "y"
            | "Y"
            | "n"
            | "N"
            | "yes"
            | "Yes"
            | "YES"
            | "no"
            | "No"
            | "NO"
            | "on"
            | "On"
            | "ON"
            | "off"
            | "Off"
            | "OFF"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
            | ".nan"
            | ".NaN"
            | ".NAN"
            | ".inf"
            | ".Inf"
            | ".INF"
            | "+.inf"
            | "+.Inf"
            | "+.INF"
            | "-.inf"
            | "-.Inf"
            | "-.INF"
    );
    !(other || is_number(text) || is_base60(text) || is_timestamp(text))
}

fn is_number(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    let bare = text.replace('_', "");
    let unsigned = bare.strip_prefix(['+', '-']).unwrap_or(&bare);
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let based = |prefixes: [&str; 2], radix| {
        prefixes.iter().any(|p| unsigned.strip_prefix(p).is_some_and(|d| digits(d, radix)))
    };
    if based(["0x", "0X"], 16) || based(["0o", "0O"], 8) || based(["0b", "0B"], 2) {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e), 10));
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction, 10),
        Some((whole, "")) => digits(whole, 10),
        Some((whole, fraction)) => digits(whole, 10) && digits(fraction, 10),
        None => digits(mantissa, 10),
    };
    exponent_fits && mantissa_fits
}

/// `190:20:30`, a number to the base of 60.
fn is_base60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or("");
    let rest: Vec<&str> = parts.collect();
    let numeric = |t: &str| t.chars().all(|c| c.is_ascii_digit() || c == '_');
    let sixty =
        |t: &&str| matches!(t.len(), 1 | 2) && t.chars().all(|c| c.is_ascii_digit()) && (t.len() == 1 || **t < *"60");
    first.starts_with(|c: char| c.is_ascii_digit())
        && numeric(first)
        && !rest.is_empty()
        && rest.iter().all(sixty)
        && numeric(fraction)
}

fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let end = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let (date, clock) = (&text[..end], text.get(end + 1..));
    let date: Vec<&str> = date.split('-').collect();
    let number = |t: &str, most: u32| {
        matches!(t.len(), 1 | 2) && t.chars().all(|c| c.is_ascii_digit()) && t.parse().is_ok_and(|n: u32| n <= most)
    };
    let [_, month, day] = date.as_slice() else { return false };
    if !number(month, 12) || !number(day, 31) || *month == "00" || *month == "0" || *day == "0" || *day == "00" {
        return false;
    }
    let Some(clock) = clock else { return true };
    let zoned = &text[end..=end] != " ";
    let (clock, zone) = match clock.find(['Z', '+', '-']) {
        Some(at) => (&clock[..at], &clock[at..]),
        None => (clock, ""),
    };
    if zone.is_empty() == zoned {
        return false;
    }
    let zone_fits = zone.is_empty() || zone == "Z" || {
        let parts: Vec<&str> = zone[1..].split(':').collect();
        matches!(parts.as_slice(), [h, m] if h.len() == 2 && m.len() == 2 && number(h, 24) && number(m, 60))
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    zone_fits
        && fraction.chars().all(|c| c.is_ascii_digit())
        && matches!(parts.as_slice(), [h, m, s] if number(h, 23) && number(m, 59) && number(s, 59))
}

fn new_line(out: &mut String, indent: usize, column: &mut usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    *column = indent;
}

fn plain(text: &str, indent: usize, mut column: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut spaces = false;
    while let Some(c) = chars.next() {
        if c == ' ' && !spaces && column > WIDTH && chars.peek() != Some(&' ') {
            new_line(&mut out, indent, &mut column);
        } else {
            out.push(c);
            column += 1;
        }
        spaces = c == ' ';
    }
    out
}

fn single(text: &str, place: Option<(usize, usize)>) -> String {
    let (indent, mut column) = place.unwrap_or_default();
    column += 1;
    let mut out = String::from("'");
    let chars: Vec<char> = text.chars().collect();
    let mut spaces = false;
    for (at, c) in chars.iter().copied().enumerate() {
        let inner = at > 0 && at + 1 < chars.len();
        if c == ' ' && place.is_some() && !spaces && column > WIDTH && inner && chars[at + 1] != ' ' {
            new_line(&mut out, indent, &mut column);
        } else {
            if c == '\'' {
                out.push('\'');
                column += 1;
            }
            out.push(c);
            column += 1;
        }
        spaces = c == ' ';
    }
    out.push('\'');
    out
}

fn double(text: &str, place: Option<(usize, usize)>) -> String {
    let (indent, mut column) = place.unwrap_or_default();
    column += 1;
    let mut out = String::from("\"");
    let chars: Vec<char> = text.chars().collect();
    let mut spaces = false;
    for (at, c) in chars.iter().copied().enumerate() {
        let inner = at > 0 && at + 1 < chars.len();
        if c == ' ' && place.is_some() && !spaces && column > WIDTH && inner {
            new_line(&mut out, indent, &mut column);
            if chars[at + 1] == ' ' {
                out.push('\\');
                column += 1;
            }
            spaces = true;
            continue;
        }
        let escaped = escape(c);
        column += escaped.chars().count();
        out.push_str(&escaped);
        spaces = c == ' ';
    }
    out.push('"');
    out
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if is_printable(c) => return c.to_string(),
        c => {
            let code = u32::from(c);
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

fn literal(text: &str, indent: usize) -> String {
    let mut out = String::from("|");
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text == "\n" || text.ends_with("\n\n") {
        out.push('+');
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
    out
}
