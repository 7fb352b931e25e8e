//! YAML as Kubernetes prints it: sorted keys, lists not indented under their key, YAML 1.1 quoting, lines folded at 80
//! columns.

mod scalar;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Keys that are longer are written as `? key`.
const LONGEST_SIMPLE_KEY: usize = 128;
/// Keys that are sorted one by one.
const INSERTED: usize = 12;

/// A value as a document that ends with a line break.
pub fn encode(value: &Value) -> String {
    let mut out = Writer::default();
    match value {
        Value::Object(map) if !map.is_empty() => out.map(map, 0),
        Value::Array(list) if !list.is_empty() => out.list(list, 0),
        other => {
            out.scalar(other, 0);
            out.line();
        }
    }
    out.text
}

#[derive(Default)]
struct Writer {
    text: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.column = 0;
    }

    fn blanks(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
        self.column += count;
    }

    /// The entries of a map; the cursor stands where the first key belongs.
    fn map(&mut self, map: &Map<String, Value>, indent: usize) {
        let keys = sorted(map.keys().collect());
        for (at, key) in keys.into_iter().enumerate() {
            if at > 0 {
                self.blanks(indent);
            }
            let complex = key.chars().count() > LONGEST_SIMPLE_KEY || key.contains('\n');
            if complex {
                self.put("? ");
            }
            self.put(&scalar::key(key));
            if complex {
                self.line();
                self.blanks(indent);
            }
            self.put(":");
            match &map[key] {
                Value::Object(inner) if !inner.is_empty() => {
                    self.line();
                    self.blanks(indent + 2);
                    self.map(inner, indent + 2);
                }
                Value::Array(list) if !list.is_empty() => {
                    self.line();
                    self.blanks(indent);
                    self.list(list, indent);
                }
                other => {
                    self.put(" ");
                    self.scalar(other, indent);
                    self.line();
                }
            }
        }
    }

    fn list(&mut self, list: &[Value], indent: usize) {
        for (at, item) in list.iter().enumerate() {
            if at > 0 {
                self.blanks(indent);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(map, indent + 2),
                Value::Array(inner) if !inner.is_empty() => self.list(inner, indent + 2),
                other => {
                    self.scalar(other, indent);
                    self.line();
                }
            }
        }
    }

    /// A scalar or an empty collection; lines after the first are indented by two more than `indent`.
    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(flag) => self.put(if *flag { "true" } else { "false" }),
            Value::Number(number) => {
                let text = number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), go_float);
                self.put(&text);
            }
            Value::String(text) => {
                let written = scalar::value(text, indent + 2, self.column);
                self.text.push_str(&written);
            }
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }
}

/// A float as Go prints it in its shortest form.
pub fn go_float(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Keys in their order. It is no total order (`a1b`, `a2`, `a10`), which the sorts of the library do not stand.
fn sorted(keys: Vec<&String>) -> Vec<&String> {
    if keys.len() <= INSERTED {
        let mut done: Vec<&String> = Vec::with_capacity(keys.len());
        for key in keys {
            let at = done.iter().rposition(|other| natural(key, other).is_ge()).map_or(0, |at| at + 1);
            done.insert(at, key);
        }
        return done;
    }
    let (left, right) = keys.split_at(keys.len() / 2);
    let (left, right) = (sorted(left.to_vec()), sorted(right.to_vec()));
    let mut merged = Vec::with_capacity(keys.len());
    let (mut a, mut b) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let next = if natural(y, x).is_lt() { b.next() } else { a.next() };
        merged.extend(next);
    }
    merged.extend(a);
    merged.extend(b);
    merged
}

/// The order of keys: digits count as numbers, and come before letters.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    for i in 0..a.len().min(b.len()) {
        let (x, y) = (a[i], b[i]);
        if x == y {
            continue;
        }
        match (x.is_alphabetic(), y.is_alphabetic()) {
            (true, true) => return x.cmp(&y),
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => {}
        }
        // Zeros after a digit that is not zero are part of the number.
        let mut start = 0_u64;
        if x == '0' || y == '0' {
            let before = a[..i].iter().rev().take_while(|c| c.is_ascii_digit());
            start = u64::from(before.into_iter().any(|c| *c != '0'));
        }
        let number = |text: &[char]| {
            let digits = text[i..].iter().map_while(|c| c.to_digit(10));
            digits.fold((start, i), |(n, end), d| (n.wrapping_mul(10).wrapping_add(u64::from(d)), end + 1))
        };
        let ((m, to_a), (n, to_b)) = (number(&a), number(&b));
        return m.cmp(&n).then(to_a.cmp(&to_b)).then(x.cmp(&y));
    }
    a.len().cmp(&b.len())
}
